"""Whoever looks at the stack sees the whole logical one: async and sync frames together."""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import gc
import inspect
import io
import sys
import tempfile
import threading
import time
import traceback

import pytest
from support import only_fiberback

pytestmark = only_fiberback


def function_names(frame):
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def in_order(names, *wanted):
    positions = [names.index(name) for name in wanted]
    assert positions == sorted(positions), names
    return True


def chain(fb, backend, look):
    """main → entry → sync_outer → sync_inner → [await_] → async_outer → async_inner → look()"""

    async def async_inner():
        first = look()
        await backend.sleep(0)
        return first, look()

    async def async_outer():
        return await async_inner()

    def sync_inner():
        return fb.await_(async_outer())

    def sync_outer():
        return sync_inner()

    async def entry():
        return sync_outer()

    async def main():
        return await fb.with_portal_run(entry)

    return backend.run(main)


EXPECTED = ("async_inner", "async_outer", "sync_inner", "sync_outer", "entry")


def test_f_back_is_complete(backend, fb):
    for names in chain(fb, backend, lambda: function_names(sys._getframe(1))):
        assert in_order(names, *EXPECTED)
        assert "test_f_back_is_complete" in names  # down to the root, before and after suspending


def test_inspect_stack(backend, fb):
    for names in chain(fb, backend, lambda: [f.function for f in inspect.stack()]):
        assert in_order(names, *EXPECTED, "test_inspect_stack")


def test_extract_stack(backend, fb):
    for names in chain(fb, backend, lambda: [f.name for f in traceback.extract_stack()][::-1]):
        assert in_order(names, *EXPECTED, "test_extract_stack")


def test_current_frames(backend, fb):
    ident = threading.get_ident()
    for names in chain(fb, backend, lambda: function_names(sys._current_frames()[ident])):
        assert in_order(names, *EXPECTED)


def dump():
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        text = file.read()
    return [line.rpartition(" in ")[2] for line in text.splitlines() if " in " in line]


def test_faulthandler(backend, fb):
    for names in chain(fb, backend, dump):
        assert in_order(names, *EXPECTED)


def test_faulthandler_from_another_thread(fb):
    """A dump of all threads while a fiber runs, and while it is suspended, stays readable."""
    stop = threading.Event()
    dumps = []

    def watch():
        while not stop.is_set():
            dumps.append(dump())

    def busy():
        for _ in range(100):
            fb.await_(asyncio.sleep(0))
            time.sleep(0.0003)  # lets the other thread run while this one is on a fiber

    async def main():
        await asyncio.gather(*(fb.with_portal_run_sync(busy) for _ in range(10)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        asyncio.run(main())
    finally:
        stop.set()
        thread.join()
    assert any("busy" in names for names in dumps)


def waiting_task(fb, look, aio):
    def deep_sync():
        fb.await_(asyncio.sleep(60))

    def shallow_sync():
        deep_sync()

    async def ensured():
        await fb.ensure_portal()
        shallow_sync()

    async def from_the_factory():
        shallow_sync()

    async def main():
        # (Below with_portal_run the task's own coroutine is a plain one, of which asyncio prints
        # the outermost frame only, as for every `await` chain.)
        loop = asyncio.get_running_loop()
        results = []
        for factory, start in ((None, ensured), (fb.task_factory, from_the_factory)):
            loop.set_task_factory(factory)
            task = asyncio.create_task(start())
            await asyncio.sleep(0.01)
            results.append(look(task))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return results

    return aio.run(main)


def test_print_stack_of_a_suspended_task(aio, fb):
    def look(task):
        out = io.StringIO()
        task.print_stack(file=out)
        return out.getvalue()

    for text in waiting_task(fb, look, aio):
        for name in ("shallow_sync", "deep_sync"):
            assert f"in {name}" in text, text


def test_get_stack_of_a_suspended_task(aio, fb):
    def look(task):
        return [frame.f_code.co_name for frame in task.get_stack()]

    for names in waiting_task(fb, look, aio):
        assert {"shallow_sync", "deep_sync"} <= set(names), names


def test_stacks_of_failed_tasks(aio, fb):
    def failing():
        fb.await_(asyncio.sleep(0))
        raise ValueError("x")

    async def main():
        task = asyncio.create_task(fb.with_portal_run_sync(failing))
        with pytest.raises(ValueError):
            await task
        out = io.StringIO()
        task.print_stack(file=out)
        assert "failing" in out.getvalue()

    aio.run(main)


def test_frames_of_suspended_sync_code_can_be_read(backend, fb):
    frames = []

    def worker(secret, go_on):
        frames.append(sys._getframe())
        fb.await_(go_on.wait())
        secret += 1
        return secret

    async def main():
        results = []
        go_on = backend.Event()

        async def run():
            results.append(await fb.with_portal_run_sync(worker, 41, go_on))

        async with backend.group() as group:
            group.spawn(run)
            while not frames:
                await backend.sleep(0)
            frame = frames[0]
            assert frame.f_locals["secret"] == 41
            assert frame.f_lineno > frame.f_code.co_firstlineno
            gc.collect()
            with pytest.raises(RuntimeError, match="executing frame"):
                frame.clear()
            traceback.format_stack(frame)
            go_on.set()
        assert frame.f_locals["secret"] == 42
        assert results == [42]

    backend.run(main)


def test_suspended_frames_do_not_hang_below_the_host(backend, fb):
    """A suspended fiber's bottom frame has no caller, as a suspended coroutine has none."""
    frames = []

    def worker(go_on):
        frames.append(sys._getframe())
        fb.await_(go_on.wait())

    async def main():
        go_on = backend.Event()
        async with backend.group() as group:
            group.spawn(fb.with_portal_run_sync, worker, go_on)
            while not frames:
                await backend.sleep(0)
            assert "host_function" not in function_names(frames[0])
            host_function(frames[0])
            go_on.set()

    def host_function(frame):
        assert "host_function" not in function_names(frame)
        assert "main" not in function_names(frame)

    backend.run(main)


def test_frames_outlive_their_task(backend, fb):
    def worker():
        local = "kept"
        frame = sys._getframe()
        fb.await_(backend.sleep(0))
        assert local
        return frame

    frame = backend.run(functools.partial(fb.with_portal_run_sync, worker))
    assert frame.f_locals["local"] == "kept"
    assert function_names(frame)[0] == "worker"


def test_recursion_depth_is_the_logical_one(backend, fb):
    """Depth is counted from the resumer's, and a suspension neither adds nor loses any."""

    def depth_left():
        def dig(n):
            try:
                return dig(n + 1)
            except RecursionError:
                return n

        return dig(0)

    def sync():
        first = depth_left()
        fb.await_(backend.sleep(0))
        second = depth_left()

        def nested(n):
            if n:
                return nested(n - 1)
            before = depth_left()
            fb.await_(backend.sleep(0))
            return before, depth_left()

        third, fourth = nested(50)
        return first, second, third, fourth

    async def main():
        outside = depth_left()
        values = await fb.with_portal_run_sync(sync)
        for _ in range(3):
            await backend.sleep(0)
        assert abs(depth_left() - outside) <= 2
        return outside, *values

    outside, first, second, third, fourth = backend.run(main)
    assert abs(first - second) <= 3
    assert abs(third - fourth) <= 3
    assert 45 <= first - third <= 56
    assert 0 <= outside - first < 60
