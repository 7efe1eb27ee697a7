"""The Python of README.md and docs/python.md runs as it stands, in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "docs/python.md"]
SNIPPETS = [code for file in PAGES for code in re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL)]


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet(code: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 2
