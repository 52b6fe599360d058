"""`enable(everywhere=True)`: loops that are yet to be made, of any class, whoever runs them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


class Loop(asyncio.SelectorEventLoop):
    """One with a `_run_once` of its own, so no stock loop."""

    def _run_once(self):
        super()._run_once()


def uvloop():
    return import_or_skip("uvloop").new_event_loop()


def by_runner(factory):
    def run(main):
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main)

    return run


def by_hand(main):
    loop = uvloop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def forever(main):
    loop = Loop()
    task = loop.create_task(main)
    task.add_done_callback(lambda _: loop.stop())
    loop.run_forever()
    loop.close()
    return task.result()


RUNS = {
    "asyncio.run": asyncio.run,
    "Runner": by_runner(asyncio.new_event_loop),
    "Runner of a subclass": by_runner(Loop),
    "Runner of uvloop": by_runner(uvloop),
    "uvloop.run": lambda main: import_or_skip("uvloop").run(main),
    "run_until_complete": by_hand,
    "run_forever": forever,
}


async def check(fb):
    async def child(n):
        return fb.has_portal() and fb.await_(asyncio.sleep(0.001, n))

    assert fb.has_portal()  # its own was there before the loop began to run
    assert await asyncio.gather(child(1), child(2)) == [1, 2]
    return fb.await_(asyncio.sleep(0, "waited"))


async def has_none(fb):
    async def child():
        return fb.has_portal()

    return not fb.has_portal() and not await asyncio.create_task(child())


@pytest.mark.parametrize("name", RUNS)
def test_whoever_makes_and_runs_it(fb, name):
    run = RUNS[name]
    function, on_class = asyncio._set_running_loop, dict(vars(asyncio.BaseEventLoop))
    for _ in range(2):
        with fb.enable(everywhere=True):
            assert asyncio._set_running_loop is function is asyncio.events._set_running_loop
            assert run(check(fb)) == "waited"
            with fb.enable(everywhere=True):
                assert run(check(fb)) == "waited"
            assert run(check(fb)) == "waited"
        assert dict(vars(asyncio.BaseEventLoop)) == on_class
        assert run(has_none(fb))


def test_in_other_threads_and_the_loop_that_runs_here(fb):
    results = []

    async def main():
        assert not fb.has_portal()
        with fb.enable(everywhere=True):
            await asyncio.sleep(0)
            assert fb.has_portal()
            for run in (asyncio.run, by_hand):
                thread = threading.Thread(target=lambda run=run: results.append(run(check(fb))))
                thread.start()
                await asyncio.to_thread(thread.join)
            assert await check(fb) == "waited"
        await asyncio.sleep(0)
        assert await asyncio.create_task(has_none(fb))

    asyncio.run(main())
    assert results == ["waited"] * 2


def test_a_stock_loop_that_runs_in_another_thread_already(fb):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)
        with fb.enable(everywhere=True):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)
            assert asyncio.run_coroutine_threadsafe(check(fb), loop).result(60) == "waited"
        assert asyncio.run_coroutine_threadsafe(has_none(fb), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_one_loop_stays_enabled_when_everywhere_ends(fb):
    loop = asyncio.new_event_loop()
    everywhere = fb.enable(everywhere=True)
    with fb.enable(loop):
        assert loop.run_until_complete(check(fb)) == "waited"
        everywhere.disable()
        assert loop.run_until_complete(check(fb)) == "waited"
    assert loop.run_until_complete(has_none(fb))
    loop.close()


def test_a_loop_runs_whatever_is_wrong_with_it(fb, monkeypatch):
    class Odd(asyncio.SelectorEventLoop):
        def get_task_factory(self):
            raise NotImplementedError("none here")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(what.exc_value))
    loop = Odd()
    with fb.enable(everywhere=True):
        assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1
    loop.close()
    assert [type(error) for error in told] == [NotImplementedError]


# Another one that exchanges the C function: on top of ours, which it goes on to call.
PATCHER = """
import asyncio, _asyncio, ctypes, fiberback

