"""Bytes are those of the C++ library, and decode to what PyPI's gguf makes of them."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quantal

NAMES = [f.name for f in quantal.formats()]


@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_those_of_the_library(name: str, encode: Any, rng: np.random.Generator) -> None:
    cols = 2 * max(256, quantal.format(name).block)
    weights = rng.standard_normal((6, cols), dtype=np.float32)
    importance = rng.random(cols, dtype=np.float32)
    assert quantal.quantize(weights, name).tobytes() == encode(weights, name)
    assert quantal.quantize(weights, name, importance).tobytes() == encode(weights, name, importance)
    assert quantal.quantize(weights, name, threads=3).tobytes() == encode(weights, name)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8)
@given(
    outer=st.lists(st.integers(1, 3), max_size=3),
    blocks=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-6, 1.0, 100.0]),
    weighted=st.booleans(),
    threads=st.sampled_from([None, 1, 2]),
)
def test_any_shape(
    encode: Any, name: str, outer: list[int], blocks: int, seed: int, scale: float, weighted: bool, threads: int | None
) -> None:
    f, random = quantal.format(name), np.random.default_rng(seed)
    shape = (*outer, blocks * max(f.block, 32))
    weights = (random.standard_normal(shape) * scale).astype(np.float32)
    importance = random.random(shape[-1], dtype=np.float32) if weighted else None
    q = quantal.quantize(weights, name, importance, threads=threads)
    assert q.tobytes() == encode(weights, name, importance)
    assert q.shape == shape and q.nbytes == math.prod(outer) * f.row_bytes(shape[-1])
    assert (quantal.dequantize(q.tobytes(), name, shape, threads=threads) == q.dequantize()).all()


@pytest.mark.parametrize("name", NAMES)
def test_decoding_is_that_of_pypi(name: str, rng: np.random.Generator) -> None:
    gguf = pytest.importorskip("gguf")
    known = {t.value: t for t in gguf.GGMLQuantizationType}
    q = quantal.quantize(rng.standard_normal((8, 512), dtype=np.float32), name)
    if q.format.gguf_id not in known or known[q.format.gguf_id].name.lower() != name.lower():
        pytest.skip("PyPI's gguf does not know the format")
    try:
        theirs = gguf.quants.dequantize(q.data, known[q.format.gguf_id])
    except NotImplementedError:
        pytest.skip("PyPI's gguf does not decode the format")
    # Theirs adds minima in another order for some types: the last bit may differ.
    np.testing.assert_allclose(q.dequantize(), theirs, rtol=2e-7, atol=2e-7)


def test_gguf_is_there_where_the_index_is() -> None:
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("PyPI's gguf is not installed: its decoders were not compared")


def test_raw_blocks(rng: np.random.Generator) -> None:
    q = quantal.quantize(rng.standard_normal((2, 3, 512), dtype=np.float32), "iq4_ks")
    out = np.empty(q.shape, np.float32)
    assert (quantal.dequantize(q.tobytes(), "IQ4_KS", q.shape) == q.dequantize()).all()
    assert quantal.dequantize(memoryview(q.tobytes()), q.format, q.shape, out) is out
    assert (quantal.dequantize(bytearray(q.tobytes()), q.format.gguf_id, q.shape) == out).all()
    misaligned = np.frombuffer(b"x" + q.tobytes(), np.uint8, offset=1)
    assert (quantal.dequantize(misaligned, "iq4_ks", q.shape) == out).all()


def test_importance_per_run_of_rows(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((4, 256), dtype=np.float32)
    importance = rng.random((2, 256), dtype=np.float32)
    whole = quantal.quantize(weights, "q4_K", importance)
    assert whole[:2].tobytes() == quantal.quantize(weights[:2], "q4_K", importance[0]).tobytes()
    assert whole[2:].tobytes() == quantal.quantize(weights[2:], "q4_K", importance[1]).tobytes()


def test_errors_are_those_of_numpy(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((40, 512), dtype=np.float32)
    importance = rng.random(512, dtype=np.float32)
    q = quantal.quantize(weights, "q3_K")
    w, d, i = (a.astype(np.float64) for a in (weights, q.dequantize(), importance))
    found = quantal.error(weights, q, importance)
    assert found["nmse"] == pytest.approx(((w - d) ** 2).sum() / (w**2).sum())
    assert found["wnmse"] == pytest.approx((i * (w - d) ** 2).sum() / (i * w**2).sum())
    assert found["cosine"] == pytest.approx((w * d).sum() / np.sqrt((w**2).sum() * (d**2).sum()))
    assert found["max_error"] == np.abs(w - d).max()
    assert "wnmse" not in quantal.error(weights, q.dequantize())


def test_formats() -> None:
    q4 = quantal.format("Q4_k")
    assert (q4.name, q4.block, q4.block_bytes, q4.bits_per_weight) == ("q4_K", 256, 144, 4.5)
    assert quantal.format(q4.gguf_id) == quantal.format(q4) == q4
    assert len({f for f in quantal.formats()}) == len(NAMES)
    assert quantal.format("f32").is_float and not quantal.format("q8_K").is_weight
    assert quantal.arch() in quantal.archs()
