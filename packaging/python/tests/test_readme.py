"""The Python of the READMEs runs as it stands, in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
READMES = [HERE.parent / "README.md", HERE.parents[2] / "README.md"]
SNIPPETS = [code for file in READMES for code in re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL)]


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet(code: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 2
