"""`stacks()` and `dump()`: everything that waits, each with one whole stack."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


STRAYS = set()


@pytest.fixture(autouse=True)
def what_others_have_left(fb):
    """Tests before this one may have left something that waits in this process for ever."""
    gc.collect()
    STRAYS.clear()
    STRAYS.update(map(key, every(fb.stacks())))


def key(stack):
    return stack.kind, stack.name, stack.loop, stack.thread


def every(found):
    queue = list(found)
    for stack in queue:
        queue += stack.children
    return [stack for stack in queue if key(stack) not in STRAYS]


def named(found, name):
    [stack] = [each for each in every(found) if each.name == name]
    return stack


def functions(stack):
    return [frame.name.rpartition(".")[2] for frame in stack.frames]


async def forever(until):
    await until.wait()


def deep(fb, depth, until):
    if depth:
        return deep(fb, depth - 1, until)
    return fb.await_(forever(until))


async def settled():
    for _ in range(10):
        await asyncio.sleep(0.01)


FRAMES = ["deep", "deep", "deep", "forever", "wait"]


def test_a_suspended_task_has_one_whole_stack(aio, fb):
    async def outer(until):
        deep(fb, 2, until)

    async def main():
        until = asyncio.Event()
        await fb.ensure_portal()
        loop = asyncio.get_running_loop()
        loop.set_task_factory(fb.task_factory)
        task = asyncio.create_task(outer(until), name="waits")
        await settled()
        stack = named(fb.stacks(), "waits")
        assert functions(stack) == ["outer", *FRAMES]
        assert stack.kind == "task" and stack.state == "waiting" and stack.task is task
        assert stack.has_portal and stack.in_await and not stack.in_circle
        assert 0.03 < stack.seconds < 60
        assert stack.awaits == "Event.wait()"
        assert stack.woken_by.startswith("whoever sets asyncio.locks.Event at 0x")
        assert stack.thread == threading.current_thread().name
        assert stack.times_out_in is None
        for frame in stack.frames[:-1]:
            assert frame.filename == __file__ and frame.line
        until.set()
        await task

    aio.run(main)


def test_a_parked_task_has_one_whole_stack(fb):
    """The first one parks the stack that the loop began on, the second one a runner's."""

    async def outer(until):
        deep(fb, 2, until)

    async def main():
        until = asyncio.Event()
        tasks = [asyncio.create_task(outer(until), name=name) for name in ("first", "second")]
        await settled()
        for name in ("first", "second"):
            stack = named(fb.stacks(), name)
            assert functions(stack) == ["outer", *FRAMES], name
            assert stack.in_await and not stack.has_portal and stack.state == "waiting"
            assert 0.03 < stack.seconds < 60
            assert stack.woken_by.startswith("whoever sets")
        until.set()
        await asyncio.gather(*tasks)
        assert not [one for one in every(fb.stacks()) if one.name in ("first", "second")]

    asyncio.run(main())


def test_a_portal_below_which_a_stack_is_parked(fb):
    """A portal of another loop's task is parked with what is below it."""

    async def inner(until):
        deep(fb, 2, until)

    def below(until):
        fb.await_(inner(until))

    async def main():
        until = asyncio.Event()
        task = asyncio.create_task(fb.with_portal_run_sync(below, until), name="scoped")
        await settled()
        stack = named(fb.stacks(), "scoped")
        assert functions(stack) == ["below", "inner", *FRAMES]
        until.set()
        await task

    asyncio.run(main())


def test_a_parked_callback(fb):
    async def main():
        until = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.call_soon(deep, fb, 2, until)
        future = loop.create_future()
        loop.call_soon(fb.await_, future)
        await settled()
        callers = [one for one in every(fb.stacks()) if one.kind == "caller"]
        [stack] = [one for one in callers if one.frames]
        assert functions(stack)[:3] == FRAMES[:3]
        [child] = stack.children  # the task in which the loop runs what it awaits
        assert functions(child) == FRAMES[3:]
        [bare] = [one for one in callers if not one.frames]
        assert bare.awaits == "a Future" and bare.in_await
        until.set()
        future.set_result(None)
        await settled()

    asyncio.run(main())


