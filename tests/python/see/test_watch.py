"""`watch()`: who blocks an event loop, with what, and what to type instead.

What blocks here does so until that is reported, so that no test depends on how long anything takes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import logging
import queue
import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from fiberback._see.beat import Beat
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

SHORT = 0.04


class Reports:
    """What is reported of this file's code, whatever else goes on in the process."""

    def __init__(self):
        self.all = []
        self._changed = threading.Condition()

    def __call__(self, blocked):
        if any(frame.filename == __file__ for frame in blocked.frames):
            with self._changed:
                self.all.append(blocked)
                self._changed.notify_all()

    def wait_for(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= count, 100)

    def block(self, count=1):
        while len(self.all) < count:
            time.sleep(0.3)


@pytest.fixture
def reports(fb):
    yield from watched(fb, SHORT)


@pytest.fixture
def patient(fb):
    """For what must not be reported even if the machine has no time for a thread that it should run."""
    yield from watched(fb, 1)


def watched(fb, threshold):
    reports = Reports()
    with fb.watch(threshold, report=reports):
        yield reports
    assert not [one for one in threading.enumerate() if one.name == "fiberback-watch"]


def functions(blocked):
    return [frame.name.rpartition(".")[2] for frame in blocked.frames]


def test_what_is_reported(fb, aio, reports):
    async def blocks():
        await asyncio.sleep(0)
        reports.block()

    async def main():
        others = [asyncio.create_task(asyncio.sleep(600), name=f"other-{n}") for n in range(3)]
        await asyncio.create_task(blocks(), name="blocks")
        for other in others:
            other.cancel()
        await asyncio.wait(others)

    before = fb.stats()["loops_blocked"]
    aio.run(main)
    [blocked] = reports.all
    assert isinstance(blocked, fb.Blocked)
    assert functions(blocked) == ["blocks", "block"]
    assert blocked.frames[-1].line == "time.sleep(0.3)"
    assert blocked.task == "blocks" and blocked.call == "time.sleep()"
    assert "fiberback.await_(asyncio.sleep(seconds))" in blocked.instead
    assert {f"other-{n}" for n in range(3)} < set(
        blocked.waiting
    ) and "blocks" not in blocked.waiting
    assert blocked.thread == threading.current_thread().name
    assert SHORT <= blocked.seconds < 100
    assert fb.stats()["loops_blocked"] > before
    says(str(blocked), "loop-blocked", "task 'blocks'", "time.sleep()", "asyncio.sleep(seconds)")
    assert re.search(r"4 tasks wait meanwhile: .*'other-0', 'other-1', 'other-2'", str(blocked))
    assert 'blocks\n    reports.block()\n  File "' in str(blocked)


@pytest.mark.parametrize("begin", ["run", "asyncio", "enable"])
def test_sync_code_below_await_(fb, reports, begin):
    """On a fiber, and on parked stacks' loops."""

    async def blocks():
        reports.block()

    def deep(n):
        if n:
            return deep(n - 1)
        return fb.await_(blocks())

    def waits(until):
        fb.await_(until.wait())

    async def main():
        if begin == "enable":
            fb.enable()
            await asyncio.sleep(0)
        until = asyncio.Event()

        async def outer(function, *args):
            function(*args)

        # On asyncio's own loop the first of these parks the stack that the loop began on.
        waiting = [asyncio.create_task(outer(waits, until), name="waits") for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.create_task(outer(deep, 2), name="blocks")
        until.set()
        await asyncio.wait(waiting)

    (fb.run if begin == "run" else asyncio.run)(main())
    [blocked] = reports.all
    assert functions(blocked) == ["outer", "deep", "deep", "deep", "blocks", "block"]
    assert blocked.task == "blocks" and "waits" in blocked.waiting


def test_trio(fb, reports):
    trio = import_or_skip("trio")

    async def blocks():
        await trio.lowlevel.checkpoint()
        reports.block()

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever, name="other")
            await trio.lowlevel.checkpoint()
            await blocks()
            nursery.cancel_scope.cancel()

    trio.run(main)
    [blocked] = reports.all
    assert functions(blocked) == ["main", "blocks", "block"]
    assert blocked.loop == "Trio" and blocked.task.endswith("main") and blocked.waiting == ["other"]
    assert "fiberback.await_(trio.sleep(seconds))" in blocked.instead


