"""The stubs say what the module has, and users of them pass mypy --strict."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import quantal

HERE = Path(__file__).resolve().parent


def test_users_pass_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path)]
    without_torch = [] if importlib.util.find_spec("torch") else ["--exclude", r"torch\.py$"]
    subprocess.run([*command, HERE / "typed_use.py"], check=True)
    subprocess.run([*command, *without_torch, HERE.parent / "src" / "quantal"], check=True)


def test_the_stub_is_the_generated_one(tmp_path: Path) -> None:
    nanobind = pytest.importorskip("nanobind")
    if int(nanobind.__version__.split(".")[0]) < 3:
        pytest.skip("the stub was made by nanobind 3")
    out = tmp_path / "_core.pyi"
    pattern = HERE.parent / "stubs.pattern"
    command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "quantal._core", "-p", pattern, "-o", out]
    subprocess.run(command, check=True)
    assert out.read_text() == (HERE.parent / "src" / "quantal" / "_core.pyi").read_text()


def test_everything_has_a_docstring() -> None:
    for name in quantal.__all__:
        thing = getattr(quantal, name)
        assert name == "__version__" or thing.__doc__, name
