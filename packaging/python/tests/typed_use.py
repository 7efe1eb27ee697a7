"""What users write, for mypy --strict: nothing here runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

import quantal
from quantal.testing import assert_gates, assert_nmse


def use(weights: npt.NDArray[np.float32], x: npt.NDArray[np.float32], ids: npt.NDArray[np.int64]) -> None:
    q: quantal.QuantizedArray = quantal.quantize(weights, "q4_K", importance=None, threads=2)
    raw: bytes = q.tobytes()
    decoded: npt.NDArray[np.float32] = quantal.dequantize(raw, q.format, q.shape)
    y: npt.NDArray[np.float32] = quantal.mul_mat(q, x, activation="exact")
    y = q @ x
    y = x @ q.T
    z: npt.NDArray[np.float32] = quantal.mul_mat_id(q, x, ids)
    nmse: float = quantal.error(weights, decoded)["nmse"]
    part: quantal.QuantizedArray = q[1, 2:3]
    names: list[str] = [f.name for f in quantal.formats()]
    imatrix = quantal.Imatrix.load(Path("imatrix.gguf"))
    found = imatrix.lookup("blk.0.ffn_up.weight", weights.shape)
    if found is not None:
        quantal.quantize(weights, "q4_K", found)
        shape: tuple[int, ...] = found.weights.shape
    with quantal.GGUF("model.gguf") as model:
        tensor = model["token_embd.weight"]
        if isinstance(tensor, quantal.QuantizedArray):
            tensor = tensor.dequantize()
        quantal.write_gguf("out.gguf", {"a": q, "b": weights, "c": tensor}, model.metadata)
    with quantal.GGUFWriter("out.gguf", [("a", "q4_K", q.shape)]) as writer:
        writer.write(q)
    assert_nmse(weights, q, 1e-2)
    assert_gates("gates.yaml", {"blk.0.ffn_up.weight": (weights, q)})
