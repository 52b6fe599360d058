"""fsspec's own tests of filesystems' sync methods, out of its sdist on PyPI, with `fiberback.fsspec.install()`.

The sdist, which is downloaded when this test runs (`sdists`), has of fsspec's tests only `fsspec/tests/abstract`, the
suite for authors of filesystems. That of `fsspec.asyn.sync` itself, `fsspec/tests/test_async.py`, is left out of
it. The filesystems are async ones over fsspec's in memory and of local files, with primitives only, so that
all else is fsspec's async code, called by its sync methods. The run without `install()` passes all, and so do the others.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import sdists
from support import import_or_skip, only_fiberback, takes_long

import_or_skip("fsspec.asyn")

pytestmark = [only_fiberback, pytest.mark.slow]

# The suite is classes to derive from, with fixtures that say which filesystem it is. (Beside them are two tests of
# `mv`, of the local filesystem, which has no async side.)
SUITE = """
import asyncio
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.conftest import instance_caches
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.tests import abstract

METHODS = ["info", "ls", "cat_file", "pipe_file", "cp_file", "put_file", "get_file", "mkdir", "makedirs", "rm"]

def asynchronous(kind):
    def method(name):
        async def call(self, *args, **kwds):
            await asyncio.sleep(0)
            return getattr(self.under, name)(*args, **kwds)
        return call

    def strip(path):
        return [strip(each) for each in path] if isinstance(path, list) else kind._strip_protocol(path)

    def __init__(self, **kwds):
        AsyncFileSystem.__init__(self, asynchronous=False)
        self.under = kind(**kwds)

    members = {"_" + name: method(name) for name in METHODS}
    members |= {"__init__": __init__, "cachable": False, "protocol": "async-" + kind.__name__}
    members["root_marker"] = kind.root_marker
    members["_strip_protocol"] = staticmethod(strip)
    members["_parent"] = staticmethod(kind._parent)
    members["_open"] = lambda self, *args, **kwds: self.under._open(*args, **kwds)
    return type("Async" + kind.__name__, (AsyncFileSystem,), members)

class Memory(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self):
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]
        return asynchronous(MemoryFileSystem)()

    @pytest.fixture
    def fs_join(self):
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_path(self):
        return ""

class Local(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self):
        return asynchronous(LocalFileSystem)(auto_mkdir=True)

    @pytest.fixture
    def fs_path(self, tmp_path_factory):
        return str(tmp_path_factory.mktemp("remote"))

for kind in ("Copy", "Get", "Put", "Pipe", "Open"):
    for fixtures in (Memory, Local):
        name = f"Test{fixtures.__name__}{kind}"
        tests = getattr(abstract, f"Abstract{kind}Tests")
        globals()[name] = type(name, (tests, fixtures), {"__module__": __name__})
"""

# Prints how each test ended, and how often a loop got its turn meanwhile.
RUNNER = """
import asyncio, contextlib, json, sys
import pytest
import fiberback.fsspec

sync, way = sys.argv[1:]
ends, turns = {}, []

class Ends:
    def pytest_runtest_logreport(self, report):
        if report.when == "call" or not report.passed:
            ends[report.nodeid] = report.outcome

def run():
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "test_suite.py"]
    assert pytest.main(arguments, [Ends()]) in (0, 1)

async def main():
    async def count():
        while True:
            turns.append(None)
            await asyncio.sleep(0.001)

    counter = asyncio.create_task(count())
    run()
    counter.cancel()

with fiberback.fsspec.install() if sync == "installed" else contextlib.nullcontext():
    if way == "no loop":
        run()
    else:
        {"portal": fiberback.run, "parked": asyncio.run}[way](main())
print()
print(json.dumps([ends, len(turns)]))
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    # What is tested is the fsspec of the sdist: its tests are a part of the package.
    folder = sdists.unpack("fsspec", "2026.9.0", tmp_path_factory.mktemp("fsspec"))
    (folder / "test_suite.py").write_text(SUITE)
    return folder


def run(suite, sync, way):
    """How each test ended, how often the loop got its turn, and what pytest said."""
    takes_long()
    command = [sys.executable, "-X", "faulthandler", "-c", RUNNER, sync, way]
    done = subprocess.run(command, cwd=suite, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    ends, turns = json.loads(done.stdout.splitlines()[-1])
    return ends, turns, done.stdout


@pytest.fixture(scope="module")
def without(suite):
    ends, _, output = run(suite, "stock", "no loop")
    assert len(ends) >= 270 and set(ends.values()) == {"passed"}, output
    return ends


def test_without_install_a_loop_is_blocked(suite, without):
    ends, turns, _ = run(suite, "stock", "parked")
    assert ends == without and turns == 0


@pytest.mark.parametrize("way", ["no loop", "portal", "parked"])
def test_fsspecs_own_tests(suite, without, way):
    ends, turns, output = run(suite, "installed", way)
    assert ends == without, output
    assert way == "no loop" or turns >= 100
