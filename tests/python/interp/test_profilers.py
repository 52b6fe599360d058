"""Profilers are told of switches as of a generator's: each call that begins ends before what called it does."""

from __future__ import annotations

import asyncio
import contextvars
import pathlib
import subprocess
import sys
import textwrap
import time

import fiberback
import pytest
from support import only_fiberback

pytestmark = only_fiberback


def busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def turn():
    await asyncio.sleep(0)


def wait():
    fiberback.await_(turn())


def by_key(_):
    wait()
    return 0


def through_c():
    sorted([2, 1], key=by_key)
    contextvars.copy_context().run(wait)


def caller():
    wait()
    through_c()


async def two(task_of):
    async with asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(task_of(name))


def on_portals(fn):
    async def task_of(_):
        await fiberback.with_portal_run_sync(fn)

    asyncio.run(two(task_of))


def on_portals_of_run(fn):
    async def task_of(_):
        fn()

    fiberback.run(two(task_of))


def parked(fn):
    async def task_of(_):
        fn()

    asyncio.run(two(task_of))


def in_threads(fn):
    async def task_of(_):
        await asyncio.to_thread(fn)

    fiberback.run(two(task_of))


WAYS = {"portal": on_portals, "run": on_portals_of_run, "parked": parked}
ways = pytest.mark.parametrize("way", list(WAYS.values()), ids=list(WAYS))


class Stack:
    """A profile function: its stack of calls, and what has ended that was not the innermost."""

    def __init__(self):
        self.calls, self.wrong, self.ends = [], [], 0
        self.seen = []

    def __call__(self, frame, event, arg):
        what = frame if event in ("call", "return") else arg
        if frame.f_code.co_filename == __file__:
            self.seen.append((event, frame.f_code.co_name))
        if event in ("call", "c_call"):
            self.calls.append(what)
        elif self.calls:
            if self.calls[-1] is what or event.startswith("c_") and self.calls[-1] == what:
                self.calls.pop()
                self.ends += 1
            else:
                self.wrong.append((event, what, self.calls[-1]))


@ways
def test_what_setprofile_is_told_is_a_stack(way):
    stack = Stack()
    sys.setprofile(stack)
    try:
        way(caller)
    finally:
        sys.setprofile(None)
    assert not stack.wrong
    assert stack.ends > 20
    assert stack.seen.count(("call", "caller")) == stack.seen.count(("return", "caller"))


@ways
def test_a_suspended_frame_returns_and_is_called_again_as_a_generators(way):
    """Once more for each suspension."""
    events = []

    def profile(frame, event, arg):
        if frame.f_code.co_filename == __file__ and event in ("call", "return"):
            events.append((event, frame.f_code.co_name))

    def one_wait():
        wait()

    sys.setprofile(profile)
    try:
        way(one_wait)
    finally:
        sys.setprofile(None)
    for name in ("one_wait", "wait", "turn"):  # `turn` is native
        calls = events.count(("call", name))
        assert calls == events.count(("return", name)) == 4, name
    first = events.index(("call", "turn"))
    assert events[first : first + 4] == [
        ("call", "turn"),
        ("return", "turn"),
        ("return", "wait"),
        ("return", "one_wait"),
    ]


@ways
def test_setprofile_inside(way):
    """Set by the code that waits."""
    stacks = []

    def fn():
        stack = Stack()
        stacks.append(stack)
        if len(stacks) == 1:
            sys.setprofile(stack)
        caller()
        caller()
        if len(stacks) == 2:
            sys.setprofile(None)

    try:
        way(fn)
    finally:
        sys.setprofile(None)
    assert not [wrong for wrong in stacks[0].wrong if wrong[0] in ("call", "return")]
    assert stacks[0].ends > 20


@ways
def test_setprofile_comes_while_everybody_waits(way):
    events = []
    begun = []

    def profile(frame, event, arg):
        if frame.f_code is fn.__code__ and event in ("call", "return"):
            events.append(event)

    def fn():
        begun.append(None)
        wait()
        if len(begun) == 2 and sys.getprofile() is None:
            sys.setprofile(profile)
        wait()
        wait()

    try:
        way(fn)
    finally:
        sys.setprofile(None)
    assert events.count("return") >= 4
    # Of the one that has set it the first call is not seen.
    assert events.count("return") - events.count("call") == 1