@pytest.mark.parametrize("run", ["run", "asyncio"])
def test_purely_async_tasks_show_what_they_show_without_us(fb, run):
    async def level(n, until):
        await (level(n - 1, until) if n else until.wait())

    async def main():
        until = asyncio.Event()
        task = asyncio.create_task(level(2, until), name="async")
        await settled()
        stack = named(fb.stacks(), "async")
        assert functions(stack) == ["level", "level", "level", "wait"]
        assert stack.has_portal is (run == "run") and not stack.in_await
        assert (stack.seconds is None) is (run == "asyncio")
        until.set()
        await task

    (fb.run if run == "run" else asyncio.run)(main())


@pytest.mark.parametrize("how", ["to_thread", "asyncio", "parent_loop"])
def test_a_thread_that_waits(fb, how):
    async def main():
        until = asyncio.Event()
        loop = asyncio.get_running_loop()
        thread = None
        if how == "to_thread":
            work = fb.to_thread(deep, fb, 2, until)
        elif how == "asyncio":
            work = asyncio.to_thread(deep, fb, 2, until)
        else:

            def body():
                with fb.parent_loop(loop):
                    deep(fb, 2, until)

            thread = threading.Thread(target=body, name="mine")
            thread.start()
            work = until.wait()
        task = asyncio.create_task(work, name="owner")
        stack = None
        while stack is None or stack.seconds < 0.03:  # the thread begins when it can
            await asyncio.sleep(0.01)
            found = fb.stacks()
            stack = next((one for one in every(found) if one.kind == "thread"), None)
        await settled()
        found = fb.stacks()
        [stack] = [one for one in every(found) if one.kind == "thread"]
        begins = ["body"] if thread else []
        assert functions(stack) == [*begins, "deep", "deep", "deep"]
        assert stack.awaits == "forever()" and 0.03 < stack.seconds < 60
        if how == "parent_loop":
            assert stack.name == "mine" and stack in found
        else:
            [child] = named(found, "owner").children
            assert child is stack
        # What is awaited is run by a task of its own, or by the owner.
        runs = named(found, "owner") if how == "to_thread" else stack.children[0]
        assert functions(runs) == ["forever", "wait"]
        until.set()
        await task
        if thread:
            while thread.is_alive():
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_thread_without_a_loop(fb):
    until = threading.Event()

    async def poll():
        while not until.is_set():
            await asyncio.sleep(0.01)

    def body():
        fb.await_(poll())

    thread = threading.Thread(target=body, name="alone")
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            threads = [one for one in every(fb.stacks()) if one.name == "alone"]
            if threads and threads[0].children and threads[0].children[0].frames:
                break
            time.sleep(0.01)
        assert functions(threads[0]) == ["body"]
        assert functions(threads[0].children[0])[0] == "poll"
    finally:
        until.set()
        thread.join()


def test_trees_and_who_would_wake(fb):
    async def child(until):
        await until.wait()

    async def group(until):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child(until), name="in-group")
            tasks.create_task(asyncio.sleep(3600), name="timer")

    async def gathering(until):
        await asyncio.gather(child(until), asyncio.create_task(child(until), name="gathered"))

    async def timed(until):
        async with asyncio.timeout(1000):
            await child(until)

    async def awaiting(task):
        await task

    async def main():
        until = asyncio.Event()
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in {
                "group": group(until),
                "gathering": gathering(until),
                "timed": timed(until),
            }.items()
        ]
        tasks.append(asyncio.create_task(awaiting(tasks[2]), name="awaiting"))
        loop = asyncio.get_running_loop()
        held = threading.Event()
        work = loop.run_in_executor(None, held.wait)
        future = asyncio.ensure_future(asyncio.wait_for(work, None))
        future.set_name("executor")
        await settled()
        found = fb.stacks()
        assert {one.name for one in named(found, "group").children} == {"in-group", "timer"}
        assert named(found, "in-group").group.startswith("TaskGroup 0x")
        assert named(found, "timer").woken_by.startswith("a timer in 3")
        assert named(found, "gathered").group == "gather"
        assert named(found, "gathering").awaits == "gather() of 2"
        assert [one.name for one in named(found, "awaiting").children] == ["timed"]
        assert named(found, "awaiting").woken_by == "task 'timed'"
        assert 900 < named(found, "timed").times_out_in <= 1000
        assert named(found, "executor").woken_by.startswith("thread 'asyncio_")
        roots = {one.name for one in found}
        assert {"group", "gathering", "awaiting", "executor"} <= roots
        held.set()
        until.set()
        [t.cancel() for t in asyncio.all_tasks() if t.get_name() == "timer"]
        await asyncio.wait([*tasks, future])

    fb.run(main())