def until_reported(reports, release):
    def body():
        reports.wait_for(1)
        release()

    thread = threading.Thread(target=body)
    thread.start()
    return thread


class Held:
    def __init__(self, lock):
        self.lock = lock

    def acquire(self):
        self.lock.acquire()

    def enter(self):
        with self.lock:
            pass


def by_lock(reports, enters=False):
    lock = threading.Lock()
    lock.acquire()
    held = Held(lock)
    return (held.enter if enters else held.acquire), lock.release


def by_rlock(reports):
    lock, held, let_go = threading.RLock(), threading.Event(), threading.Event()

    def holds():
        with lock:
            held.set()
            let_go.wait()

    threading.Thread(target=holds).start()
    held.wait()
    return Held(lock).enter, let_go.set


def by_event(reports):
    event = threading.Event()
    return event.wait, event.set


def by_queue(reports, kind=queue.Queue):
    items = kind()

    def gets():
        items.get()

    return gets, lambda: items.put(None)


def by_future(reports):
    future = concurrent.futures.Future()
    return future.result, lambda: future.set_result(None)


def by_join(reports):
    event = threading.Event()
    thread = threading.Thread(target=event.wait)
    thread.start()
    return thread.join, event.set


def by_socket(reports):
    one, other = socket.socketpair()

    def receives():
        one.recv(1)
        one.close()

    def sends():
        other.send(b" ")
        other.close()

    return receives, sends


def by_process(reports):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    return process.wait, process.stdin.close


def by_http(reports):
    import http.client

    listening = socket.create_server(("127.0.0.1", 0))
    accepted = []

    def gets():
        connection = http.client.HTTPConnection(*listening.getsockname())
        connection.request("GET", "/")
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()

    def ends():
        accepted.append(listening.accept()[0])
        accepted[0].recv(10_000)
        accepted[0].close()
        listening.close()

    return gets, ends


def by_computing(reports):
    def computes():
        while not reports.all:
            for _ in range(1000):
                pass

    return computes, lambda: None


@pytest.mark.parametrize(
    "kind, call, instead",
    [
        (by_lock, "self.lock.acquire()", "fiberback.async_context(lock)"),
        (functools.partial(by_lock, enters=True), "self.lock()", "fiberback.async_context(lock)"),
        (by_rlock, "self.lock()", "asyncio.Lock"),
        (by_event, "threading.Event.wait()", "fiberback.await_(event.wait())"),
        (by_queue, "queue.Queue.get()", "fiberback.await_(queue.get())"),
        (functools.partial(by_queue, kind=queue.SimpleQueue), "items.get()", "asyncio.Queue"),
        (by_future, "Future.result()", "fiberback.await_(asyncio.wrap_future(future))"),
        (by_join, "threading.Thread.join()", "fiberback.await_(asyncio.to_thread(thread.join))"),
        (by_socket, "one.recv()", "fiberback.await_(loop.sock_recv(sock, count))"),
        (by_process, "subprocess.Popen.wait()", "asyncio.create_subprocess_exec"),
        (by_http, "http.client.HTTPConnection.getresponse()", "httpx.AsyncClient"),
        (by_computing, "computes()", "asyncio.sleep(0)"),
    ],
)
def test_what_would_make_it_wait(reports, kind, call, instead):
    blocks, release = kind(reports)

    async def main():
        blocks()

    thread = until_reported(reports, release)
    asyncio.run(main())
    thread.join()
    blocked = reports.all[0]
    assert blocked.call.endswith(call), blocked
    assert instead in blocked.instead, blocked


@pytest.mark.parametrize("on_a_runner", [False, True])
def test_a_callback_without_a_frame(fb, on_a_runner):
    """One in C: only the loop's own frames are there; on a runner not even that of its handle."""
    lock = threading.Lock()
    lock.acquire()
    reported = []

    def report(blocked):
        if "marked" in blocked.loop:
            reported.append(blocked)
            lock.release()

    class Loop(asyncio.SelectorEventLoop):
        def __repr__(self):
            return "marked"

    async def main():
        gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if on_a_runner:
                group.create_task(parked(gate))
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(lock.acquire)
            await asyncio.sleep(0)
            gate.set()

    async def parked(gate):
        fb.await_(gate.wait())

    with fb.watch(SHORT, report=report), asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
    [blocked] = reported
    assert not blocked.frames and "(no frame to be seen)" in str(blocked)
    assert blocked.task is None and "by a callback" in str(blocked)


