"""syncer's own test-suite, out of its sdist on PyPI, run against `fiberback.sync`, also in a running loop.

The suite is downloaded when this test runs (`sdists`).
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import sdists
from support import only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

VERSION = "2.0.3"

# What the suite wants of the package xfail: a test that is to fail.
XFAIL = """
def xfail(error, *, strict):
    def decorate(function):
        def test(self):
            with self.assertRaises(error):
                function(self)
        return test
    return decorate
"""

WITHOUT_LOOP = """
import asyncio, unittest
asyncio.set_event_loop(asyncio.new_event_loop())  # for its asyncio.Future()
unittest.main("test_syncer", verbosity=2)
"""

IN_A_LOOP = """
import asyncio, unittest
async def main():
    unittest.main("test_syncer", verbosity=2)
asyncio.run(main())
"""


@pytest.mark.parametrize("code", [WITHOUT_LOOP, IN_A_LOOP], ids=["without a loop", "in a loop"])
def test_syncers_own_suite(tmp_path, code):
    source = sdists.unpack("syncer", VERSION, tmp_path)
    suite = tmp_path / "suite"
    suite.mkdir()
    (source / "tests" / "test_syncer.py").rename(suite / "test_syncer.py")
    (suite / "syncer.py").write_text("from fiberback import sync\n")
    (suite / "xfail.py").write_text(XFAIL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=suite, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 11 tests" in done.stderr and done.stderr.endswith("OK\n")
