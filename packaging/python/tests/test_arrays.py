"""What goes in and comes out: dtypes, strides, memory that is shared, and what is refused."""

from __future__ import annotations

import copy
import gc
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import quantal


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


class Interface:
    """A producer of __array_interface__ and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__


class DLPack:
    """A producer of DLPack and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


@pytest.fixture
def weights(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((6, 512), dtype=np.float32)


@pytest.mark.parametrize(
    "view",
    [
        lambda w: w,
        lambda w: np.asfortranarray(w),
        lambda w: np.repeat(w, 2, axis=1)[:, ::2],
        lambda w: w[::-1].copy()[::-1],
        lambda w: w[:, ::-1].copy()[:, ::-1],
        lambda w: np.concatenate([w, w], axis=1)[:, :512],
        lambda w: w.astype(">f4"),
        lambda w: w.astype(np.float64),
        lambda w: w.tolist(),
        Interface,
        DLPack,
        lambda w: np.frombuffer(b"x" + w.tobytes(), np.uint8, offset=1).view(np.float32).reshape(w.shape),
    ],
)
def test_float32_however_it_lies(view: Callable[[np.ndarray], Any], weights: np.ndarray) -> None:
    assert quantal.quantize(view(weights), "q4_K").tobytes() == quantal.quantize(weights, "q4_K").tobytes()


def test_halves(weights: np.ndarray) -> None:
    halves = weights.astype(np.float16)
    assert quantal.quantize(halves, "q6_K").tobytes() == quantal.quantize(halves.astype(np.float32), "q6_K").tobytes()


def test_bfloat16(weights: np.ndarray) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    halves = weights.astype(ml_dtypes.bfloat16)
    assert quantal.quantize(halves, "q6_K").tobytes() == quantal.quantize(halves.astype(np.float32), "q6_K").tobytes()


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda w: quantal.quantize(w[:, :100], "q4_K"), ValueError, r"\(6, 100\).*100 columns.*q4_K.*256"),
        (lambda w: quantal.quantize(w, "q9_K"), ValueError, "unknown format 'q9_K'; known: f32"),
        (lambda w: quantal.quantize(w, 4711), ValueError, "4711"),
        (lambda w: quantal.quantize(w, 1.5), TypeError, "1.5"),
        (lambda w: quantal.quantize(w.astype(np.int32), "q4_K"), TypeError, "int32"),
        (lambda w: quantal.quantize(w.astype(complex), "q4_K"), TypeError, "complex"),
        (lambda w: quantal.quantize(w.astype(object), "q4_K"), TypeError, "object"),
        (lambda w: quantal.quantize("text", "q4_K"), TypeError, "str"),
        (lambda w: quantal.quantize(np.float32(1), "q4_K"), (TypeError, ValueError), "0-dim"),
        (lambda w: quantal.quantize(w.reshape(1, 1, 1, 6, 512), "q4_K"), ValueError, "4 dimensions"),
        (lambda w: quantal.quantize(np.where(w == w[3, 7], np.nan, w), "q4_K"), ValueError, "row 3.*column 7 is nan"),
        (lambda w: quantal.quantize(w * np.float32(3e38) * 10, "q4_K"), ValueError, "inf"),
        (lambda w: quantal.quantize(w, "q4_K", np.ones(511)), ValueError, r"importance.*\(511,\)"),
        (lambda w: quantal.quantize(w, "q4_K", np.ones((4, 512))), ValueError, r"importance.*\(4, 512\)"),
        (lambda w: quantal.quantize(w, "q4_K", np.full(512, -1.0)), ValueError, "importance.*-1"),
        (lambda w: quantal.quantize(w, "q4_K", np.full(512, np.nan)), ValueError, "importance.*nan"),
        (lambda w: quantal.quantize(w, "q4_K", threads=0), ValueError, "threads: 0"),
        (lambda w: quantal.dequantize(b"123", "q4_K", (6, 512)), ValueError, "3 bytes.*1728"),
        (lambda w: quantal.dequantize(b"", "q4_K", (-1, 256)), ValueError, "-1"),
        (lambda w: quantal.dequantize(b"", "q4_K", ()), ValueError, "dimensions"),
        (lambda w: quantal.dequantize(b"", "q4_K", (2**62, 2**62, 256)), ValueError, "too large"),
        (lambda w: quantal.dequantize("text", "q4_K", 256), TypeError, "memory"),
        (lambda w: quantal.dequantize(w[:, ::2], "f32", (6, 256)), TypeError, "contiguous"),
        (lambda w: quantal.error(w, w[:5]), ValueError, "differ"),
        (lambda w: np.asarray(quantal.quantize(w, "q4_K")), TypeError, "dequantize"),
        (lambda w: quantal.quantize(w, "q4_K").dequantize(np.zeros((6, 512))), TypeError, "out.*float64"),
        (lambda w: quantal.quantize(w, "q4_K").dequantize(np.zeros((6, 511), np.float32)), ValueError, "out.*511"),
    ],
)
def test_refused(make: Callable[[np.ndarray], Any], error: Any, says: str, weights: np.ndarray) -> None:
    with np.errstate(over="ignore"), pytest.raises(error, match=says):
        make(weights)


