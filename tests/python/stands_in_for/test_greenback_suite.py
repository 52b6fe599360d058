"""greenback's own test-suite, out of its sdist on PyPI, run against `fiberback.greenback`.

The suite is downloaded when this test runs (`sdists`).
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import sdists
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

VERSION = "1.3.0"

# greenback/__init__.py and its private modules, in front of the suite.
ALIAS = """
import sys
import fiberback.greenback as module
module.__path__ = __path__
for name in ("greenback", "greenback._impl", "greenback._util"):
    sys.modules[name] = module
"""

# Tests of 1.3.0 that fail with greenback itself on an interpreter this new.
TOO_NEW = {
    # matches the text "int can't be used in 'await' expression", which 3.14 changed
    (3, 14): ["greenback/_tests/test_impl.py::test_misuse"],
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A folder with greenback's tests, and our module in greenback's place."""
    for name in ("greenlet", "trio", "anyio", "sniffio"):
        import_or_skip(name)
    folder = tmp_path_factory.mktemp("greenback")
    source = sdists.unpack("greenback", VERSION, folder) / "greenback"
    package = folder / "suite" / "greenback"
    package.mkdir(parents=True)
    (source / "_tests").rename(package / "_tests")
    (package / "__init__.py").write_text(ALIAS)
    return package.parent


def run(suite, what, *options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    for since, tests in TOO_NEW.items():
        if sys.version_info >= since:
            command += [option for test in tests for option in ("--deselect", test)]
    done = subprocess.run(
        [*command, *options, what],
        cwd=suite,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_greenbacks_own_suite(suite):
    run(suite, "greenback/_tests")


@pytest.mark.parametrize("greenlet", ["alone", "with greenlet imported"])
@pytest.mark.parametrize("file", ["test_impl.py", "test_util.py"])
def test_each_file(suite, file, greenlet):
    """One file may import greenlet, which the others then have, too."""
    assert sorted(path.name for path in (suite / "greenback/_tests").glob("test_*.py")) == [
        "test_impl.py",
        "test_util.py",
    ]
    options = ["-p", "greenlet"] if greenlet != "alone" else []
    run(suite, f"greenback/_tests/{file}", *options)
