"""Threads: a loop in each, misuse across them, signals and fork on the main one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import sys
import threading
import time

import pytest
from support import UNDER_TEST, only_fiberback


def test_a_loop_in_each_thread(backend, fb):
    results = {}

    def sync(n):
        total = 0
        for i in range(200):
            fb.await_(backend.sleep(0))
            total += i * n
        return total

    async def main(n):
        totals = []

        async def one():
            totals.append(await fb.with_portal_run_sync(sync, n))

        async with backend.group() as group:
            for _ in range(5):
                group.spawn(one)
        results[n] = totals

    threads = [threading.Thread(target=backend.run, args=(main, n)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [199 * 100 * n] * 5 for n in range(6)}


def test_worker_thread_has_no_portal(backend, fb):
    async def answer():
        return "on the thread's own runner"

    def in_worker():
        assert not fb.has_portal()
        if UNDER_TEST == "fiberback":  # more of this in test_worker_threads.py
            return fb.await_(answer()) == "on the thread's own runner"
        with pytest.raises(RuntimeError):
            fb.await_(answer())
        return True

    async def main():
        await fb.ensure_portal()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(in_worker).result()

    assert backend.run(main)


def test_to_thread_from_sync_code(aio, fb):
    def sync():
        return fb.await_(asyncio.to_thread(threading.get_ident))

    async def main():
        assert await fb.with_portal_run_sync(sync) != threading.get_ident()

    aio.run(main)


@only_fiberback
def test_resuming_from_another_thread_is_refused(fb):
    log = []

    def sync():
        try:
            fb.await_(asyncio.sleep(0))
            log.append("resumed")
        finally:
            log.append("finally")

    async def main():
        coro = fb.with_portal_run_sync(sync)
        coro.send(None)
        errors = []

        def elsewhere(step):
            try:
                step()
            except BaseException as error:
                errors.append(error)

        for step in (lambda: coro.send(None), lambda: coro.throw(ValueError()), coro.close):
            thread = threading.Thread(target=elsewhere, args=(step,))
            thread.start()
            thread.join()
        assert len(errors) >= 2, errors
        assert all(isinstance(error, RuntimeError) for error in errors), errors
        assert "thread" in str(errors[0])
        return coro

    unraisable = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        asyncio.run(main())
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert "resumed" not in log


@only_fiberback
@pytest.mark.leaks
def test_thread_dies_with_a_suspended_portal(fb):
    """What a dead thread left suspended may be dropped anywhere without harm; its stack is counted."""
    kept = []
    before = fb.stats()["stacks_leaked"]

    def in_thread():
        async def main():
            coro = fb.with_portal_run_sync(lambda: fb.await_(asyncio.sleep(1)))
            coro.send(None)
            kept.append(coro)

        asyncio.run(main())

    for _ in range(10):
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with pytest.raises(RuntimeError):
            kept[0].send(None)
        kept.clear()
        gc.collect()
    finally:
        sys.unraisablehook = hook
    asyncio.run(fb.with_portal_run_sync(lambda: fb.await_(asyncio.sleep(0))))
    # They are counted when the threads' own variables are destroyed, which `join()` does not wait for.
    deadline = time.monotonic() + 30
    while fb.stats()["stacks_leaked"] < before + 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fb.stats()["stacks_leaked"] == before + 10


@only_fiberback
def test_dropped_in_another_thread_while_its_own_lives(fb):
    """The last reference goes away elsewhere: nothing runs there on a foreign stack."""
    threads_seen = []

    def sync():
        try:
            fb.await_(asyncio.sleep(60))
        finally:
            threads_seen.append(threading.get_ident())

    async def main():
        box = [fb.with_portal_run_sync(sync)]
        box[0].send(None)
        thread = threading.Thread(target=box.clear)
        thread.start()
        thread.join()
        for _ in range(5):
            await asyncio.sleep(0)

    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        asyncio.run(main())
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert set(threads_seen) <= {threading.get_ident()}


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_keyboard_interrupt_while_suspended(fb):
    log = []

    def sync():
        try:
            fb.await_(asyncio.sleep(60))
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        finally:
            log.append("finally")

    async def main():
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        await fb.with_portal_run_sync(sync)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert log == ["cancelled", "finally"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_signal_handler_raising_on_a_fiber(backend, fb):
    class Alarm(Exception):
        pass

    def handler(signum, frame):
        assert frame is not None
        raise Alarm

    def sync():
        fb.await_(backend.sleep(0))
        try:
            # A call: 3.13.0 loses exceptions raised at a loop's own jump in a try block.
            alarm_while_computing()
        except Alarm:
            fb.await_(backend.sleep(0))
            return "interrupted"

    def alarm_while_computing():
        # Here, and not before the try block: on a busy machine it may come at once.
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            pass
        # The system gives it to the main thread unless that has another signal to see to. Before 3.13
        # CPython does not break into the main thread for what another one has received (`force` in
        # `_PyEval_SignalReceived`, Python/ceval_gil.c): it is seen when this one takes the GIL next.
        if sys.version_info < (3, 13) and threads() > 1:
            time.sleep(0)

    def threads():
        return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 2

    previous = signal.signal(signal.SIGALRM, handler)
    try:

        async def main():
            return await fb.with_portal_run_sync(sync)

        assert backend.run(main) == "interrupted"
    finally:
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_fork_inside_a_portal(fb):
    def sync():
        fb.await_(asyncio.sleep(0))
        pid = os.fork()
        if pid == 0:
            status = 1
            try:

                async def ready():
                    return 7

                # asyncio tells the child that no loop runs: the await works, or is refused.
                try:
                    status = 0 if fb.await_(ready()) == 7 else 2
                except RuntimeError:
                    status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        fb.await_(asyncio.sleep(0))
        return os.waitstatus_to_exitcode(status)

    async def main():
        others = [asyncio.create_task(fb.with_portal_run_sync(idle)) for _ in range(20)]
        await asyncio.sleep(0)
        code = await fb.with_portal_run_sync(sync)
        await asyncio.gather(*others)
        return code

    def idle():
        fb.await_(asyncio.sleep(0.05))

    assert asyncio.run(main()) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_fork_then_a_new_loop_in_the_child(fb):
    asyncio.run(fb.with_portal_run_sync(lambda: fb.await_(asyncio.sleep(0))))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:

            async def main():
                def sync():
                    for _ in range(10):
                        fb.await_(asyncio.sleep(0))
                    return 5

                coros = [fb.with_portal_run_sync(sync) for _ in range(50)]
                return sum(await asyncio.gather(*coros))

            status = 0 if asyncio.run(main()) == 250 else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_what_others_submit_meanwhile_is_not_waited_for(fb):
    """The one has no loop that awaits it; the other's is on the way for as long as that takes."""

    class Late(concurrent.futures.ThreadPoolExecutor):
        def submit(self, *args, **kwds):
            begun.set()
            assert over.wait(20)
            return super().submit(*args, **kwds)

    begun, over = threading.Event(), threading.Event()

    async def main():
        with Late(1) as executor:
            return await asyncio.get_running_loop().run_in_executor(executor, int)

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        other = executor.submit(asyncio.run, main())
        assert begun.wait(60)
        assert executor.submit(fb.await_, asyncio.sleep(0, 7)).result() == 7
        over.set()
        assert other.result() == 0
