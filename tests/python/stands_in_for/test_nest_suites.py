"""The own tests of nest_asyncio and nest-asyncio2, out of their sdists on PyPI, run against `fiberback.nest`.

They are downloaded when this test runs (`sdists`).
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import sdists
from support import only_fiberback

pytestmark = [
    pytest.mark.sampled,
    only_fiberback,
    pytest.mark.skipif(
        sys.version_info[:2] not in ((3, 13), (3, 14)),
        reason="these suites run on 3.13 and 3.14 only",
    ),
]

# What takes the place of the package, under its name.
STANDS_IN = "import sys, fiberback.nest as nest\nsys.modules[__name__] = nest\n"
SCRIPTS = [
    "312_loop_factory",
    "314_task",
    "314_task_mix",
    "36_asyncgen_hooks",
    "scheduler",
    "call_soon_anyio",
]
# Not run: `mispatched` asserts that nest-asyncio2 is not served by nest_asyncio, of which
# test_nest.test_after_nest_asyncio is ours; 312_aiohttp* and 312_pyvista need packages and the network.


def run(folder, name, module):
    (folder / f"{name}.py").write_text(STANDS_IN)
    done = subprocess.run(
        [sys.executable, "-X", "dev", f"{module}.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_nest_asyncios_own_suite(tmp_path):
    tests = sdists.unpack("nest_asyncio", "1.6.0", tmp_path) / "tests"
    done = run(tests, "nest_asyncio", "nest_test")
    assert "Ran 6 tests" in done.stderr and done.stderr.endswith("OK\n")


@pytest.fixture(scope="module")
def tests_of_nest_asyncio2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nest_asyncio2")
    return sdists.unpack("nest_asyncio2", "1.7.4", folder) / "tests"


def test_nest_asyncio2s_own_suite(tests_of_nest_asyncio2):
    done = run(tests_of_nest_asyncio2, "nest_asyncio2", "nest_test")
    assert "Ran 7 tests" in done.stderr and done.stderr.endswith("OK\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_nest_asyncio2s_scripts(tests_of_nest_asyncio2, script):
    run(tests_of_nest_asyncio2, "nest_asyncio2", script)
