"""greenback's own test-suite, out of its sdist on PyPI, run against `fiberback.greenback`.

The suite is downloaded when this test runs, and is no part of this repository. It is skipped only
when the registry cannot be reached; `FIBERBACK_GREENBACK_SDIST` names a copy of the file.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tarfile

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

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


def fetch_sdist(folder):
    given = os.environ.get("FIBERBACK_GREENBACK_SDIST")
    if given:
        return pathlib.Path(given)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary"]
    command += [":all:", "--dest", str(folder), f"greenback=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = list(folder.glob("greenback-*.tar.gz"))
    if not found:
        # What pip says when it gets no answer, as opposed to an answer that it dislikes.
        if any(sign in done.stderr for sign in ("connection broken by", "ConnectionError")):
            pytest.skip(f"the package registry cannot be reached: {done.stderr.strip()[-300:]}")
        pytest.fail(done.stderr)
    return found[0]


def test_greenbacks_own_suite(tmp_path):
    for name in ("greenlet", "trio", "anyio", "sniffio"):
        import_or_skip(name)
    with tarfile.open(fetch_sdist(tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"greenback-{VERSION}" / "greenback"
    suite = tmp_path / "suite" / "greenback"
    suite.mkdir(parents=True)
    (source / "_tests").rename(suite / "_tests")
    (suite / "__init__.py").write_text(ALIAS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    for since, tests in TOO_NEW.items():
        if sys.version_info >= since:
            command += [option for test in tests for option in ("--deselect", test)]
    done = subprocess.run(
        [*command, "greenback/_tests"],
        cwd=suite.parent,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
