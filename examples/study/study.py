#!/usr/bin/env python3
"""What each kind of tensor costs in KL divergence, and what follows for a recipe.

Quantizes one class of tensors at a time to each of several types, everything else staying as it is, and measures the mean
KL divergence against the unquantized model. Prints KLD per class and type and KLD per byte saved, fits one sensitivity per
class (KLD per unit of weighted NMSE, which is close to a constant while errors are small), and writes both to
OUT/study.json, the file that `quantal-quantize --target-bpw X --sensitivity FILE` allocates types with. With matplotlib
it also draws OUT/study.svg.

  examples/study/study.py --bin build/release/bin --imatrix imatrix.gguf --out out/study
  examples/study/study.py --bin build/release/bin --imatrix imatrix.gguf --out out/study --compare Q4_K_M IQ4_XS
  examples/study/study.py --bin build/release/bin --imatrix imatrix.gguf --hessian moments.gguf --out out/study --correct 5000000

--compare sets fixed mixes against allocations of as many bytes. --correct BYTES allocates, measures what each class costs
as it was allocated, allocates once more with these sensitivities (OUT/corrected.json) and says which of the two models is closer
to the original. With --hessian codes are chosen by second moments; sensitivities are still those of plain codes, in whose errors
quantal-quantize counts.
"""
import argparse
import json
import math
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL_DIR = os.path.join(os.path.dirname(HERE), "model")
CLASSES = {
    "token_embd": r"^token_embd\.weight$",
    "output": r"^output\.weight$",
    "attn_q_a": r"\.attn_q_a\.weight$",
    "attn_q_b": r"\.attn_q_b\.weight$",
    "attn_kv_a_mqa": r"\.attn_kv_a_mqa\.weight$",
    "attn_k_b": r"\.attn_k_b\.weight$",
    "attn_v_b": r"\.attn_v_b\.weight$",
    "attn_output": r"\.attn_output\.weight$",
    "ffn dense": r"\.ffn_(gate|up|down)\.weight$",
    "ffn shared": r"\.ffn_(gate|up|down)_shexp\.weight$",
    "ffn gate, up experts": r"\.ffn_(gate|up)_exps\.weight$",
    "ffn down experts": r"\.ffn_down_exps\.weight$",
}


def finite(value, where):
    """The value; ends the study if a number in it is NaN or infinite, or null in its place."""
    if value is None or isinstance(value, float) and not math.isfinite(value):
        sys.exit(f"study: {where}: a number is not finite")
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        finite(item, f"{where}: {key}")
    return value


class Bench:
    """Runs the programs and keeps the reference logits."""

    def __init__(self, args):
        self.args = args
        os.makedirs(args.out, exist_ok=True)
        self.base = os.path.join(args.out, "reference.kld")
        self.tool("perplexity", "-m", args.model, "-f", args.text, "-c", args.context, "--chunks", args.chunks,
                  "--kl-divergence-base", self.base, "--overwrite-base", "--json")

    def tool(self, name, *rest):
        command = [os.path.join(self.args.bin, "quantal-" + name), *map(str, rest)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"study: {' '.join(command)} failed with exit code {done.returncode}")
        document = json.loads(done.stdout)
        return finite(document, " ".join(command)) if name == "perplexity" else document

    def quantize(self, kind, *options, plain=False):
        """The plan with its errors, and the path of the model. Plain codes are those that importance alone chooses."""
        path = os.path.join(self.args.out, "candidate.gguf")
        moments = [] if plain or not self.args.hessian else ["--hessian", self.args.hessian]
        return self.tool("quantize", "--json", "--require-imatrix", "none", "--imatrix", self.args.imatrix, *moments, *options,
                         self.args.model, path, kind), path

    def kld(self, path):
        k = self.tool("perplexity", "-m", path, "--kl-divergence", "--kl-divergence-base", self.base, "--json")
        os.remove(path)
        return k


