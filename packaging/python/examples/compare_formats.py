"""Quantizes a weight matrix to all formats and plots error against bits: compare_formats.py [WEIGHTS.npy] [-o out.png].

Without a file, normally distributed weights. --gguf MODEL --tensor NAME takes a tensor of a model.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

import quantal


def weights_of(arguments: argparse.Namespace) -> npt.NDArray[np.float32]:
    if arguments.gguf:
        return quantal.GGUF(arguments.gguf).quantized(arguments.tensor).dequantize()
    if arguments.weights:
        return np.asarray(np.load(arguments.weights), np.float32)
    return np.random.default_rng(0).standard_normal((256, 1024), dtype=np.float32)


def measure(weights: npt.NDArray[np.float32]) -> list[tuple[float, float, str]]:
    rows = []
    for f in quantal.formats():
        if not f.is_weight or f.is_float or weights.shape[-1] % f.block:
            continue
        q = quantal.quantize(weights, f)
        rows.append((8 * q.nbytes / weights.size, quantal.error(weights, q)["nmse"], f.name))
    return sorted(rows)


def plot(rows: list[tuple[float, float, str]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 7), layout="constrained")
    axes.semilogy([r[0] for r in rows], [r[1] for r in rows], "o", markersize=4)
    for bits, error, name in rows:
        axes.annotate(name, (bits, error), textcoords="offset points", xytext=(4, 3), fontsize=7)
    axes.set(xlabel="bits per weight", ylabel="normalised mean squared error", title="Formats of quantal")
    axes.grid(True, which="both", alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", nargs="?", help="a .npy file of two dimensions")
    parser.add_argument("--gguf", help="a model")
    parser.add_argument("--tensor", help="a tensor of it")
    parser.add_argument("-o", "--out", default="formats.png", help="the plot")
    arguments = parser.parse_args()
    rows = measure(weights_of(arguments))
    for bits, error, name in rows:
        print(f"{name:<8} {bits:6.3f} bits  nmse {error:.3e}")
    plot(rows, arguments.out)


if __name__ == "__main__":
    main()