def test_memory_that_nobody_has() -> None:
    zeros = np.broadcast_to(np.float32(0), (2**30, 2**12, 2**10))
    with pytest.raises(MemoryError, match="no memory for"):
        quantal.quantize(zeros, "q4_K")


@given(
    array=hnp.arrays(
        st.one_of(hnp.scalar_dtypes(), st.just(np.dtype(np.float32))),
        hnp.array_shapes(min_dims=0, max_dims=6, min_side=0, max_side=5),
    ),
    name=st.sampled_from(["q4_0", "f32", "iq2_kt", "bf16"]),
)
def test_anything_gives_an_array_or_an_exception(array: np.ndarray, name: str) -> None:
    try:
        q = quantal.quantize(array, name)
    except (ValueError, TypeError):
        return
    assert q.shape == array.shape


def test_no_copy_in_or_out(weights: np.ndarray) -> None:
    q = quantal.quantize(weights, "q4_K")
    raw = q.tobytes()
    view = quantal.QuantizedArray.from_buffer(raw, "q4_K", weights.shape)
    assert address(view.data) == address(np.frombuffer(raw, np.uint8))
    assert address(q[2:5].data) == address(q.data) + 2 * q.format.row_bytes(512)
    assert address(q[1].data) == address(q.data) + q.format.row_bytes(512)
    assert not q.data.flags.writeable and q.data.shape == (6, 288)
    out = np.empty_like(weights)
    assert q.dequantize(out) is out
    product = np.empty((3, 6), np.float32)
    assert quantal.mul_mat(q, np.ones((3, 512), np.float32), product) is product


def test_products_allocate_nothing_of_python(weights: np.ndarray) -> None:
    q, x, out = quantal.quantize(weights, "q4_K"), np.ones((64, 512), np.float32), np.empty((64, 6), np.float32)
    quantal.mul_mat(q, x, out)
    tracemalloc.start()
    quantal.mul_mat(q, x, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4096, "a copy of x alone has 128 KiB"


def test_the_memory_outlives_what_it_came_from(weights: np.ndarray) -> None:
    q = quantal.quantize(weights, "q4_K")
    want = q.dequantize()
    data, part = q.data, q[2:4]
    view = quantal.QuantizedArray.from_buffer(bytearray(q.tobytes()), "q4_K", weights.shape)
    del q
    gc.collect()
    assert (view.dequantize() == want).all() and (part.dequantize() == want[2:4]).all()
    assert quantal.QuantizedArray.from_buffer(data, "q4_K", weights.shape).tobytes() == view.tobytes()


def test_memory_in_use_cannot_shrink() -> None:
    memory = bytearray(144)
    q = quantal.QuantizedArray.from_buffer(memory, "q4_K", 256)
    with pytest.raises(BufferError):
        memory.clear()
    del q
    memory.clear()


def test_parts(rng: np.random.Generator) -> None:
    q = quantal.quantize(rng.standard_normal((3, 5, 256), dtype=np.float32), "q5_K")
    d = q.dequantize()
    for index in [0, -1, slice(1, 3), slice(None), (1, 2), (1, slice(2, 4)), (slice(0, 2),), slice(5, 9)]:
        assert (q[index].dequantize() == d[index]).all()
    assert len(q) == 3 and [p.shape for p in q] == [(5, 256)] * 3
    for index in [3, -4, slice(None, None, 2), (slice(0, 1), 0), (0, 0, 0)]:
        with pytest.raises(IndexError):
            q[index]
    with pytest.raises(TypeError):
        q["x"]  # type: ignore[index]


def test_copies_and_pickles(weights: np.ndarray) -> None:
    q = quantal.quantize(weights, "iq4_ks")
    for other in (pickle.loads(pickle.dumps(q)), copy.copy(q), copy.deepcopy(q)):
        assert (other.tobytes(), other.shape, other.format) == (q.tobytes(), q.shape, q.format)
    assert repr(q) == "QuantizedArray(iq4_ks, shape=(6, 512))"


def test_files(weights: np.ndarray, tmp_path: Path) -> None:
    q = quantal.quantize(weights.reshape(1, 2, 3, 512), "iq2_kl")
    q.save(tmp_path / "a.gguf")
    loaded = quantal.QuantizedArray.load(tmp_path / "a.gguf")
    (tmp_path / "a.gguf").unlink()
    assert (loaded.tobytes(), loaded.shape, loaded.format) == (q.tobytes(), q.shape, q.format)
    with pytest.raises(FileNotFoundError):
        quantal.QuantizedArray.load(tmp_path / "a.gguf")
    with pytest.raises(OSError, match="nowhere"):
        q.save(tmp_path / "nowhere" / "a.gguf")
