"""What the tests share. QUANTAL_BLOCKS: the program quantal-blocks; without it, one of this checkout's build folders."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[3]
Encoder = Callable[..., bytes]

settings.register_profile("quantal", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("quantal")


def _blocks_program() -> Path | None:
    named = os.environ.get("QUANTAL_BLOCKS")
    if named:
        return Path(named)
    return next(iter(sorted(ROOT.glob("build/*/bin/quantal-blocks"))), None)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture(scope="session")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """The C++ library's bytes for float32 rows, through the program quantal-blocks."""
    program = _blocks_program()
    if program is None:
        pytest.skip("quantal-blocks is not built, the bytes have nothing to be compared with")
    folder = tmp_path_factory.mktemp("blocks")

    def run(rows: np.ndarray, name: str, importance: np.ndarray | None = None) -> bytes:
        source, out, weights = folder / "in", folder / "out", folder / "importance"
        rows.astype(np.float32).tofile(source)
        command = [program, "quantize", "--format", name, "--cols", str(rows.shape[-1])]
        if importance is not None:
            importance.astype(np.float32).tofile(weights)
            command += ["--importance", weights]
        subprocess.run([*command, source, out], check=True, capture_output=True)
        return out.read_bytes()

    return run
