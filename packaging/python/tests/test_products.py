"""Products are those of the decoded weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantal

NAMES = [f.name for f in quantal.formats()]


def relative(found: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(found - want) / np.linalg.norm(want))


@pytest.mark.parametrize("name", NAMES)
def test_all_formats(name: str, rng: np.random.Generator) -> None:
    q = quantal.quantize(rng.standard_normal((24, 512), dtype=np.float32), name)
    x = rng.standard_normal((5, 512), dtype=np.float32)
    want = x.astype(np.float64) @ q.dequantize().astype(np.float64).T
    assert relative(quantal.mul_mat(q, x, activation="exact"), want) < 1e-5
    assert relative(quantal.mul_mat(q, x), want) < 2e-2
    experts = quantal.QuantizedArray.from_buffer(q.data, name, (3, 8, 512))
    ids = rng.integers(0, 3, (5, 2))
    chosen = np.take_along_axis(want.reshape(5, 3, 8), ids[:, :, None], axis=1)
    assert relative(quantal.mul_mat_id(experts, x, ids, activation="exact"), chosen) < 1e-5


def test_operators(rng: np.random.Generator) -> None:
    q = quantal.quantize(rng.standard_normal((24, 512), dtype=np.float32), "q8_0")
    x = rng.standard_normal((2, 5, 512), dtype=np.float32)
    y = quantal.mul_mat(q, x)
    assert y.shape == (2, 5, 24)
    assert (x @ q.T == y).all() and q.T.T.shape == q.shape
    np.testing.assert_allclose(q @ x[0, 0], y[0, 0], rtol=1e-4, atol=1e-4)  # one column has a kernel of its own
    assert (q @ x.swapaxes(1, 2) == y.swapaxes(1, 2)).all()
    for wrong in (lambda: x @ q, lambda: q @ 3, lambda: 3 @ q.T):
        with pytest.raises(TypeError):
            wrong()


@given(
    dtype=st.sampled_from([np.float32, np.float16, np.float64]),
    shape=st.lists(st.integers(0, 3), max_size=3),
    step=st.sampled_from([1, 2, -1]),
    threads=st.sampled_from([None, 1, 2, 5]),
)
def test_any_x(dtype: Any, shape: list[int], step: int, threads: int | None) -> None:
    random = np.random.default_rng(5)
    q = quantal.quantize(random.standard_normal((9, 256)), "q6_K")
    x = random.standard_normal((*shape, 512)).astype(dtype)[..., ::step][..., :256]
    y = quantal.mul_mat(q, x, threads=threads)
    assert y.shape == (*shape, 9)
    assert (y == quantal.mul_mat(q, np.ascontiguousarray(x, np.float32))).all()


def test_threads_change_nothing(rng: np.random.Generator) -> None:
    q = quantal.quantize(rng.standard_normal((300, 1024), dtype=np.float32), "iq4_xs")
    x = rng.standard_normal((33, 1024), dtype=np.float32)
    one = quantal.mul_mat(q, x, threads=1)
    assert all((quantal.mul_mat(q, x, threads=n) == one).all() for n in (2, 3, 8))


def test_refused(rng: np.random.Generator) -> None:
    q = quantal.quantize(rng.standard_normal((4, 6, 256), dtype=np.float32), "q4_K")
    x, ids = np.ones((3, 256), np.float32), np.zeros((3, 2), np.int32)
    for wrong, says in [
        (lambda: quantal.mul_mat(q, x), "not a matrix"),
        (lambda: quantal.mul_mat(q[0], x[:, :255]), r"q4_K \(6, 256\).*\(3, 255\)"),
        (lambda: quantal.mul_mat(q[0], x, activation="q4"), "q4"),
        (lambda: quantal.mul_mat(q[0], x, np.empty((3, 7), np.float32)), r"out.*\(3, 7\), wanted \(3, 6\)"),
        (lambda: quantal.mul_mat_id(q[0], x, ids), "experts"),
        (lambda: quantal.mul_mat_id(q, x, ids + 4), "is 4.*4 experts"),
        (lambda: quantal.mul_mat_id(q, x, ids - 1), "is -1"),
        (lambda: quantal.mul_mat_id(q, x[:2], ids), r"\(2, 256\), wanted"),
        (lambda: quantal.mul_mat_id(q, x, ids[0]), "1 dimensions"),
    ]:
        with pytest.raises(ValueError, match=says):
            wrong()
    with pytest.raises(TypeError, match="integers"):
        quantal.mul_mat_id(q, x, ids.astype(float))
    shared = np.zeros((3, 512), np.float32)
    with pytest.raises(ValueError, match="overlap"):
        quantal.mul_mat(q[0], shared[:, :256], shared[:, 100:106])
    frozen = np.zeros((3, 6), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(TypeError, match="writable"):
        quantal.mul_mat(q[0], x, frozen)


def test_results_in_strided_memory(rng: np.random.Generator) -> None:
    q = quantal.quantize(rng.standard_normal((6, 256), dtype=np.float32), "q4_K")
    x, wide = np.ones((3, 256), np.float32), np.zeros((3, 10), np.float32)
    quantal.mul_mat(q, x, wide[:, 2:8])
    assert (wide[:, 2:8] == quantal.mul_mat(q, x)).all() and (wide[:, :2] == 0).all() and (wide[:, 8:] == 0).all()
