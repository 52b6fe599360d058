"""asgiref's own tests, out of its sdist on PyPI, run against `fiberback.asgiref`.

The sdist is downloaded when this test runs (`sdists`). Two ways: with the names of `asgiref.sync` replaced by
ours, as in a program whose import was changed, and after `fiberback.asgiref.install()`.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import sdists
from support import import_or_skip, only_fiberback

import_or_skip("asgiref.sync")
import_or_skip("pytest_asyncio")

pytestmark = [only_fiberback, pytest.mark.sampled]

# Those that assert the limitation which is lifted.
LIFTED = ["tests/test_sync.py::test_async_to_sync_in_async"]
WAYS = {
    "names": """
import asgiref.sync
import fiberback.asgiref as ours

for name in ours.__all__:
    if hasattr(asgiref.sync, name):
        setattr(asgiref.sync, name, getattr(ours, name))
""",
    "installed": "import fiberback.asgiref\n\nfiberback.asgiref.install()\n",
}
# What takes no second.
SAMPLE = "nested or decorator or later or overlapping"


def run(folder, way, *arguments):
    (folder / "tests" / "conftest.py").write_text(WAYS[way])
    deselected = [f"--deselect={name}" for name in LIFTED]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *deselected]
    # It needs pytest-benchmark, and measures only.
    command += ["--ignore", "tests/test_benchmark_local.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    return int(re.search(r"(\d+) passed", done.stdout)[1])


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = sdists.unpack("asgiref", "3.13.0", tmp_path_factory.mktemp("asgiref"))
    # What is tested is the asgiref that is installed.
    (folder / "asgiref").rename(folder / "not_this_one")
    return folder


def test_a_sample(sdist):
    assert run(sdist, "names", "tests/test_sync.py", "-k", SAMPLE) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_all(sdist, way):
    assert run(sdist, way, "tests") >= 121
