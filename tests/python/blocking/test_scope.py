"""What is in force, for whom, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import select
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time
import types

import fiberback
import pytest
from saying import says
from support import only_fiberback

pytestmark = only_fiberback


def everything():
    """All that hooks could stand in."""
    from fiberback._blocking.hooks import REPLACEMENTS

    owners = {each._owner for some in REPLACEMENTS.values() for each in some}
    owners |= {time, socket, select, selectors, socket.socket, ssl.SSLSocket, threading}
    return {owner: dict(vars(owner)) for owner in owners}


def test_nothing_is_left(tmp_path):
    before = everything()
    with fiberback.blocking():
        assert everything() != before
        with fiberback.blocking(), fiberback.blocking.install():
            pass
        assert time.sleep is not before[time]["sleep"]
    assert everything() == before
    fiberback.blocking.install()
    assert everything() != before
    fiberback.blocking.uninstall()
    fiberback.blocking.uninstall()
    assert everything() == before


def test_what_is_imported_by_name(monkeypatch):
    """Before, and meanwhile; under another name it is left alone."""
    original = time.sleep
    before, meanwhile = types.ModuleType("before"), types.ModuleType("meanwhile")
    before.sleep = before.kept = original
    monkeypatch.setitem(sys.modules, "before", before)
    with fiberback.blocking("sleep"):
        assert before.sleep is time.sleep is not original
        assert before.kept is original
        meanwhile.sleep = time.sleep
        monkeypatch.setitem(sys.modules, "meanwhile", meanwhile)
    assert before.sleep is meanwhile.sleep is time.sleep is original


def test_a_loop_s_library_that_is_imported_meanwhile(monkeypatch):
    original = time.sleep
    meanwhile = types.ModuleType("anyio._meanwhile")
    with fiberback.blocking("sleep"):
        meanwhile.sleep = time.sleep
        monkeypatch.setitem(sys.modules, "anyio._meanwhile", meanwhile)
    assert meanwhile.sleep is original


def test_a_module_that_is_imported_when_it_is_used_is_not(is_imported_late):
    with fiberback.blocking():
        pass
    assert not is_imported_late()


def test_what_others_have_put_there_stays(monkeypatch):
    original, others = time.sleep, lambda seconds: None
    with fiberback.blocking("sleep"):
        time.sleep = others
    assert time.sleep is others
    time.sleep = original


def test_switches():
    before = everything()
    with fiberback.blocking("sleep") as only:
        changed = {owner for owner, names in everything().items() if names != before[owner]}
        assert changed == {time}
        assert repr(only) == "<fiberback.blocking: sleep>"
    with fiberback.blocking(without=["sleep"]):
        assert time.sleep is before[time]["sleep"]
        assert "recv" in vars(socket.socket)


def test_what_is_refused():
    with pytest.raises(ValueError) as caught:
        fiberback.blocking("socket")
    says(caught.value, "blocking-switch")
    with pytest.raises(TypeError) as caught:
        fiberback.blocking.install(without="ssl")
    says(caught.value, "blocking-without")
    scope = fiberback.blocking("sleep")
    with scope, pytest.raises(RuntimeError) as caught:
        scope.__enter__()
    says(caught.value, "blocking-entered")
    with scope:
        pass


def test_it_is_the_package_s():
    assert pickle.loads(pickle.dumps(fiberback.blocking)) is fiberback.blocking
    assert repr(fiberback.blocking) == "fiberback.blocking"


def test_installed_once(backend):
    original = time.sleep
    with fiberback.blocking.install("sleep"):
        with fiberback.blocking.install():  # not what this one did
            pass
        assert time.sleep is not original
    assert time.sleep is original


def sleeps(turns, sleep=None):
    """Whether the loop goes on meanwhile. On Trio what is due may come before all others, so not at the first
    time only."""
    before = turns.turns
    for _ in range(20):
        (sleep or time.sleep)(0.001)
        if turns.turns > before:
            return True
    return False


async def waits(backend, going, sleep=None):
    async with going() as turns:
        await backend.sleep(0)
        return await fiberback.with_portal_run_sync(sleeps, turns, sleep)


def test_of_a_context(backend, going):
    """It holds for what is begun in the block, and for nobody else at that time."""

    async def main():
        found = {}
        entered, done = backend.Event(), backend.Event()

        async def other():
            await entered.wait()
            found["other"] = await waits(backend, going)
            done.set()

        async def inner():
            found["inner"] = await waits(backend, going)

        async with backend.group() as outer:
            outer.spawn(other)
            await backend.sleep(0)
            with fiberback.blocking():
                async with backend.group() as group:
                    group.spawn(inner)
                found["own"] = await waits(backend, going)
                entered.set()
                await done.wait()
        found["after"] = await waits(backend, going)
        return found

    assert backend.run(main) == {"inner": True, "own": True, "other": False, "after": False}


def test_of_the_process(backend, going):
    async def main():
        return await waits(backend, going)

    with fiberback.blocking.install():
        assert backend.run(main)
    assert not backend.run(main)


def test_a_scope_that_is_over_holds_for_nobody(backend, going):
    """Those who have its context meet one that others have in force."""

    async def main():
        with fiberback.blocking():
            context = contextvars.copy_context()
        with fiberback.blocking.install("dns"):
            return await waits(backend, going, lambda seconds: context.run(time.sleep, seconds))

    assert not backend.run(main)


def test_a_lock_that_a_task_of_another_scope_holds(backend):
    """Who is in no scope meets a lock that was made in one: the thread must not block for a task of its own."""

    async def main():
        made, found = [], []

        def get():
            found.append(made[0].acquire(timeout=10))

        async def other():
            while not made:
                await backend.sleep(0)
            await fiberback.with_portal_run_sync(get)

        def hold():
            lock = threading.Lock()
            with lock:
                made.append(lock)
                for _ in range(20):
                    time.sleep(0)

        async with backend.group() as group:
            group.spawn(other)
            await backend.sleep(0)
            with fiberback.blocking():
                async with backend.group() as inner:
                    inner.spawn(fiberback.with_portal_run_sync, hold)
        return found

    begin = time.monotonic()
    assert backend.run(main) == [True]
    assert time.monotonic() - begin < 10


def test_run_with_blocking():
    async def main():
        turns = []

        async def count():
            while True:
                turns.append(1)
                await asyncio.sleep(0)

        task = asyncio.create_task(count())
        time.sleep(0.002)
        task.cancel()
        return len(turns)

    assert fiberback.run(main(), blocking=True) > 0
    assert fiberback.run(main()) == 0


def test_without_a_portal_where_the_loop_can_park(backend, going):
    async def main():
        async with going() as turns:
            await backend.sleep(0)
            with fiberback.blocking():
                return sleeps(turns)

    assert backend.run(main) == (backend.name in ("asyncio", "eager"))


def test_nothing_waits_in_a_no_await_region(backend, going):
    async def main():
        with fiberback.blocking():
            return await waits(
                backend, going, fiberback.no_await(lambda seconds: time.sleep(seconds))
            )

    assert not backend.run(main)


def test_threads_are_left_alone(backend):
    def work():
        time.sleep(0)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(b"x")
            return theirs.recv(1)

    async def main():
        with fiberback.blocking():
            return await fiberback.with_portal_run_sync(in_thread, work)

    def in_thread(function):
        found = []
        thread = threading.Thread(target=lambda: found.append(function()))
        thread.start()
        thread.join()
        return found

    assert backend.run(main) == [b"x"]


def test_of_sleep(backend):
    """What it refuses, and that nothing at all is a turn of the loop."""

    async def main():
        with fiberback.blocking():
            await fiberback.with_portal_run_sync(check)

    def check():
        for value, error in ((-1, ValueError), ("1", TypeError), (float("nan"), ValueError)):
            with pytest.raises(error):
                time.sleep(value)
        assert time.sleep(False) is None

    backend.run(main)


def test_of_sleep_that_asks_again_and_again(backend):
    async def main():
        there = []

        async def come():
            there.append(1)

        def ask():
            while not there:
                time.sleep(0)

        with fiberback.blocking():
            async with backend.group() as group:
                group.spawn(fiberback.with_portal_run_sync, ask)
                group.spawn(come)

    backend.run(main)


def test_of_sleep_for_numbers_of_other_types(backend, going):
    class Seconds(float):
        pass

    class Turn:
        def __index__(self):
            return 0

    async def main():
        with fiberback.blocking():
            return [
                await waits(backend, going, lambda seconds: time.sleep(Seconds(seconds))),
                await waits(backend, going, lambda seconds: time.sleep(Turn())),
            ]

    assert backend.run(main) == [True, True]


def test_cancelling_a_sleep(backend):
    async def main():
        ended = []

        def sleep():
            try:
                time.sleep(1000)
            except BaseException as error:
                ended.append(type(error))
                raise

        with fiberback.blocking():
            async with backend.group() as group:
                handle = group.spawn(fiberback.with_portal_run_sync, sleep)
                await backend.sleep(0.001)
                handle.cancel()
        return ended

    assert backend.run(main) == [backend.Cancelled]


def test_a_forked_child_waits_for_files_of_its_own():
    script = """
