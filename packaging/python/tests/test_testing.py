"""quantal.testing: assertions, and gate files as quantal-validate reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantal
from quantal.testing import GateError, assert_cosine, assert_gates, assert_max_error, assert_nmse, load_gates, parse_gate

GATES = Path(__file__).resolve().parents[3] / "examples" / "validate"


def test_assertions(rng: np.random.Generator) -> None:
    w = rng.standard_normal((8, 512), dtype=np.float32)
    q = quantal.quantize(w, "q4_K")
    assert_nmse(w, q, 1e-2)
    assert_nmse(w, q.dequantize(), 1e-2, importance=np.ones(512))
    assert_cosine(w, q, 0.99)
    assert_max_error(w, q, 1.0)
    for wrong in (lambda: assert_nmse(w, q, 1e-4), lambda: assert_cosine(w, q, 0.9999), lambda: assert_max_error(w, q, 1e-3)):
        with pytest.raises(AssertionError, match="wanted"):
            wrong()
    with pytest.raises(AssertionError, match="nan"):
        assert_nmse(w, np.full_like(w, np.nan), 1e9)


def test_the_shipped_files_say_the_same() -> None:
    pytest.importorskip("yaml")
    both = [load_gates(GATES / name) for name in ("gates.json", "gates.yaml")]
    key = [[(g.tensors and g.tensors.pattern, g.metric, g.sign, g.bound) for g in gates] for gates in both]
    assert key[0] == key[1] and len(key[0]) == 5 and key[0][1] == ("attn_(k_b|kv_a_mqa)", "nmse", "<=", 1e-4)


def test_gates(rng: np.random.Generator) -> None:
    w = rng.standard_normal((8, 512), dtype=np.float32)
    tensors = {"blk.0.ffn_up.weight": (w, quantal.quantize(w, "q4_K"), np.ones(512))}
    assert_gates(["ffn_up: wnmse<=0.01", "model: kld < 0.1", "ffn: cosine>=0.9"], tensors, model={"kld": 0.05})
    with pytest.raises(AssertionError, match="ffn_up: nmse<=1e-9: blk.0.ffn_up.weight"):
        assert_gates(["ffn_up: nmse<=1e-9", "kld<=1"], tensors, model={"kld": 0.5})
    for gate in ("attn: nmse<=1", "ffn_up: output_nmse<=1", "ppl<=9"):
        with pytest.raises(GateError):
            assert_gates([gate], tensors)


@pytest.mark.parametrize("text", ["nmse<=1", "a: nmse", "a: rmse<=1", "a: kld<=1", "a: nmse<=x", "(: nmse<=1", "a: nmse<=inf"])
def test_gates_that_say_nothing(text: str) -> None:
    with pytest.raises(GateError):
        parse_gate(text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("g.json", "{"),
        ("g.json", '{"gates": []}'),
        ("g.json", '{"gates": [1]}'),
        ("g.json", '{"gates": [{"tensors": "a", "metric": "nmse"}]}'),
        ("g.json", '{"gates": [{"tensors": "a", "metric": "nmse", "max": "1"}]}'),
        ("g.json", '{"gates": [{"tensors": "a", "metric": "nmse", "max": true}]}'),
        ("g.json", '{"gates": [{"tensors": "a", "metric": "nmse", "max": 1, "other": 1}]}'),
        ("g.yaml", "gates: [a: nmse<=1\n"),
        ("g.yaml", "gates:\n  - metric: kld\n    max: 1\n    max: 2\n"),
        ("g.yaml", "gates:\n  - metric: kld\n    max: yes\n"),
    ],
)
def test_damaged_files(name: str, content: str, tmp_path: Path) -> None:
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    (tmp_path / name).write_text(content)
    with pytest.raises(GateError, match=name):
        load_gates(tmp_path / name)


def test_yaml_without_its_package(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    (tmp_path / "g.yaml").write_text("gates: []")
    with pytest.raises(ImportError, match="PyYAML"):
        load_gates(tmp_path / "g.yaml")
