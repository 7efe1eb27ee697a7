"""Quantizes the matrices of a GGUF file to a type that PyPI's gguf cannot encode: requantize.py IN OUT [TYPE].

Only tensors of float types with at least two dimensions and whole blocks change; keys and all other tensors are kept.
--imatrix FILE weighs the errors. One tensor at a time is in memory.
"""

from __future__ import annotations

import argparse

import quantal


def target(model: quantal.GGUF, name: str, format: quantal.Format) -> str:
    shape, kind = model.shape(name), model.type(name)
    matrix = len(shape) > 1 and shape[-2] > 1 and name.endswith(".weight") and "norm" not in name
    keep = kind not in ("f32", "f16", "bf16") or not matrix or shape[-1] % format.block or name.startswith("token_embd")
    return kind if keep else format.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("format", nargs="?", default="iq4_xs")
    parser.add_argument("--imatrix")
    arguments = parser.parse_args()
    imatrix = quantal.Imatrix.load(arguments.imatrix) if arguments.imatrix else None
    model, format = quantal.GGUF(arguments.source), quantal.format(arguments.format)
    plan = [(name, target(model, name, format), model.shape(name)) for name in model]
    with quantal.GGUFWriter(arguments.out, plan, model.metadata) as writer:
        for name, kind, shape in plan:
            if kind == model.type(name):
                writer.write(model[name])
                continue
            weights = model.quantized(name).dequantize()
            importance = imatrix.lookup(name, shape) if imatrix else None
            quantized = quantal.quantize(weights, kind, importance)
            writer.write(quantized)
            print(f"{name:<32} {kind}  nmse {quantal.error(weights, quantized)['nmse']:.2e}")


if __name__ == "__main__":
    main()