def test_circles_are_marked(fb):
    async def main():
        tasks = {}

        async def wait_for(name):
            await asyncio.sleep(0)
            await asyncio.wait([tasks[name]])

        # Not by await_, which would refuse it.
        tasks["a"] = asyncio.create_task(wait_for("b"), name="a")
        tasks["b"] = asyncio.create_task(wait_for("a"), name="b")
        tasks["c"] = asyncio.create_task(wait_for("a"), name="c")
        await settled()
        found = fb.stacks()
        assert {one.name for one in every(found) if one.in_circle} == {"a", "b"}
        assert len([one for one in every(found) if one.name in "abc"]) == 3
        text = fb.dump()
        assert text.count("IN A CIRCLE") == 2
        for task in tasks.values():
            task.cancel()
        await asyncio.wait(tasks.values())

    asyncio.run(main())


MISSING = "  (frames are missing: greenlet is loaded"


def test_from_another_thread(fb):
    async def outer(until):
        deep(fb, 2, until)

    async def main(parks):
        until = asyncio.Event()
        task = asyncio.create_task(outer(until), name="waits")
        await settled()
        for stack in (
            named(fb.stacks(), "waits"),
            named(await asyncio.to_thread(fb.stacks), "waits"),
        ):
            # Then the stack that it is on cannot be read; see `parking/look.rs`.
            if stack.is_whole or not parks:
                assert functions(stack) == ["outer", *FRAMES]
            else:
                assert functions(stack) == ["outer", *FRAMES[3:]]
        is_missing = MISSING in await asyncio.to_thread(fb.dump)
        assert is_missing is not stack.is_whole
        assert is_missing == bool(parks and fb.stats()["greenlet_loaded"])
        until.set()
        await task

    fb.run(main(parks=False))
    asyncio.run(main(parks=True))


