"""bench_report tells faster from slower from noise, says "unknown" where it cannot, and refuses what is no benchmark run."""
import json
import os
import random
import subprocess
import sys
import tempfile


def run_file(folder, name, times, context=None):
    entries = [{"name": f"{bench}/real_time", "run_name": f"{bench}/real_time", "run_type": "iteration",
                "real_time": t, "time_unit": "us", "op/s": 1e9, "bytes/s": 1e8, "share": 0.5}
               for bench, values in times.items() for t in values]
    entries.append({"name": "mean", "run_type": "aggregate", "real_time": 1, "time_unit": "us"})
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        json.dump({"context": context or {}, "benchmarks": entries}, f)
    return path


def report(*arguments):
    done = subprocess.run([sys.executable, sys.argv[1], *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def noisy(rng, mean):
    return [mean * rng.uniform(0.97, 1.03) for _ in range(9)]


def check_unknown(folder):
    """No verdict from what holds none: its own exit code, and the cause."""
    name = "mul_mat/q4_0/avx2/q8/m:1/n:1/k:1/threads:1"
    slow, fast = [200.0, 201.0, 202.0, 203.0], [100.0, 101.0, 102.0, 103.0]
    machine = {"host_name": "a", "num_cpus": 2, "mhz_per_cpu": 3000, "library_build_type": "release", "caches": []}

    def outcome(old, new, old_context=machine, new_context=machine):
        return report(run_file(folder, "o.json", {name: old}, old_context), run_file(folder, "n.json", {name: new}, new_context))

    assert outcome(slow, fast)[0] == 0 and outcome(fast, slow)[0] == 1
    for times, cause in ((slow[:1], "1 repetition"), (slow[:2], "2 repetitions"), ([0.0] * 4, "a time is 0"),
                         (slow[:3] + [float("nan")], "a time is nan"), ([-1.0] + slow, "a time is -1"),
                         ([float("inf")] + slow, "a time is inf"), (["9"] + slow, "a time is 9"), ([None] + slow, "a time is None")):
        for code, text in (outcome(fast, times), outcome(times, fast)):
            assert code == 2 and cause in text and "0 slower, 1 unknown" in text, (times, text)
    for key, value in (("host_name", "b"), ("num_cpus", 4), ("library_build_type", "debug"), ("caches", [{"size": 1}]),
                       ("mhz_per_cpu", 2000), ("host_name", None), ("compiler", "gcc 12")):
        other = {k: v for k, v in {**machine, key: value}.items() if v is not None}
        for code, text in (outcome(fast, slow, machine, other), outcome(fast, slow, other, machine)):
            assert code == 2 and f"unknown: {key}" in text and "0 slower" in text, (key, text)
    # Something slower outweighs something unknown.
    code, text = report(run_file(folder, "o.json", {name: fast, "x": fast}), run_file(folder, "n.json", {name: slow, "x": fast[:1]}))
    assert code == 1 and "1 slower, 1 unknown" in text, text


def check_unusable(folder, good):
    """Files that are not what they should be: the exit code of an unknown verdict, no traceback."""
    bad = os.path.join(folder, "bad.json")
    for content in ("", "[]", "{}", "3", '{"benchmarks": 3}', '{"benchmarks": [3]}', '{"benchmarks": [{"real_time": 1}]}',
                    '{"benchmarks": []}', '{"benchmarks": [{"name": "m", "run_type": "aggregate"}]}',
                    '{"benchmarks": [{"name": "other", "real_time": 1}]}', "[" * 100000):
        with open(bad, "w") as f:
            f.write(content)
        for files in ((bad, good), (good, bad)):
            code, text = report(*files)
            assert code == 2 and text.startswith("bench_report: ") and "Traceback" not in text, (content[:50], text)
    with open(bad, "w") as f:
        f.write('{"benchmarks": [{"name": "m", "error_occurred": true, "error_message": "no such arch"}]}')
    code, text = report(bad, bad)
    assert code == 2 and "the run failed: no such arch" in text, text
    assert report(good, good, "--threshold", "nan")[0] == 2


def check_plots(folder, times):
    """A roofline from one file, which must hold the ceilings. Only where matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return
    plots = os.path.join(folder, "plots")
    code, text = report(run_file(folder, "bare.json", times), "-o", plots)
    assert code != 0 and "no ceilings of avx2/q8" in text, text
    context = {"ceiling:read_bytes/s": "2e10", "ceiling:avx2/q8_op/s": "2e11"}
    code, text = report(run_file(folder, "whole.json", times, context), "-o", plots)
    assert code == 0 and os.path.getsize(os.path.join(plots, "roofline.svg")) > 1000, text


def check_context(bench):
    """A real run holds the ceilings of every arch it measured."""
    done = subprocess.run([bench, "--benchmark_filter=^dequantize/f32/", "--benchmark_format=json",
                           "--benchmark_min_time=0.001"], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    context = document["context"]
    assert float(context["ceiling:read_bytes/s"]) > 1e8, context
    archs = {b["name"].split("/")[2] for b in document["benchmarks"]}
    assert archs, document
    for arch in archs:
        for policy in ("exact", "q8"):
            assert float(context[f"ceiling:{arch}/{policy}_op/s"]) > 1e7, context


def main():
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        a, b, c = (f"mul_mat/{f}/avx2/q8/m:1/n:1/k:1/threads:1" for f in ("q4_0", "q4_K", "q8_0"))
        old = run_file(folder, "old.json", {a: noisy(rng, 100), b: noisy(rng, 100), c: noisy(rng, 100)})
        new = run_file(folder, "new.json", {a: noisy(rng, 50), b: noisy(rng, 100), c: noisy(rng, 130)})
        code, text = report(old, new)
        lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("mul_mat")}
        assert code == 1, text
        assert lines[a + "/real_time"].endswith("faster") and lines[c + "/real_time"].endswith("slower"), text
        assert "1 faster, " in text and "1 slower" in text, text
        assert report(old, old)[0] == 0
        empty = os.path.join(folder, "empty.json")
        open(empty, "w").close()
        code, text = report(empty, new)
        assert code != 0 and "not a Google Benchmark JSON file" in text, text
        check_unknown(folder)
        check_unusable(folder, new)
        check_plots(folder, {a: [100.0]})
    if len(sys.argv) > 2:
        check_context(sys.argv[2])
    print("passed")


main()
