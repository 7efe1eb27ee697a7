#!/usr/bin/env python3
"""What codes chosen by what they do to outputs are worth: the tables of README, "Codes chosen by what they do to outputs".

Collects an importance matrix and second moments from the calibration text, quantizes the model to each type with the
importance alone and with the moments too (with --sequential also stage by stage), everything but embeddings, output and what no block fits in one type, and
measures the mean KL divergence, the perplexity and the share of equal first tokens against the unquantized model on three
texts: the first chunks of the validation text, later ones, and the documents and headers of this repository. Prints a
table with the ratio of both and writes OUT/output_codes.json.

  examples/study/output_codes.py --bin build/release/bin --out out/output_codes
  examples/study/output_codes.py --bin build/release/bin --out out/few --calibration 4 --types Q4_K_S Q3_K_S
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MODEL_DIR = os.path.join(ROOT, "examples", "model")
TYPES = ("Q4_0 IQ4_XS IQ4_KSS Q4_K_S IQ4_K Q3_K_S IQ3_K IQ3_S IQ3_XXS IQ3_KS Q2_K IQ2_K IQ2_XS IQ2_XXS IQ2_KL "
         "IQ2_KT IQ3_KT IQ4_KT Q5_K_S IQ5_K Q6_K").split()


def run(args, name, *rest):
    command = [os.path.join(args.bin, "quantal-" + name), *map(str, rest)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"output_codes: {' '.join(command)} failed with exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def write(path, text):
    with open(path, "wb") as f:
        f.write(text)
    return path


def texts(args):
    """Name and file of the texts that verdicts are made on. Later chunks start well behind what --chunks takes."""
    validation = os.path.join(MODEL_DIR, "validation.txt")
    with open(validation, "rb") as f:
        whole = f.read()
    later = whole[len(whole) // 2:]
    later = later[later.index(b"\n") + 1:]
    own = b""
    for pattern in ("README.md", "docs/*.md", "include/quantal/*.hpp"):
        for path in sorted(glob.glob(os.path.join(ROOT, pattern))):
            with open(path, "rb") as f:
                own += f.read()
    return {"validation": validation, "later": write(os.path.join(args.out, "later.txt"), later),
            "sources": write(os.path.join(args.out, "sources.txt"), own)}


def measure(args, path, bases):
    """Of each text: mean KL divergence, perplexity, share of equal first tokens."""
    found = {}
    for name, base in bases.items():
        k = json.loads(run(args, "perplexity", "-m", path, "--kl-divergence", "--kl-divergence-base", base, "--json"))
        found[name] = {key: k[key] for key in ("mean_kld", "mean_kld_error", "ppl", "same_top")}
    return found


def quantize(args, kind, imatrix, *more):
    path = os.path.join(args.out, f"candidate-{kind}.gguf")
    start = time.time()
    run(args, "quantize", "--pure", "--token-embedding-type", "q8_0", "--output-tensor-type", "q8_0", "--imatrix", imatrix,
        *more, args.model, path, kind)
    return path, time.time() - start


def show(kind, point, names, ways):
    cells = [f"{kind:8} {point['bytes']:9d}"]
    for name in names:
        plain = point["plain"][name]
        cell = f"{plain['mean_kld']:8.5f}"
        for way in ways:
            chosen = point[way][name]
            worse = "".join(mark for mark, bad in (("p", chosen["ppl"] > plain["ppl"]),
                                                   ("t", chosen["same_top"] < plain["same_top"])) if bad)
            cell += f" {chosen['mean_kld']:8.5f} {chosen['mean_kld'] / plain['mean_kld']:5.3f}{worse:2}"
        cells.append(cell)
    cells.append(" ".join(f"{point[way + '_seconds']:5.1f}" for way in ["plain", *ways]) + " s")
    print(" | ".join(cells), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="folder of the quantal programs")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--model", default=os.path.join(MODEL_DIR, "tiny-mla-moe-bf16.gguf"))
    parser.add_argument("--calibration", type=int, default=128, help="chunks of the calibration text")
    parser.add_argument("--chunks", type=int, default=24, help="chunks of every other text")
    parser.add_argument("--types", nargs="+", default=TYPES)
    parser.add_argument("--texts", nargs="+", default=["validation", "later", "sources"])
    parser.add_argument("--sequential", action="store_true", help="quantal-quantize --sequential too, on the same chunks")
    args = parser.parse_args()
    calibration = os.path.join(MODEL_DIR, "calibration.txt")
    os.makedirs(args.out, exist_ok=True)
    imatrix, moments = (os.path.join(args.out, f"{name}-{args.calibration}.gguf") for name in ("imatrix", "moments"))
    if not (os.path.exists(imatrix) and os.path.exists(moments)):
        run(args, "imatrix", "-m", args.model, "-f", calibration, "-o", imatrix, "--hessian", moments, "--chunks", args.calibration, "--no-ppl")
    bases = {}
    for name, path in texts(args).items():
        if name not in args.texts:
            continue
        bases[name] = os.path.join(args.out, f"{name}.kld")
        if not os.path.exists(bases[name]):
            run(args, "perplexity", "-m", args.model, "-f", path, "--chunks", args.chunks, "--kl-divergence-base", bases[name])
    plain_file = os.path.join(args.out, f"plain-{args.calibration}.json")  # does not change with the choice of codes
    known = json.load(open(plain_file)) if os.path.exists(plain_file) else {}
    ways = {"moments": ["--hessian", moments]}
    if args.sequential:
        ways["sequential"] = ["--sequential", "--text", calibration, "--chunks", args.calibration]
    print(f"type, bytes | per text: KLD with importance; with {', with '.join(ways)}, ratio, p: perplexity worse, "
          "t: same top worse | time")
    points = {}
    for kind in args.types:
        if kind not in known or any(name not in known[kind]["plain"] for name in bases):
            path, seconds = quantize(args, kind, imatrix)
            known[kind] = {"bytes": os.path.getsize(path), "plain": measure(args, path, bases), "plain_seconds": seconds}
            os.remove(path)
            with open(plain_file, "w") as f:
                json.dump(known, f, indent=1)
        points[kind] = dict(known[kind])
        for way, options in ways.items():
            path, seconds = quantize(args, kind, imatrix, *options)
            points[kind].update({way: measure(args, path, bases), way + "_seconds": seconds})
            if abs(os.path.getsize(path) - known[kind]["bytes"]) > 1024:  # keys name what the codes were chosen with
                sys.exit(f"output_codes: {kind}: the sizes differ")
            os.remove(path)
        show(kind, points[kind], bases, ways)
    with open(os.path.join(args.out, "output_codes.json"), "w") as f:
        json.dump({"model": os.path.basename(args.model), "calibration": args.calibration, "chunks": args.chunks,
                   "types": points}, f, indent=1)


if __name__ == "__main__":
    main()