import asyncio, os, socket, fiberback
def talk():
    ours, theirs = socket.socketpair()
    asyncio.get_running_loop().call_later(0.001, theirs.send, b"x")
    assert ours.recv(1) == b"x"
async def main():
    talk()
fiberback.run(main(), blocking=True)
pid = os.fork()
fiberback.run(main(), blocking=True)
if pid:
    raise SystemExit(os.waitpid(pid, 0)[1])
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_where_other_libraries_have_put_their_own_classes(tmp_path):
    """As gevent's monkey patching and pytest-socket do: ours are imported, put in place and taken back all the same."""
    code = """
import select, selectors, socket, ssl, threading

class Thread(threading.Thread): pass
class Socket(socket.socket): pass
class Encrypted(ssl.SSLSocket): pass

threading.Thread, socket.socket, ssl.SSLSocket = Thread, Socket, Encrypted
import asyncio, fiberback

owners = (threading, Thread, socket, Socket, ssl, Encrypted, select, selectors.SelectSelector)
before = [dict(vars(owner)) for owner in owners]

async def main():
    def work():
        ours, theirs = socket.socketpair()
        asyncio.get_running_loop().call_soon(theirs.send, b"x")
        with ours, theirs:
            return ours.recv(1)

    assert await fiberback.with_portal_run_sync(work) == b"x"

with fiberback.blocking():
    asyncio.run(main())
assert [dict(vars(owner)) for owner in owners] == before
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