def test_from_another_thread_with_greenlet(tmp_path):
    import_or_skip("greenlet")
    program = f"""
import greenlet, pytest, sys
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "{__file__}::test_from_another_thread"]))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_portals_of_other_threads_show_their_frames(fb):
    async def outer(until):
        deep(fb, 2, until)

    async def main():
        until = asyncio.Event()
        task = asyncio.create_task(outer(until), name="waits")
        await settled()

        def names():
            frame, found = task.get_coro().cr_frame, []
            while frame is not None:
                found.append(frame.f_code.co_name)
                frame = frame.f_back
            return found

        assert await asyncio.to_thread(names) == names() == ["deep", "deep", "deep", "outer"]
        until.set()
        await task

    fb.run(main())


def test_a_portal_without_a_task(fb):
    from fiberback import _fiberback

    class Yields:
        def __await__(self):
            yield "something"

    async def odd():
        fb.await_(Yields())

    portal = _fiberback.Portal(odd())
    assert portal.send(None) == "something"
    [stack] = [one for one in every(fb.stacks()) if one.kind == "fiber"]
    assert stack.name.endswith("odd") and functions(stack) == ["odd", "__await__"]
    portal.close()
    assert not [one for one in every(fb.stacks()) if one.kind == "fiber"]


def test_trio(fb):
    trio = import_or_skip("trio")

    async def outer(until):
        def sync():
            fb.await_(until.wait())

        await fb.with_portal_run_sync(sync)

    async def main():
        until = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outer, until, name="waits")
            await trio.sleep(0.05)
            found = fb.stacks()
            stack = named(found, "waits")
            assert functions(stack)[:3] == ["outer", "sync", "wait"]
            assert stack.group == "nursery" and stack.loop == "Trio" and stack.seconds > 0.01
            until.set()

    trio.run(main)


def test_uvloop(fb):
    uvloop = import_or_skip("uvloop")

    async def outer():
        deep(fb, 2, asyncio.Event())

    async def main():
        task = asyncio.create_task(outer(), name="waits")
        sleeper = asyncio.create_task(asyncio.sleep(60), name="sleeps")
        await settled()
        for found in (fb.stacks(), await asyncio.to_thread(fb.stacks)):
            assert functions(named(found, "waits")) == ["outer", *FRAMES]
            assert named(found, "sleeps").woken_by == "a timer (60 s in all)"
        for each in (task, sleeper):
            each.cancel()
        await asyncio.wait([task, sleeper])

    fb.run(main(), loop_factory=uvloop.new_event_loop)


def test_keeps_nothing_alive(fb):
    import weakref

    class Local:
        pass

    async def outer(until):
        local = Local()
        refs.append(weakref.ref(local))
        deep(fb, 2, until)

    refs = []

    async def main():
        until = asyncio.Event()
        task = asyncio.create_task(outer(until))
        await settled()
        found = fb.stacks()
        until.set()
        await task
        assert refs[0]() is None
        return [functools.partial(str, one.frames) for one in found]

    fb.run(main())
    gc.collect()


@pytest.mark.parametrize("failures", [3, 1000])
def test_tasks_that_change_while_they_are_listed(fb, monkeypatch, failures):
    """Listed again; and where that does not help, it is said, and counted."""
    all_tasks, left = asyncio.all_tasks, [failures]

    def changes(of=None):
        if of is loop and left[0]:
            left[0] -= 1
            raise RuntimeError("Set changed size during iteration")
        return all_tasks(of)

    async def main():
        nonlocal loop
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(asyncio.sleep(600), name="waits")
        await settled()
        monkeypatch.setattr(asyncio, "all_tasks", changes)
        before = fb.stats()["looks_given_up"]
        text = fb.dump()
        is_given_up = failures == 1000
        assert fb.stats()["looks_given_up"] == before + is_given_up
        assert ("(its tasks are missing" in text) is is_given_up
        assert ("task 'waits'" in text) is not is_given_up
        if is_given_up:
            [stack] = [one for one in every(fb.stacks()) if one.kind == "loop"]
            assert stack.loop == repr(loop) and not stack.is_whole
        monkeypatch.undo()
        task.cancel()

    loop = None
    asyncio.run(main())


def test_json(fb):
    async def main():
        until = asyncio.Event()
        tasks = [asyncio.create_task(forever(until), name="waits")]
        await settled()
        told = json.loads(fb.dump(format="json"))
        assert told["process"] == os.getpid()
        [one] = [each for each in told["stacks"] if each["name"] == "waits"]
        assert [frame["function"] for frame in one["frames"]] == ["forever", "Event.wait"]
        assert one["kind"] == "task" and one["children"] == [] and "task" not in one
        until.set()
        await asyncio.wait(tasks)

    fb.run(main())
    with pytest.raises(ValueError) as caught:
        fb.dump(format="xml")
    says(caught.value, "dump-format", "'xml'", 'format="json"')


def test_thousands(fb):
    """Each is looked at once: the number of frames read grows with the number of tasks, no faster."""

    async def outer(until):
        fb.await_(until.wait())

    async def chained(task):
        await task

    async def main():
        until = asyncio.Event()
        tasks = [asyncio.create_task(outer(until)) for _ in range(1000)]
        for _ in range(1000):
            tasks.append(asyncio.create_task(chained(tasks[-1])))
        await settled()
        found = fb.stacks()
        assert len(every(found)) == 2001
        assert int(re.search(r"(\d+) tasks", fb.dump()).group(1)) >= 2001
        until.set()
        await asyncio.wait(tasks)

    fb.run(main())


# --- by a signal, from outside ---------------------------------------------------------------------

HANGS = """
import asyncio, signal, sys, threading
import fiberback

def deep(n):
    if n:
        return deep(n - 1)
    fiberback.await_(asyncio.sleep(3600))

async def main():
    task = asyncio.create_task(fiberback.with_portal_run_sync(deep, 2), name="hangs")
    await asyncio.sleep(0.05)
    print("ready", flush=True)
    {main}
    await task