def test_getprofile_is_what_was_set():
    stack = Stack()
    sys.setprofile(stack)
    try:
        on_portals(caller)
        found = sys.getprofile()
    finally:
        sys.setprofile(None)
    assert found is stack


@ways
def test_what_a_profile_function_raises_is_reported(way, monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: reported.append(args.exc_value))
    is_at = []

    def profile(frame, event, arg):
        if is_at and event == "return" and frame.f_code is wait.__code__:
            raise ZeroDivisionError

    def fn():
        is_at.append(None)
        wait()
        return "done"

    sys.setprofile(profile)
    try:
        way(fn)
    finally:
        sys.setprofile(None)
    assert [type(error) for error in reported] == [ZeroDivisionError]


ENDS = textwrap.dedent(
    """\
    import asyncio, resource, sys
    import fiberback

    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))  # where this would go on for ever


    def profile(frame, event, argument):
        if event == "return" and frame.f_code is by_key.__code__:
            sys.setprofile(None)


    def by_key(number):
        return fiberback.await_(asyncio.sleep(0, number))


    def fn():
        fiberback.await_(asyncio.sleep(0))
        return sorted([2, 1], key=by_key)


    async def main(how):
        sys.setprofile(profile)
        if how == "portal":
            found = await fiberback.with_portal_run_sync(fn)
        else:
            found = fn()
        assert found == [1, 2] and sys.getprofile() is None
        print("done")


    asyncio.run(main(sys.argv[1]))
    """
)


@pytest.mark.parametrize("how", ["portal", "parked"])
def test_a_profile_function_may_take_itself_away_in_the_middle_of_a_switch(tmp_path, how):
    """While the caller of what has returned is in a C function, which nobody is told of any more."""
    command = [sys.executable, "-c", ENDS, how]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_profile_function_cannot_wait_while_it_is_told_of_a_switch():
    refused = []

    def profile(frame, event, arg):
        if event == "return" and frame.f_code is wait.__code__ and not refused:
            try:
                fiberback.await_(asyncio.sleep(0))
            except RuntimeError as error:
                refused.append(str(error))

    sys.setprofile(profile)
    try:
        on_portals(wait)
    finally:
        sys.setprofile(None)
    assert len(refused) == 1
    assert "[fiberback:told-of-switch]" in refused[0]


def test_cprofile():
    """In a process of its own: from 3.12 on it takes what any thread calls for its own thread's, and pytest's
    workers have others."""
    file = pathlib.Path(__file__).with_name("cprofile_alone.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, "--rootdir", str(file.parents[1]), str(file)],
        capture_output=True,
        text=True,
        cwd=file.parents[1],
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
@ways
def test_monitoring_of_another_profiler(way):
    """What a tool with the id of profilers is told of frames is a stack, too; of other tools nothing is made up."""
    monitoring, events = sys.monitoring, sys.monitoring.events
    stacks = {monitoring.PROFILER_ID: [], monitoring.OPTIMIZER_ID: []}
    wrong = []
    counts = {}
    begin = ("PY_START", "PY_RESUME", "PY_THROW")
    end = ("PY_RETURN", "PY_YIELD", "PY_UNWIND")

    def told(tool, name):
        def callback(code, *_):
            if code.co_filename != __file__:
                return
            counts[tool, name, code.co_name] = counts.get((tool, name, code.co_name), 0) + 1
            if tool != monitoring.PROFILER_ID:
                return
            if name in begin:
                stacks[tool].append(code)
            elif stacks[tool] and stacks[tool].pop() is not code:
                wrong.append((name, code))

        return callback

    try:
        for tool in stacks:
            monitoring.use_tool_id(tool, f"fiberback test {tool}")
            mask = 0
            for name in begin + end:
                number = getattr(events, name)
                monitoring.register_callback(tool, number, told(tool, name))
                mask |= number
            monitoring.set_events(tool, mask)
        way(caller)
    finally:
        for tool in stacks:
            monitoring.set_events(tool, 0)
            monitoring.free_tool_id(tool)
    assert not wrong
    assert counts[monitoring.PROFILER_ID, "PY_YIELD", "caller"] == 2 * 4
    assert counts[monitoring.PROFILER_ID, "PY_RESUME", "caller"] == 2 * 4
    assert (monitoring.OPTIMIZER_ID, "PY_YIELD", "caller") not in counts
    assert counts[monitoring.OPTIMIZER_ID, "PY_RETURN", "caller"] == 2