def measure_class(bench, name, pattern, kind):
    plan, path = bench.quantize("Q8_0", "--custom-q", f"{pattern}={kind},.*=bf16", plain=True)
    changed = [t for t in plan["tensors"] if not t["copied"]]
    k = bench.kld(path)
    saved = sum(t["source_bytes"] - t["bytes"] for t in changed)
    nmse = sum(finite(t["nmse_weighted"], t.get("name", name)) for t in changed) / len(changed)
    point = {"class": name, "type": kind, "kld": k["mean_kld"], "kld_error": k["mean_kld_error"], "nmse": nmse,
             "bytes_saved": saved, "kld_per_mib_saved": k["mean_kld"] / (saved / 2**20)}
    print(f"{name:22} {kind:8} {k['mean_kld']:10.6f} +/- {k['mean_kld_error']:8.6f} {nmse:10.3e} {saved / 2**20:8.2f} "
          f"{point['kld_per_mib_saved']:12.6f}", flush=True)
    return point, len(changed)


def fit(points):
    """KLD = s * NMSE in the least-squares sense of relative errors: the mean ratio, noise taken out of small KLDs."""
    ratios = [(p["kld"] / p["nmse"], (p["kld"] / max(p["kld_error"], 1e-12)) ** 2) for p in points if p["nmse"] > 0]
    weight = sum(w for _, w in ratios)
    return max(sum(r * w for r, w in ratios) / weight, 0.0) if weight else 0.0


def study(bench, types):
    print(f"{'class':22} {'type':8} {'KLD':>10} {'':12} {'wNMSE':>10} {'MiB less':>8} {'KLD/MiB':>12}")
    points, classes = [], []
    for name, pattern in CLASSES.items():
        mine, tensors = [], 0
        for kind in types:
            point, tensors = measure_class(bench, name, pattern, kind)
            mine.append(point)
        points += mine
        classes.append({"class": name, "tensors": pattern, "count": tensors, "kld_per_nmse": fit(mine)})
    return {"model": os.path.basename(bench.args.model), "context": bench.args.context, "chunks": bench.args.chunks,
            "classes": classes, "points": points}


def plot(document, path):
    try:
        import matplotlib
    except ImportError:
        print("study: no matplotlib, no plot", file=sys.stderr)
        return
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "quantal"
    import matplotlib.pyplot as plt
    types = list(dict.fromkeys(p["type"] for p in document["points"]))
    names = [c["class"] for c in document["classes"]]
    figure, axis = plt.subplots(figsize=(8, 4.5))
    for i, kind in enumerate(types):
        values = [p["kld_per_mib_saved"] for p in document["points"] if p["type"] == kind]
        axis.barh([y + 0.8 * i / len(types) for y in range(len(names))], values, 0.8 / len(types), label=kind)
    axis.set_yticks([y + 0.4 - 0.4 / len(types) for y in range(len(names))], names)
    axis.set(xscale="log", xlabel="KL divergence per MiB saved (less is a better place to save)")
    axis.invert_yaxis()
    axis.grid(True, axis="x", alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path)
    print(f"wrote {path}")


def compare(bench, mixes, sensitivity):
    """Fixed mixes against the allocation with as many bytes."""
    rows = []
    for mix in mixes:
        plan, path = bench.quantize(mix)
        size = os.path.getsize(path)
        fixed = bench.kld(path)
        chosen, path = bench.quantize(mix, "--target-size", size, "--sensitivity", sensitivity)
        allocated_size = os.path.getsize(path)
        ours = bench.kld(path)
        rows.append({"mix": mix, "bytes": size, "kld": fixed["mean_kld"], "same_top": fixed["same_top"],
                     "allocated_bytes": allocated_size, "allocated_kld": ours["mean_kld"],
                     "allocated_same_top": ours["same_top"], "custom_q": chosen["custom_q"]})
        print(f"{mix:8} {size:10d} bytes KLD {fixed['mean_kld']:.5f} same top {100 * fixed['same_top']:.2f} %   "
              f"allocated {allocated_size:10d} bytes KLD {ours['mean_kld']:.5f} same top {100 * ours['same_top']:.2f} %",
              flush=True)
    return rows


def allocated_errors(bench, rules):
    """Per tensor the error that an allocation counts: that of plain codes, times what chosen codes leave of the output error."""
    plain, path = bench.quantize("Q8_0", "--custom-q", rules, plain=True)
    os.remove(path)
    chosen, path = bench.quantize("Q8_0", "--custom-q", rules)
    os.remove(path)
    errors = {}
    for a, b in zip(plain["tensors"], chosen["tensors"]):
        if a["copied"]:
            continue
        o = b.get("output", {})
        measured = o.get("measured") and o["plain_nmse"]
        ratio = min(o["chosen_nmse"] / o["plain_nmse"], 1) if measured else 1
        errors[a["name"]] = finite(a["nmse_weighted"], a["name"]) * ratio
    return errors


