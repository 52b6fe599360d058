"""Every Python code block of the READMEs runs as it stands."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
from support import only_fiberback

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    "README.md",
    "pyext/README.md",
    "pyext/PARKING.md",
    "docs/coming-from-sync-helpers.md",
    "docs/blocking.md",
]


def blocks():
    for page in PAGES:
        text = (ROOT / page).read_text()
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 2
            yield pytest.param(page, line, match[1], id=f"{page}:{line}")


@only_fiberback
@pytest.mark.parametrize("page, line, code", list(blocks()))
def test_code_block(page, line, code, tmp_path):
    # As many empty lines as stand before it, so that errors name the page's own.
    (tmp_path / "block.py").write_text("\n" * (line - 1) + code)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "block.py")],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")


@only_fiberback
def test_every_page_has_code():
    assert {param.values[0] for param in blocks()} == set(PAGES)