class Definition(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p)]

class Function(ctypes.Structure):
    _fields_ = [
        ("refcount", ctypes.c_ssize_t), ("type", ctypes.c_void_p), ("ml", ctypes.POINTER(Definition))
    ]

async def main():
    return fiberback.has_portal() and fiberback.await_(asyncio.sleep(0, 1))

TYPE = ctypes.PYFUNCTYPE(*[ctypes.py_object] * 3)
definition = Function.from_address(id(_asyncio._set_running_loop)).ml.contents
stock = definition.function
first = fiberback.enable(everywhere=True)
ours = definition.function
calls = []

@TYPE
def theirs(module, loop):
    calls.append(loop)
    assert len(calls) < 100
    return TYPE(ours)(module, loop)

definition.function = ctypes.cast(theirs, ctypes.c_void_p).value
assert asyncio.run(main()) == 1
first.disable()
assert not asyncio.run(main())
with fiberback.enable(everywhere=True):
    assert asyncio.run(main()) == 1
assert calls
definition.function = ours
assert not asyncio.run(main())
with fiberback.enable(everywhere=True):
    assert asyncio.run(main()) == 1
assert definition.function == stock
first = fiberback.enable(everywhere=True)
definition.function = stock  # somebody who restores what was there before us
first.disable()
with fiberback.enable(everywhere=True):
    assert asyncio.run(main()) == 1
assert definition.function == stock
print("fine")
"""


def test_another_one_that_exchanges_the_function(fb):
    done = subprocess.run([sys.executable, "-c", PATCHER], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_ctrl_c_when_a_loop_begins(fb):
    # Where an exception would leave a loop that does not run as the running one.
    def hook(loop):
        raise KeyboardInterrupt

    loop, sleep = asyncio.new_event_loop(), asyncio.sleep(60)
    fb._fiberback.watch_loops(hook)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(sleep)
    finally:
        fb._fiberback.watch_loops(None)
        sleep.close()
    assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1
    loop.close()


PROGRAM = """
import fiberback
fiberback.enable(everywhere=True)
import asyncio, uvloop                  # uvloop keeps asyncio's functions from now on

async def main():
    return fiberback.has_portal() and fiberback.await_(asyncio.sleep(0, 1))

assert uvloop.run(main()) == 1
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    assert runner.run(main()) == 1
print("fine")
"""


def test_a_library_that_is_imported_meanwhile_and_the_exit(fb):
    import_or_skip("uvloop")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


CONFTEST = """
import fiberback
fiberback.enable(everywhere=True)
"""
TESTS = """
import asyncio, fiberback, pytest, pytest_asyncio

def wait(value):
    assert fiberback.has_portal()
    return fiberback.await_(asyncio.sleep(0.001, value))

@pytest_asyncio.fixture
async def one():
    yield wait(1)
    wait(0)

@pytest.mark.asyncio
async def test_it(one):
    assert one == wait(1)
    assert type(asyncio.get_running_loop()).__module__.startswith("LOOP")
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_pytest_asyncio(fb, tmp_path, loop):
    import_or_skip("pytest_asyncio")
    import_or_skip(loop)
    policy = """
import pytest, uvloop
@pytest.fixture(scope="session")
def event_loop_policy():
    return uvloop.EventLoopPolicy()
"""
    (tmp_path / "conftest.py").write_text(CONFTEST + (policy if loop == "uvloop" else ""))
    (tmp_path / "test_it.py").write_text(TESTS.replace("LOOP", loop))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


FORKS = """
import asyncio, os, fiberback, uvloop

async def main():
    return fiberback.has_portal() and fiberback.await_(asyncio.sleep(0, 1))

with fiberback.enable(everywhere=True):
    for run in (asyncio.run, uvloop.run):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if run(main()) == 1 else 1)
        assert os.waitpid(pid, 0)[1] == 0
print("fine")
"""


def test_forked_children(fb):
    import_or_skip("uvloop")
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")
