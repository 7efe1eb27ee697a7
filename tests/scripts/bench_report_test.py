"""bench_report tells faster from slower from noise, and refuses what is no benchmark run."""
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
        check_plots(folder, {a: [100.0]})
    if len(sys.argv) > 2:
        check_context(sys.argv[2])
    print("passed")


main()