def test_each_time_is_reported_once(reports):
    async def main():
        for count in (1, 2, 3):
            reports.block(count)
            now = len(reports.all)
            # It is blocked on, by the same call of the loop's.
            begin = time.monotonic()
            while time.monotonic() - begin < 5 * SHORT:
                pass
            assert len(reports.all) == now == count
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)  # the loop has been in its selector
            while not reports.all[-1].is_over:
                await asyncio.sleep(0.001)
            assert reports.all[-1].seconds >= 5 * SHORT

    asyncio.run(main())
    assert len(reports.all) == 3


def test_loops_of_all_threads_begun_before_and_since(fb):
    reports = Reports()
    begun, watched = threading.Barrier(3), threading.Event()

    async def blocks():
        begun.wait()
        await asyncio.to_thread(watched.wait)
        reports.block(2)

    threads = [threading.Thread(target=asyncio.run, args=(blocks(),), name=n) for n in "ab"]
    for thread in threads:
        thread.start()
    begun.wait()
    with fb.watch(SHORT, report=reports):
        watched.set()
        for thread in threads:
            thread.join()
        assert sorted(one.thread for one in reports.all) == ["a", "b"]
        reports.all.clear()

        async def later():
            reports.block()

        asyncio.run(later())
        assert len(reports.all) == 1


def other_loop_blocks(reports, count):
    """In a thread of its own, until that is reported `count` times."""

    async def blocks():
        for n in range(count):
            reports.block(n + 1)
            while not reports.all[n].is_over:
                await asyncio.sleep(0.001)

    thread = threading.Thread(target=asyncio.run, args=(blocks(),), name="other")
    thread.start()
    return thread


def test_a_loop_that_idles_is_not_blocked(fb, aio, patient):
    """However long: another one's blocks are reported meanwhile."""

    async def idles():
        await asyncio.to_thread(thread.join)

    thread = other_loop_blocks(patient, 2)
    aio.run(idles)
    assert [one.thread for one in patient.all] == ["other"] * 2


def test_a_busy_loop_that_goes_on_is_not_blocked(fb, aio, patient):
    async def busy():
        while thread.is_alive():
            await asyncio.sleep(0)

    thread = other_loop_blocks(patient, 2)
    aio.run(busy)
    assert [one.thread for one in patient.all] == ["other"] * 2


@pytest.mark.parametrize("module", ["bdb", "pdb", "code"])
def test_a_debugger_s_prompt(fb, reports, module):
    prompt = {}
    text = "def interaction(until):\n    until()\n"
    exec(compile(text, __import__(module).__file__, "exec"), prompt)

    async def main():
        prompt["interaction"](thread.join)

    thread = other_loop_blocks(reports, 3)
    asyncio.run(main())
    assert [one.thread for one in reports.all] == ["other"] * 3


def test_by_default_it_is_logged(fb, caplog):
    def is_said():
        return any("said_of" in one.getMessage() for one in caplog.records)

    def said_of():
        begin = time.monotonic()
        while not is_said() and time.monotonic() - begin < 100:
            time.sleep(0.05)

    async def main():
        said_of()

    with caplog.at_level(logging.INFO, "fiberback"), fb.watch(SHORT):
        asyncio.run(main())
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not any(
            "goes on, after" in one.getMessage() for one in caplog.records
        ):
            time.sleep(0.01)
    [said] = [one for one in caplog.records if "said_of" in one.getMessage()]
    assert said.levelname == "WARNING" and said.name == "fiberback"
    says(said.getMessage(), "loop-blocked", "time.sleep()")
    assert [one.levelname for one in caplog.records if "goes on" in one.getMessage()] == ["INFO"]


def test_what_a_report_raises_ends_nothing(fb, reports, monkeypatch):
    raised = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, _: raised.append(error))

    def report(blocked):
        if any(frame.filename == __file__ for frame in blocked.frames):
            raise ZeroDivisionError

    async def main():
        for count in (1, 2):
            while len(raised) < count or len(reports.all) < count:
                time.sleep(0.05)
            while not reports.all[-1].is_over:
                await asyncio.sleep(0.001)

    with fb.watch(SHORT, report=report):
        asyncio.run(main())
    assert {type(error) for error in raised} == {ZeroDivisionError} and len(raised) >= 2


