#!/usr/bin/env python3
"""The demo: importance matrix of the shipped model, six types with and without it, one table.

Needs only the programs in --bin. Writes everything into --out and prints where."""
import argparse
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL_DIR = os.path.join(os.path.dirname(HERE), "model")
TYPES = ["Q8_0", "Q6_K", "Q4_K_M", "IQ4_XS", "Q4_0", "IQ2_XXS"]


def run(command):
    """Runs a program; its progress stays visible, its standard output comes back."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.stdout.write(done.stdout)
        sys.exit(f"demo: {' '.join(command)} failed with exit code {done.returncode}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the quantal programs")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--model", default=os.path.join(MODEL_DIR, "tiny-mla-moe-bf16.gguf"))
    parser.add_argument("--calibration-chunks", type=int, default=0, help="0: the whole calibration text")
    parser.add_argument("--chunks", type=int, default=24, help="chunks of the validation text to evaluate")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    started = time.time()

    def tool(name, *rest):
        return run([os.path.join(args.bin, "quantal-" + name), *map(str, rest)])

    imatrix = os.path.join(args.out, "imatrix.gguf")
    print("collecting the importance matrix", flush=True)
    tool("imatrix", "-m", args.model, "-f", os.path.join(MODEL_DIR, "calibration.txt"), "-o", imatrix,
         "--chunks", args.calibration_chunks)

    base = os.path.join(args.out, "reference.kld")
    text = os.path.join(MODEL_DIR, "validation.txt")
    print("evaluating the bf16 model", flush=True)
    reference = json.loads(tool("perplexity", "-m", args.model, "-f", text, "--chunks", args.chunks,
                                "--kl-divergence-base", base, "--overwrite-base", "--json"))
    parameters = json.loads(tool("inspect", args.model, "--json"))["elements"]
    rows = [("BF16", "-", os.path.getsize(args.model), reference["ppl"], 0.0, 1.0)]
    for kind in TYPES:
        for use in (True, False):
            name = f"tiny-{kind}{'' if use else '-no-imatrix'}.gguf"
            path = os.path.join(args.out, name)
            print(f"{kind} {'with' if use else 'without'} imatrix", flush=True)
            options = ["--imatrix", imatrix] if use else ["--require-imatrix", "none"]
            tool("quantize", *options, args.model, path, kind)
            k = json.loads(tool("perplexity", "-m", path, "--kl-divergence", "--kl-divergence-base", base, "--json"))
            rows.append((kind, "yes" if use else "no", os.path.getsize(path), k["ppl"], k["mean_kld"], k["same_top"]))

    print(f"\n{'type':8} {'imatrix':8} {'bytes':>10} {'bpw':>6} {'PPL':>8} {'mean KLD':>9} {'same top':>9}")
    for kind, use, size, ppl, kld, top in rows:
        print(f"{kind:8} {use:8} {size:10d} {8 * size / parameters:6.2f} {ppl:8.4f} {kld:9.5f} {100 * top:8.2f}%")
    with open(os.path.join(args.out, "table.json"), "w") as f:
        keys = ("type", "imatrix", "bytes", "ppl", "mean_kld", "same_top")
        json.dump([dict(zip(keys, row)) for row in rows], f, indent=1)
    print(f"\nfiles in {os.path.abspath(args.out)} ({time.time() - started:.0f} s)")


if __name__ == "__main__":
    main()
