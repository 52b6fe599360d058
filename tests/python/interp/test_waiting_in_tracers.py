"""`await_` where a trace or profile function is on the stack: at a debugger's prompt, above all.

While the one waits, the others are traced as usual; when it goes on, it is in the trace function as before.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


def watched():
    here = 1
    return here


def noticed():
    pass


async def other(log):
    for _ in range(4):
        await asyncio.sleep(0)
        noticed()
    log.append("other is done")


def in_portal(fb, main):
    return fb.run(main())


def parked(fb, main):
    return asyncio.run(main())


def in_a_parked_callback(fb, main):
    async def outer():
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def callback():
            try:
                done.set_result(fb.await_(main()))
            except BaseException as error:
                done.set_exception(error)

        loop.call_soon(callback)
        return await done

    return asyncio.run(outer())


def in_a_worker_thread(fb, main):
    async def outer():
        return await asyncio.to_thread(lambda: fb.await_(main()))

    return asyncio.run(outer())


def in_a_thread_without_loop(fb, main):
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(fb.await_(main())))
    thread.start()
    thread.join()
    return outcome.pop()


# What a callback or a thread waits for runs in a task with a portal.
WAYS = [in_portal, in_a_parked_callback, in_a_worker_thread, in_a_thread_without_loop]


class Traced:
    """sys.settrace, sys.setprofile or sys.monitoring, with a callback in which `watched` waits."""

    def __init__(self, fb, kind, wait):
        self.kind, self.wait, self.names, self.waited = kind, wait, [], 0

    def seen(self, code):
        if code is watched.__code__ and not self.waited:
            self.waited = 1
            self.wait()
            self.waited = 2
        elif code in (noticed.__code__, watched.__code__):
            self.names.append((code.co_name, self.waited))

    def trace(self, frame, event, arg):
        if event == "call":
            self.seen(frame.f_code)
        return self.trace

    def start(self, code, *_):
        self.seen(code)

    def __enter__(self):
        if self.kind == "settrace":
            sys.settrace(self.trace)
        elif self.kind == "setprofile":
            sys.setprofile(self.trace)
        else:
            monitoring = sys.monitoring
            monitoring.use_tool_id(2, "test")
            monitoring.register_callback(2, monitoring.events.PY_START, self.start)
            monitoring.set_events(2, monitoring.events.PY_START)
        return self

    def __exit__(self, *_):
        if self.kind == "settrace":
            sys.settrace(None)
        elif self.kind == "setprofile":
            sys.setprofile(None)
        else:
            sys.monitoring.set_events(2, 0)
            sys.monitoring.register_callback(2, sys.monitoring.events.PY_START, None)
            sys.monitoring.free_tool_id(2)


KINDS = ["settrace", "setprofile"] + (["monitoring"] if sys.version_info >= (3, 12) else [])


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_portal_it_is_refused(fb, kind):
    """What was interrupted may be the loop's own code, and each wait have others begin there."""
    log = []

    async def main():
        def wait():
            with pytest.raises(RuntimeError, match=r"fiberback:in-a-tracer"):
                fb.await_(asyncio.sleep(0))
            log.append("refused")

        with Traced(fb, kind, wait):
            watched()
        fb.await_(asyncio.sleep(0))  # outside of it all is as ever
        log.append("waited")

    parked(fb, main)
    assert log == ["refused", "waited"]