def test_stop(fb):
    def report(blocked):
        watching.stop()
        reports(blocked)

    reports = Reports()
    watching = fb.watch(SHORT, report=report)
    assert repr(watching) == f"<fiberback.Watch: threshold={SHORT}>"

    async def main():
        reports.block()

    asyncio.run(main())
    watching.stop()
    assert repr(watching).endswith("(stopped)>")
    while any(one.name == "fiberback-watch" for one in threading.enumerate()):
        time.sleep(0.01)


def test_what_is_no_threshold(fb):
    for wrong in ("1", None, True):
        with pytest.raises(TypeError) as caught:
            fb.watch(wrong)
        says(caught.value, "watch-threshold", "threshold=0.1")
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError) as caught:
            fb.watch(wrong)
        says(caught.value, "watch-threshold", str(wrong))
    with pytest.raises(TypeError) as caught:
        fb.watch(report="me")
    says(caught.value, "watch-report", "'me'", "fiberback.Blocked")
    assert not [one for one in threading.enumerate() if one.name == "fiberback-watch"]


def test_code_that_keeps_the_gil(fb, reports):
    """Nobody can look meanwhile; what it used the processor for is seen afterwards."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells how long a thread has run")

    async def main():
        while not reports.all:
            backtracks()
            await asyncio.sleep(0)

    def backtracks():
        re.match(r"(a+)+$", "a" * 23 + "b")

    asyncio.run(main())
    assert functions(reports.all[0])[:2] == ["main", "backtracks"]


FORKS = """
import asyncio, os, sys, threading, time, warnings
import fiberback

warnings.simplefilter("error")  # that CPython warns of threads in a process that forks
said = threading.Event()
mine = []

def report(blocked):
    mine.append(blocked.frames[-1].name)
    said.set()

fiberback.watch(0.04, report=report)

async def blocks():
    while not said.is_set():
        time.sleep(0.01)

async def main():
    await blocks()
    assert mine == ["blocks"]
    await asyncio.sleep(0.001)
    said.clear()
    mine.clear()
    pid = os.fork()
    if not pid:
        try:
            asyncio._set_running_loop(None)
            asyncio.new_event_loop().run_until_complete(blocks())
            assert mine == ["blocks"] and os.getppid() == parent
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    said.wait()  # which blocks this loop

parent = os.getpid()
asyncio.run(main())
print(mine)
"""


def test_forked_children_are_watched_too():
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(eval(done.stdout)) >= 1


def test_at_exit():
    """While everything goes on, and blocks."""
    script = """
import asyncio, threading, time
import fiberback
fiberback.watch(0.02, report=lambda blocked: None)
async def blocks():
    while True:
        time.sleep(0.03)
        await asyncio.sleep(0)
for _ in range(3):
    threading.Thread(target=asyncio.run, args=(blocks(),), daemon=True).start()
time.sleep(0.3)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")


class WithoutThreads(asyncio.SelectorEventLoop):
    """A loop of somebody's whose tasks run in one thread, and who did not care for others."""

    def call_soon_threadsafe(self, callback, *args):
        return super().call_soon_threadsafe(callback, *args)


def test_a_loop_that_cannot_be_asked_is_counted_and_said_once(fb, caplog):
    before = fb.stats()["loops_unwatched"]
    reports = []

    async def main():
        deadline = time.monotonic() + 60
        seen = fb.stats()["loops_unwatched"]
        while fb.stats()["loops_unwatched"] == seen and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)

    with caplog.at_level("WARNING", "fiberback"), fb.watch(0.02, report=reports.append):
        for _ in range(2):
            with asyncio.Runner(loop_factory=WithoutThreads) as runner:
                runner.run(main())
    assert fb.stats()["loops_unwatched"] == before + 2
    lines = [record.getMessage() for record in caplog.records]
    lines = [line for line in lines if "[fiberback:loop-unwatched]" in line]
    assert len(lines) == (before == 0)
    assert before or "TypeError" in lines[0]
    assert not [each for each in reports if "WithoutThreads" in each.loop]


def test_the_next_loop_may_be_where_the_one_before_it_was():
    """A loop is not taken for another one that was at the same address in the same thread."""
    loop, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        beat = Beat(loop, threading.get_ident())
        assert beat.is_of(loop) and not beat.is_of(other)
        loop.close()
        del loop
        gc.collect()
        assert not beat.is_of(other)
    finally:
        other.close()
