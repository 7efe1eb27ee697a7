"""The programs of examples/ run; those whose packages are not installed are skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import quantal

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, *arguments: object, where: Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=where).stdout


def test_compare_formats(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("matplotlib")
    np.save(tmp_path / "w.npy", rng.standard_normal((4, 512), dtype=np.float32))
    said = run("compare_formats.py", "w.npy", "-o", "plot.png", where=tmp_path)
    stored = [f.name for f in quantal.formats() if f.is_weight and not f.is_float and 512 % f.block == 0]
    assert sorted(line.split()[0] for line in said.splitlines()) == sorted(stored)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_requantize(tmp_path: Path, rng: np.random.Generator) -> None:
    up, norm = rng.standard_normal((8, 512), dtype=np.float32), np.ones(512, np.float32)
    quantal.write_gguf(tmp_path / "in.gguf", {"blk.0.ffn_up.weight": up, "blk.0.ffn_norm.weight": norm}, {"a.key": 7})
    quantal.Imatrix.from_activations("blk.0.ffn_up.weight", rng.random((9, 512))).save(tmp_path / "i.gguf")
    said = run("requantize.py", "in.gguf", "out.gguf", "iq4_ks", "--imatrix", "i.gguf", where=tmp_path)
    with quantal.GGUF(tmp_path / "out.gguf") as out:
        assert out.type("blk.0.ffn_up.weight") == "iq4_ks" and out.metadata["a.key"] == 7
        assert (np.asarray(out["blk.0.ffn_norm.weight"]) == norm).all()
    assert "iq4_ks  nmse" in said


def test_imatrix_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    said = run("imatrix_of_transformers.py", "-o", "i.gguf", where=tmp_path)
    assert len(quantal.Imatrix.load(tmp_path / "i.gguf")) == 15 and "blk.1.ffn_down.weight" in said
