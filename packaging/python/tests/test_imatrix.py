"""Importance matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quantal

UP, GATE = "blk.0.ffn_up.weight", "blk.0.ffn_gate.weight"


def test_sums_and_files(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 7, 64), dtype=np.float32)
    m = quantal.Imatrix.from_activations(UP, x)
    m.accumulate(UP, x[0].astype(np.float16))
    m.accumulate("blk.0.ffn_down_exps.weight", x, slice=1, slices=4)
    want = (x.astype(np.float64) ** 2).sum((0, 1)) + (x[0].astype(np.float16).astype(np.float64) ** 2).sum(0)
    np.testing.assert_allclose(m.sums(UP)[0], want, rtol=1e-12)
    assert m.counts(UP).tolist() == [28] and m.counts("blk.0.ffn_down_exps.weight").tolist() == [0, 21, 0, 0]
    m.save(tmp_path / "a.gguf")
    again = quantal.Imatrix.load(tmp_path / "a.gguf")
    assert again == m and list(again) == m.names() and UP in again and len(again) == 2
    m.save(tmp_path / "a.dat")
    old = quantal.Imatrix.load(tmp_path / "a.dat")
    assert old.approximate_counts and old.names() == m.names()
    both = m.copy()
    both.merge(again)
    assert (both.sums(UP) == 2 * m.sums(UP)).all() and both.counts(UP)[0] == 56 and m == again


def test_lookup(rng: np.random.Generator) -> None:
    m = quantal.Imatrix.from_activations(UP, rng.standard_normal((9, 256), dtype=np.float32))
    own, alias = m.lookup(UP, (8, 256)), m.lookup(GATE, (8, 256))
    assert own is not None and alias is not None and m.lookup("blk.1.ffn_up.weight", (8, 256)) is None
    assert (own.source, alias.source, alias.detail) == ("own entry", "same-input alias", UP)
    np.testing.assert_allclose(own.weights[0], m.sums(UP)[0] / 9, rtol=1e-6)
    w = rng.standard_normal((8, 256), dtype=np.float32)
    assert quantal.quantize(w, "q4_K", own).tobytes() == quantal.quantize(w, "q4_K", own.weights[0]).tobytes()
    with pytest.raises(ValueError, match="128"):
        m.lookup(UP, (8, 128))


def test_refused(tmp_path: Path) -> None:
    m = quantal.Imatrix.from_activations(UP, np.ones((2, 4), np.float32))
    before = m.copy()
    for x, slices, says in [
        (np.ones((2, 5), np.float32), 1, r"1 x 4 values.*\(2, 5\)"),
        (np.full((2, 4), np.nan, np.float32), 1, "not finite in column 0"),
        (np.ones((2, 4), np.float32), 2, "1 x 4.*2 x 4"),
        (np.ones((2, 4), np.float32), 0, "slice"),
    ]:
        with pytest.raises(ValueError, match=says):
            m.accumulate(UP, x, slices=slices)
    with pytest.raises(ValueError, match="cannot be merged"):
        m.merge(quantal.Imatrix.from_activations(UP, np.ones((2, 8), np.float32)))
    assert m == before
    with pytest.raises(KeyError):
        m.sums("nothing")
    with pytest.raises(ValueError, match="no importance"):
        quantal.Imatrix().save(tmp_path / "a.gguf")
    (tmp_path / "bad.dat").write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match="bad.dat"):
        quantal.Imatrix.load(tmp_path / "bad.dat")