def classes_of(names):
    """The names that each class matches first."""
    out = {c: [] for c in CLASSES}
    for name in names:
        matches = [c for c, pattern in CLASSES.items() if re.search(pattern, name)]
        if matches:
            out[matches[0]].append(name)
    return out


def measured_sensitivities(bench, document, rules):
    """The study's classes with the KLD per error that each has as it was allocated, all others staying as they are."""
    errors = allocated_errors(bench, rules)
    members = classes_of(errors)
    corrected = []
    for c in document["classes"]:
        mine = members[c["class"]]
        error = sum(errors[n] for n in mine) / c["count"]
        if error == 0:
            corrected.append(c)
            continue
        only = [r for r in rules.split(",") if r[1:r.rindex("$=")].replace("\\", "") in mine]
        _, path = bench.quantize("Q8_0", "--custom-q", ",".join(only + [".*=bf16"]))
        kld = bench.kld(path)["mean_kld"]
        print(f"{c['class']:22} error {error:.3e} KLD {kld:.6f}: sensitivity {c['kld_per_nmse']:.4f} -> {kld / error:.4f}",
              flush=True)
        corrected.append({**c, "kld_per_nmse": max(kld / error, 0)})
    return {**document, "classes": corrected}


def correct(bench, size, out):
    """Allocates, measures each class as allocated, allocates again."""
    study_file, corrected_file = os.path.join(out, "study.json"), os.path.join(out, "corrected.json")
    with open(study_file) as f:
        document = json.load(f)
    rows = []
    for sensitivity in (study_file, corrected_file):
        plan, path = bench.quantize("Q4_K_M", "--target-size", size, "--sensitivity", sensitivity)
        rows.append({"sensitivity": sensitivity, "bytes": os.path.getsize(path), "custom_q": plan["custom_q"], **bench.kld(path)})
        print(f"{sensitivity}: {rows[-1]['bytes']} bytes KLD {rows[-1]['mean_kld']:.5f}", flush=True)
        if sensitivity == study_file:
            with open(corrected_file, "w") as f:
                json.dump(measured_sensitivities(bench, document, plan["custom_q"]), f, indent=1)
    best = min(rows, key=lambda r: r["mean_kld"])
    print(f"quantize with --target-size {size} --sensitivity {best['sensitivity']}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="folder of the quantal programs")
    parser.add_argument("--imatrix", required=True)
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--model", default=os.path.join(MODEL_DIR, "tiny-mla-moe-bf16.gguf"))
    parser.add_argument("--text", default=os.path.join(MODEL_DIR, "calibration.txt"),
                        help="for sensitivities; not the text that verdicts are made on")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--types", nargs="+", default=["q2_K", "q3_K", "q4_K"])
    parser.add_argument("--compare", nargs="+", metavar="MIX", default=[],
                        help="skip the study; compare mixes with allocations from OUT/study.json on the validation text")
    parser.add_argument("--hessian", help="second moments: codes are chosen by what they do to outputs")
    parser.add_argument("--correct", type=int, metavar="BYTES",
                        help="skip the study; allocate BYTES from OUT/study.json, measure, allocate once more")
    args = parser.parse_args()
    if args.compare:
        args.text = os.path.join(MODEL_DIR, "validation.txt") if args.text == parser.get_default("text") else args.text
    bench = Bench(args)
    if args.compare:
        rows = compare(bench, args.compare, os.path.join(args.out, "study.json"))
        with open(os.path.join(args.out, "compare.json"), "w") as f:
            json.dump(rows, f, indent=1)
        return
    if args.correct:
        with open(os.path.join(args.out, "correct.json"), "w") as f:
            json.dump(correct(bench, args.correct, args.out), f, indent=1)
        return
    document = study(bench, args.types)
    with open(os.path.join(args.out, "study.json"), "w") as f:
        json.dump(document, f, indent=1)
    for c in sorted(document["classes"], key=lambda c: -c["kld_per_nmse"]):
        print(f"{c['class']:22} sensitivity {c['kld_per_nmse']:.4f}")
    plot(document, os.path.join(args.out, "study.svg"))


if __name__ == "__main__":
    main()
