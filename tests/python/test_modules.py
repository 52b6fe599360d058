"""A library is loaded when it can be used, not when `sys.modules` has a key for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

PROGRAM = """
import sys, threading, types
NAME = "{name}"
VALUE = {value}
for key in list(sys.modules):
    assert key.partition(".")[0] != NAME
sys.modules[NAME] = VALUE
import asyncio
import fiberback
from fiberback import greenback

async def child():
    await greenback.ensure_portal()
    return greenback.await_(asyncio.sleep(0, 1))

async def main():
    assert await child() == 1
    assert await asyncio.create_task(child()) == 1
    assert await greenback.with_portal_run(child) == 1
    assert await greenback.with_portal_run_sync(lambda: greenback.await_(asyncio.sleep(0, 2))) == 2
    task = asyncio.create_task(asyncio.sleep(0, 3))
    greenback.bestow_portal(task)
    assert await task == 3
    assert await asyncio.to_thread(lambda: fiberback.await_(asyncio.sleep(0, 4))) == 4
    return fiberback.await_(asyncio.sleep(0, 5))

for run in (asyncio.run, fiberback.run):
    assert run(main()) == 5
found = []
thread = threading.Thread(target=lambda: found.append(fiberback.await_(asyncio.sleep(0, 6))))
thread.start(), thread.join()
assert found == [6]
assert fiberback.await_(asyncio.sleep(0, 7)) == 7
from fiberback.dbapi import _waiting
assert _waiting.running_loop() is None
assert sys.modules[NAME] is VALUE
print("fine")
"""

BEING_IMPORTED = """\
types.ModuleType(NAME)
VALUE.__spec__ = types.SimpleNamespace(_initializing=True)"""


NAMES = ["greenlet", "trio", "anyio", "sniffio", "uvloop", "asgiref"]
# greenback imports sniffio, which waits for whoever is at it; a stand-in would never be done.
CASES = [(name, "None") for name in NAMES]
CASES += [(name, BEING_IMPORTED) for name in NAMES if name != "sniffio"]


@pytest.mark.parametrize(("name", "value"), CASES, ids=[f"{n} {v[:4]}" for n, v in CASES])
def test_a_key_is_not_a_library(fb, name, value):
    program = PROGRAM.format(name=name, value=value)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_is_loaded(fb, monkeypatch):
    from fiberback._modules import is_loaded

    assert is_loaded("sys") and not is_loaded("a library that nobody has")
    monkeypatch.setitem(sys.modules, "json", None)
    assert not is_loaded("json")


def test_greenlet_in_the_place_of_none(fb):
    """The length of `sys.modules` does not change then."""
    pytest.importorskip("greenlet")
    program = """
import sys
import greenlet
real, sys.modules["greenlet"] = greenlet, None
import asyncio, fiberback

async def main():
    assert fiberback.await_(asyncio.sleep(0, 1)) == 1
    sys.modules["greenlet"] = real
    assert fiberback.await_(asyncio.sleep(0, 2)) == 2

    def in_greenlet():
        try:
            fiberback.await_(asyncio.sleep(0.001, 3))
        except RuntimeError:
            return "refused"
        return 3

    return real.greenlet(in_greenlet).switch()

assert fiberback.run(main()) in (3, "refused")
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


@pytest.mark.parametrize(
    "module",
    [
        "asgi",
        "asgiref",
        "celery",
        "dask",
        "dbapi",
        "devlib",
        "django",
        "fsspec",
        "gevent",
        "greenback",
        "greenlet",
        "ipython",
        "nest",
        "peewee",
        "playwright",
        "psycopg2",
        "pytest",
        "sqlalchemy",
        "threads",
    ],
)
def test_a_module_is_there_when_it_is_named(module):
    """As README has it: `fiberback.threads.LoopThread()` after `import fiberback` alone."""
    program = f"""
import sys, fiberback
assert "fiberback.{module}" not in sys.modules
try:
    found = fiberback.{module}
except ImportError as error:
    assert "[fiberback:needs-extra]" in str(error), error
else:
    assert found is sys.modules["fiberback.{module}"]
try:
    fiberback.unheard_of
except AttributeError as error:
    assert str(error) == "module 'fiberback' has no attribute 'unheard_of'"
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