@pytest.mark.parametrize("run", [asyncio.run, "run"])
def test_a_trace_function_that_waits_at_every_event_comes_to_an_end(fb, run):
    outcomes = set()

    def trace(frame, event, arg):
        try:
            fb.await_(asyncio.sleep(0))
            outcomes.add("waited")
        except RuntimeError:
            outcomes.add("refused")
        return trace

    async def main():
        await other([])
        sys.settrace(trace)
        try:
            watched()
            await other([])
        finally:
            sys.settrace(None)
        await other([])

    (fb.run if run == "run" else run)(main())
    assert outcomes == ({"waited", "refused"} if run == "run" else {"refused"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_the_others_are_traced_meanwhile(fb, way, kind):
    log = []

    async def main():
        task = asyncio.create_task(other(log))

        def wait():
            fb.await_(asyncio.sleep(0.005))
            fb.await_(asyncio.gather(task))
            log.append("waited")

        with Traced(fb, kind, wait) as traced:
            watched()
            watched()
            before = len(traced.names)
            noticed()
            assert len(traced.names) > before  # tracing goes on after
        await task
        return traced.names

    names = way(fb, main)
    assert log == ["other is done", "waited"]
    assert names.count(("noticed", 1)) >= 4, names  # while the other was in its trace function
    assert ("watched", 2) in names


@pytest.mark.parametrize("kind", KINDS)
def test_many_wait_in_tracers_at_once(fb, kind):
    """Each in its own, done in another order than begun; none is traced within its own."""
    order = []

    def work(n, kind):
        def wait():
            noticed()  # not seen: we are in a tracer
            fb.await_(turns[n].wait())
            noticed()
            order.append(n)
            turns[n - 1].set()  # the last one's sets one that nobody waits for any more

        return Traced(fb, kind, wait)

    async def task(n, traced):
        # settrace is the thread's: the last one to set it is called for all.
        one = current.setdefault("traced", traced)
        one.waited, one.wait = 0, traced.wait
        watched()

    current, turns = {}, []

    async def main():
        turns.extend(asyncio.Event() for _ in range(5))
        with work(0, kind) as traced:
            current["traced"] = traced
            tasks = [asyncio.create_task(task(n, work(n, kind))) for n in range(5)]
            await asyncio.sleep(0)
            turns[4].set()
            await asyncio.gather(*tasks)
            names = list(traced.names)
        return names

    names = fb.run(main())
    assert order == [4, 3, 2, 1, 0]
    assert not [name for name, _ in names if name == "noticed"]


@pytest.mark.parametrize("run", [asyncio.run, "run"])
def test_a_loop_begun_in_a_trace_function_stays_untraced(fb, run):
    """`p asyncio.run(main())` at a prompt: its own callbacks are within the trace function."""
    run = fb.run if run == "run" else run
    log, names = [], []

    async def main():
        task = asyncio.create_task(other(log))
        fb.await_(asyncio.sleep(0.002))
        fb.await_(asyncio.gather(task))

    def trace(frame, event, arg):
        names.append(frame.f_code.co_name)
        if frame.f_code is watched.__code__ and not log:
            run(main())
            log.append("ran")
        return None

    sys.settrace(trace)
    try:
        watched()
        noticed()
    finally:
        sys.settrace(None)
    assert log == ["other is done", "ran"]
    assert names.count("noticed") == 1  # ours, after


def test_exceptions_and_cancellation_in_a_trace_function(fb):
    async def fails():
        await asyncio.sleep(0)
        raise LookupError("from the awaited")

    caught = []

    async def main():
        def wait():
            try:
                fb.await_(fails())
            except LookupError as error:
                caught.append(error)
            fb.await_(asyncio.sleep(60))

        async def traced():
            with Traced(fb, "settrace", wait):
                try:
                    watched()
                finally:
                    caught.append(sys.gettrace())  # an exception takes the trace function away

        task = asyncio.create_task(traced())
        await asyncio.sleep(0.01)
        assert caught and task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    fb.run(main())
    assert isinstance(caught[0], LookupError) and caught[1] is None
    assert sys.gettrace() is None


PROGRAM = """
import asyncio, pdb, sys
import fiberback

log = []

async def value():
    before = len(log)
    while len(log) < before + 2:  # the loop goes on
        await asyncio.sleep(0.001)
    return 6 * 7

async def ticker():
    while True:
        await asyncio.sleep(0.001)
        log.append("tick")

def sync():
    step = 1
    breakpoint()
    step = 2
    step = 3
    return step

async def main():
    task = asyncio.create_task(ticker())
    assert sync() == 3
    task.cancel()
    print("ticks", len(log) > 3)

RUN(main())
print("end")
"""


def session(run, commands, tmp_path, **how):
    script = tmp_path / "debugged.py"
    script.write_text(PROGRAM.replace("RUN", run))
    return subprocess.run(
        [sys.executable, str(script)],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ, PYTHONBREAKPOINT="pdb.set_trace", **how),
    )


@pytest.mark.parametrize("run", ["asyncio.run", "fiberback.run"])
def test_at_a_pdb_prompt(run, tmp_path):
    commands = ["p fiberback.await_(value())", "n", "p fiberback.await_(value()) + 1"]
    commands += ["x = fiberback.await_(value()) + 2", "p x", "p step", "n", "p step", "c"]
    done = session(run, commands, tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("42", "43", "44", "ticks True", "end"):
        assert text in done.stdout, done.stdout + done.stderr
    assert "Error" not in done.stdout, done.stdout


CALLBACK = """
def in_a_callback():
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(lambda: done.set_result(CALL))
    return fiberback.await_(done)
"""


@pytest.mark.parametrize("run", ["asyncio.run", "fiberback.run", "callback"])
def test_at_a_pdb_prompt_in_a_greenlet(run, tmp_path):
    """The stack that has switched to the greenlet waits, and is not the one with the prompt on it."""
    import_or_skip("greenlet")
    commands = [
        "p fiberback.await_(value())",
        "p step",
        "n",
        "x = fiberback.await_(value()) + 2",
        "p x",
    ]
    commands += ["p fiberback.await_(asyncio.ensure_future(value())) + 3", "p step", "c"]
    in_greenlet = call = "__import__('greenlet').greenlet(sync).switch()"
    program = PROGRAM
    if run == "callback":
        run, call = "asyncio.run", "in_a_callback()"
        program = program.replace(
            "async def main", f"{CALLBACK.replace('CALL', in_greenlet)}\nasync def main"
        )
    script = tmp_path / "debugged.py"
    script.write_text(program.replace("RUN", run).replace("sync() == 3", f"{call} == 3"))
    done = subprocess.run(
        [sys.executable, str(script)],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ, PYTHONBREAKPOINT="pdb.set_trace"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("42", "44", "45", "ticks True", "end"):
        assert text in done.stdout, done.stdout + done.stderr
    assert "Error" not in done.stdout, done.stdout
    assert "asyncio/base_events.py" not in done.stdout, "it has stopped in the loop's own code"


@pytest.mark.parametrize("run", ["asyncio.run", "fiberback.run"])
def test_jump_after_a_wait_at_the_prompt(run, tmp_path):
    """The event that the prompt is for is the fiber's, too: `jump` looks at it."""
    commands = ["n", "p fiberback.await_(value())", "jump 17", "p step", "c"]
    line = PROGRAM.splitlines().index("    breakpoint()") + 3
    commands[2] = f"jump {line}"
    done = session(run, commands, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Jump failed" not in done.stdout and "end" in done.stdout, done.stdout


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_at_a_prompt_in_a_terminal(tmp_path):
    script = tmp_path / "debugged.py"
    script.write_text(PROGRAM.replace("RUN", "fiberback.run"))
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, b"p fiberback.await_(value())\nc\n")
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:
        pass  # the other side is closed
    os.close(ours)
    assert process.wait(30) == 0, shown.decode()
    assert b"42" in shown and b"end" in shown, shown.decode()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
@pytest.mark.parametrize("run", ["asyncio.run", "fiberback.run"])
def test_coverage_beside_it(run, tmp_path):
    """Lines of tasks that wait and of those that run meanwhile are all counted."""
    import_or_skip("coverage")
    script = tmp_path / "covered.py"
    source = PROGRAM.replace("RUN", run).replace(
        "breakpoint()", "log.append(fiberback.await_(value()))"
    )
    script.write_text(source)
    env = dict(os.environ, COVERAGE_CORE="sysmon", COVERAGE_FILE=str(tmp_path / "data"))
    for command in (["run", str(script)], ["report", "-m"]):
        done = subprocess.run(
            [sys.executable, "-m", "coverage", *command],
            capture_output=True,
            text=True,
            env=env,
            cwd=tmp_path,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("covered.py"))
    assert line.split()[3] == "100%", done.stdout


def test_profile_of_a_wait_in_a_profile_function(fb):
    """cProfile in one task while another one's own profile function waits."""
    import cProfile
    import pstats

    async def main():
        profiler = cProfile.Profile()

        def wait():
            fb.await_(asyncio.sleep(0.002))

        async def profiled():
            await asyncio.sleep(0.001)
            if sys.version_info >= (3, 12):
                return  # one profiler at a time: it is a tool of sys.monitoring
            profiler.enable()
            noticed()
            profiler.disable()

        task = asyncio.create_task(profiled())
        with Traced(fb, "setprofile", wait) as traced:
            watched()
        await task
        assert traced.waited == 2
        if sys.version_info < (3, 12):
            assert any(key[2] == "noticed" for key in pstats.Stats(profiler).stats)

    fb.run(main())


def test_nothing_is_left_of_it(fb):
    """A hundred waits in trace functions later, the thread is traced as before, and none leaks."""
    source = textwrap.dedent("""
        def body():
            return 1
    """)
    space: dict = {}
    exec(source, space)

    async def main():
        for _ in range(100):
            with Traced(fb, "settrace", lambda: fb.await_(asyncio.sleep(0))) as traced:
                watched()
                watched()
                assert ("watched", 2) in traced.names

    before = fb.stats()["stacks_leaked"]
    fb.run(main())
    assert fb.stats()["stacks_leaked"] == before