{before}
fiberback.run(main())
"""


class hanging:
    """A process in which a task waits for ever."""

    def __init__(self, before="", main="pass"):
        self._script = HANGS.format(before=before, main=main)

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", self._script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def read_dump(self):
        text = ""
        while text.count("\n\n") < 2:  # one after what process it is, one at the end
            line = self.process.stderr.readline()
            assert line, text
            text += line
        return text


@pytest.mark.parametrize("main", ["pass", "threading.Event().wait()", "signal.pause()"])
def test_dump_on_a_signal(main):
    """Also while the main thread is in C code."""
    with hanging("fiberback.dump_on(signal.SIGQUIT)", main) as it:
        for _ in range(2):
            it.process.send_signal(signal.SIGQUIT)
            text = it.read_dump()
            assert f"Process {it.process.pid}: 2 tasks" in text
            assert "task 'hangs', waits for sleep()" in text
        assert it.process.poll() is None


def test_dump_on_and_off(fb, tmp_path):
    path = tmp_path / "dump"
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append("before"))
    seen = []
    try:
        with open(path, "w") as file:
            end = fb.dump_on(signal.SIGUSR1, file=file, format="json")
            signal.raise_signal(signal.SIGUSR1)
            deadline = time.monotonic() + 20
            while not path.read_text().endswith("}\n") and time.monotonic() < deadline:
                time.sleep(0.01)
            assert json.loads(path.read_text())["process"] == os.getpid()
            assert not seen
            end()
            end()
        signal.raise_signal(signal.SIGUSR1)
        assert seen == ["before"]
        assert not [one for one in threading.enumerate() if one.name == "fiberback-dump"]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_dump_on_what_is_no_signal(fb):
    for wrong in ("QUIT", None, True):
        with pytest.raises(TypeError) as caught:
            fb.dump_on(wrong)
        says(caught.value, "dump-signal", "signal.SIGQUIT")
    with pytest.raises(TypeError) as caught:
        fb.dump_on(signal.SIGUSR1, file="path")
    says(caught.value, "dump-file", "'path'", "sys.stderr")
    with pytest.raises(ValueError) as caught:
        fb.dump_on(signal.SIGUSR1, format="xml")
    says(caught.value, "dump-format")
    for number in (-1, 0, 65, 1 << 70):
        with pytest.raises(ValueError) as caught:
            fb.dump_on(number)
        says(caught.value, "dump-signal", str(number))
    with pytest.raises(OSError):
        fb.dump_on(signal.SIGKILL)
    assert not [one for one in threading.enumerate() if one.name == "fiberback-dump"]


def test_dump_of_another_process(capsys):
    from fiberback.__main__ import main

    def command(*arguments):
        code = main(["dump", *arguments, str(it.process.pid)])
        said = capsys.readouterr()
        assert code == bool(said.err)
        return said.err.partition(": ")[2] if code else said.out

    with hanging("fiberback.dump_on(signal.SIGQUIT)") as it:
        pid = str(it.process.pid)
        if sys.version_info >= (3, 14):
            said = command()
            assert "task 'hangs', waits for sleep()" in said
            assert said.count("in deep") == 3
            told = json.loads(command("--format", "json"))
            assert told["process"] == it.process.pid
        else:
            says(command(), "dump-by-signal", pid, "--signal QUIT")
        assert f"SIGQUIT sent to process {pid}" in command("--signal", "QUIT")
        assert "task 'hangs'" in it.read_dump()
        says(command("--signal", "USR2"), "dump-not-caught", "SIGUSR2", pid)
        says(command("--signal", "NONE"), "dump-no-signal", "'NONE'")
        assert it.process.poll() is None


@pytest.mark.skipif(
    sys.version_info < (3, 14), reason="nothing runs code in another process before"
)
def test_a_process_without_fiberback(capsys, monkeypatch):
    from fiberback.__main__ import main
    from fiberback._see import dump_of

    # says: [fiberback:dump-not-loaded], [fiberback:dump-no-answer]
    script = "import select, time; print('ready', flush=True); WAITS"
    for waits, code in (
        ("select.epoll().poll(600)", "dump-not-loaded"),
        ("time.sleep(600)", "dump-no-answer"),  # which the kernel goes on with
    ):
        process = subprocess.Popen(
            [sys.executable, "-c", script.replace("WAITS", waits)], stdout=subprocess.PIPE
        )
        try:
            assert process.stdout.readline() == b"ready\n"
            monkeypatch.setattr(dump_of, "_GIVE_UP", 20.0 if code == "dump-not-loaded" else 0.6)
            assert main(["dump", str(process.pid)]) == 1
            said = capsys.readouterr().err
            assert str(process.pid) in said and f"[fiberback:{code}]" in said
        finally:
            process.kill()
            process.communicate()
