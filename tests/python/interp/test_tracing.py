"""settrace, setprofile, sys.monitoring and cProfile see one ordinary call stack."""

from __future__ import annotations

import asyncio
import cProfile
import functools
import pstats
import sys
import threading

import pytest


def in_portal(backend, fb, sync_fn, *args):
    return backend.run(functools.partial(fb.with_portal_run_sync, sync_fn, *args))


async def leaf(backend):
    await backend.sleep(0)
    x = 1
    return x


def caller(fb, backend):
    before = 1
    fb.await_(leaf(backend))
    after = 2
    return before + after


def outer(fb, backend):
    return caller(fb, backend) + caller(fb, backend)


WATCHED = ("leaf", "caller", "outer")


def test_settrace_sees_calls_lines_and_returns(backend, fb):
    events = []

    def trace(frame, event, arg):
        if frame.f_code.co_name in WATCHED:
            events.append((frame.f_code.co_name, event))
            return trace
        return trace if frame.f_code.co_filename == __file__ else None

    def sync():
        return outer(fb, backend)

    sys.settrace(trace)
    try:
        in_portal(backend, fb, sync)
    finally:
        sys.settrace(None)
    calls = [name for name, event in events if event == "call"]
    # A coroutine's resumption is a call event of its own, as with native await.
    assert calls[:3] == ["outer", "caller", "leaf"]
    assert calls.count("outer") == 1
    assert calls.count("caller") == 2
    assert calls.count("leaf") == 4
    returns = [name for name, event in events if event == "return"]
    assert returns.count("outer") == 1 and returns.count("caller") == 2
    assert returns.count("leaf") == 4
    assert sum(1 for name, event in events if (name, event) == ("caller", "line")) == 8


def test_settrace_turned_on_inside_a_portal(backend, fb):
    events = []

    def trace(frame, event, arg):
        if frame.f_code.co_name in WATCHED:
            events.append((frame.f_code.co_name, event))
            return trace
        return None

    def sync():
        fb.await_(backend.sleep(0))
        sys.settrace(trace)
        try:
            outer(fb, backend)
        finally:
            sys.settrace(None)
        fb.await_(backend.sleep(0))

    in_portal(backend, fb, sync)
    assert ("outer", "call") in events and ("outer", "return") in events
    assert events.count(("caller", "call")) == 2


def test_settrace_left_on_across_a_suspension(backend, fb):
    """Tracing is the thread's, not the task's: other tasks see it, as natively."""
    seen = set()

    def trace(frame, event, arg):
        seen.add(frame.f_code.co_name)
        return None

    def other_work():
        pass

    async def other():
        for _ in range(3):
            await backend.sleep(0)
            other_work()

    def sync():
        sys.settrace(trace)
        for _ in range(4):
            fb.await_(backend.sleep(0))
        sys.settrace(None)

    async def main():
        async with backend.group() as group:
            group.spawn(fb.with_portal_run_sync, sync)
            group.spawn(other)

    try:
        backend.run(main)
    finally:
        sys.settrace(None)
    assert "other_work" in seen


def test_setprofile_balances(backend, fb):
    depth = {}
    worst = []

    def profile(frame, event, arg):
        name = frame.f_code.co_name
        if name not in ("caller", "outer"):
            return
        if event == "call":
            depth[name] = depth.get(name, 0) + 1
        elif event == "return":
            depth[name] -= 1
            worst.append(depth[name])

    def sync():
        return outer(fb, backend)

    sys.setprofile(profile)
    try:
        in_portal(backend, fb, sync)
    finally:
        sys.setprofile(None)
    assert depth == {"caller": 0, "outer": 0}
    # A call returns when it is suspended, and is called again, as a generator's.
    assert worst == [0] * (3 + 2 + 2)


def test_cprofile_counts_each_function(backend, fb):
    profiler = cProfile.Profile()

    def sync():
        for _ in range(10):
            outer(fb, backend)

    async def main():
        async with backend.group() as group:
            for _ in range(5):
                group.spawn(fb.with_portal_run_sync, sync)

    profiler.enable()
    try:
        backend.run(main)
    finally:
        profiler.disable()
    stats = pstats.Stats(profiler).stats
    counts = {key[2]: value[1] for key, value in stats.items() if key[0] == __file__}
    # Once more for each time that it was suspended, as with the native one.
    assert counts["outer"] == 50 * (1 + 2)
    assert counts["caller"] == 100 * (1 + 1)
    assert counts["leaf"] == 100 * (1 + 1)


def test_cprofile_inside_a_portal(backend, fb):
    def sync():
        profiler = cProfile.Profile()
        profiler.enable()
        fb.await_(leaf(backend))
        caller(fb, backend)
        profiler.disable()
        names = {key[2] for key in pstats.Stats(profiler).stats}
        assert {"leaf", "caller"} <= names

    in_portal(backend, fb, sync)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
def test_monitoring_events_balance(backend, fb):
    monitoring = sys.monitoring
    tool = monitoring.PROFILER_ID
    counts: dict = {}

    def count(event):
        def callback(code, *args):
            if code.co_name in WATCHED:
                key = (code.co_name, event)
                counts[key] = counts.get(key, 0) + 1

        return callback

    events = monitoring.events
    wanted = ("PY_START", "PY_RETURN", "PY_YIELD", "PY_RESUME", "PY_UNWIND")
    monitoring.use_tool_id(tool, "fiberback test")
    try:
        mask = 0
        for name in wanted:
            number = getattr(events, name)
            monitoring.register_callback(tool, number, count(name))
            mask |= number
        monitoring.set_events(tool, mask)

        def sync():
            return outer(fb, backend)

        in_portal(backend, fb, sync)
    finally:
        monitoring.set_events(tool, 0)
        for name in wanted:
            monitoring.register_callback(tool, getattr(events, name), None)
        monitoring.free_tool_id(tool)
    assert counts[("outer", "PY_START")] == counts[("outer", "PY_RETURN")] == 1
    assert counts[("caller", "PY_START")] == counts[("caller", "PY_RETURN")] == 2
    assert counts[("leaf", "PY_START")] == counts[("leaf", "PY_RETURN")] == 2
    assert counts[("leaf", "PY_YIELD")] == counts[("leaf", "PY_RESUME")] == 2
    assert ("caller", "PY_UNWIND") not in counts


def test_profile_function_of_threads(fb):
    """threading.setprofile together with portals in threads."""
    names = set()

    def profile(frame, event, arg):
        names.add(frame.f_code.co_name)

    def in_thread():
        async def main():
            await fb.ensure_portal()
            fb.await_(asyncio.sleep(0))
            named_work()

        def named_work():
            fb.await_(asyncio.sleep(0))

        asyncio.run(main())
        sys.setprofile(None)  # or its events stay on, beyond the end of the thread

    threading.setprofile(profile)
    try:
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
    finally:
        threading.setprofile(None)
    assert "named_work" in names


def test_tracer_switched_off_in_another_task(backend, fb):
    """Tracing starts while one task is suspended and stops while it is suspended again."""
    calls = []

    def trace(frame, event, arg):
        calls.append(frame.f_code.co_name)
        return None

    def worker():
        for _ in range(6):
            fb.await_(leaf(backend))

    async def controller():
        await backend.sleep(0)
        sys.settrace(trace)
        await backend.sleep(0)
        await backend.sleep(0)
        sys.settrace(None)

    async def main():
        async with backend.group() as group:
            group.spawn(fb.with_portal_run_sync, worker)
            group.spawn(controller)

    try:
        backend.run(main)
    finally:
        sys.settrace(None)
    assert "leaf" in calls
