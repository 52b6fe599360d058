"""asyncer's own tests, out of its sdist on PyPI, with `asyncer.syncify` replaced by `fiberback.syncify`.

The sdist is downloaded when this test runs (`sdists`).
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import sdists
from support import import_or_skip, only_fiberback

import_or_skip("anyio")
import_or_skip("sniffio")

pytestmark = [only_fiberback, pytest.mark.slow]

OURS = "\n\nimport asyncer\nimport fiberback\n\nasyncer.syncify = fiberback.syncify\n"


def test_asyncers_own_suite(tmp_path):
    source = sdists.unpack("asyncer", "0.0.18", tmp_path)
    conftest = source / "tests" / "conftest.py"
    conftest.write_text(conftest.read_text() + OURS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    # Of `syncify`, and what its documentation shows; the others are about what is asyncer's alone.
    command += ["tests/test_syncify_no_raise.py", "tests/test_tutorial"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 12
