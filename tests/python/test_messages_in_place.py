"""Every message of the table, met where a program meets it. (Those of `await_` in a loop, and of what
cannot be awaited, are in test_messages.py.)"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import types

import pytest
from saying import says
from support import import_or_skip, only_fiberback, waiting_for_each_other

pytestmark = [only_fiberback, pytest.mark.sampled]


async def answer():
    await asyncio.sleep(0)
    return 42


def runs(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done


def waits_for(fb, loop):
    with fb.parent_loop(loop):
        fb.await_(answer())


def raised_in_a_thread(function):
    """The RuntimeError that `function` raises in a new thread."""
    errors = []

    def work():
        try:
            function()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, errors


# --- asyncio's two halves ----------------------------------------------------------------------------


def test_asyncio_in_two(tmp_path):
    """From 3.14 on asyncio is whole however it is imported, and so is what we do with it."""
    code = """
import _asyncio, asyncio

async def current():
    return asyncio.current_task()

try:
    import fiberback
except ImportError as error:
    assert asyncio.run(current()) is None
    print(error)
else:
    async def main():
        async with asyncio.timeout(60):
            print(fiberback.await_(asyncio.sleep(0, "works")))

    asyncio.run(main())
"""
    said = runs(code, tmp_path).stdout
    if sys.version_info < (3, 14):
        says(said, "asyncio-in-two", "import asyncio")
    else:
        assert said == "works\n"


# --- Trio ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_trio_forked(tmp_path):
    import_or_skip("trio")
    code = """
import os, fiberback, trio

async def main():
    child = os.fork()
    if child == 0:
        try:
            fiberback.await_(trio.sleep(0))
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)

trio.run(main)
"""
    says(runs(code, tmp_path).stdout, "trio-forked", '"spawn"')


def test_trio_outside_tasks(fb):
    trio = import_or_skip("trio")
    seen = []

    def callback():
        try:
            fb.await_(trio.sleep(0))
        except RuntimeError as error:
            seen.append(error)

    async def main():
        trio.lowlevel.current_trio_token().run_sync_soon(callback)
        await trio.sleep(0.01)
        # And that is the cure.
        done = trio.Event()

        def cured():
            fb.await_(trio.sleep(0))
            done.set()

        trio.lowlevel.spawn_system_task(fb.with_portal_run_sync, cured)
        await done.wait()

    trio.run(main)
    says(seen[0], "trio-no-task", "spawn_system_task")
    assert "asyncio" not in str(seen[0])


def test_a_portal_that_has_not_begun(fb, backend):
    async def main():
        fb.bestow_portal(backend.current_task())
        with pytest.raises(RuntimeError) as info:
            fb.await_(backend.sleep(0))
        says(info.value, "must-yield", f"await {backend.library}.sleep(0)")
        await backend.sleep(0)
        fb.await_(backend.sleep(0))

    if backend.name in ("asyncio", "eager"):
        pytest.skip("is for loops that cannot park: a stock loop waits without the portal")
    backend.run(main)


# --- tasks that the loop has not made --------------------------------------------------------------


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("where", ["task", "callback"])
def test_a_task_past_its_loop(fb, eager, where):
    uvloop = import_or_skip("uvloop")
    if eager and sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")
    how = {"eager_start": True} if eager else {}
    errors = []

    async def task():
        try:
            fb.await_(answer())
        except RuntimeError as error:
            errors.append(error)
        await fb.ensure_portal()  # and that is one cure
        return fb.await_(answer())

    async def other():
        await asyncio.sleep(0)
        return fb.await_(answer())

    async def main():
        loop = asyncio.get_running_loop()
        made = loop.create_future()
        make = lambda: made.set_result(asyncio.Task(task(), loop=loop, **how))  # noqa: E731
        loop.call_soon(make) if where == "callback" else make()
        assert await (await made) == 42
        says(errors[0], "task-past-loop", "uvloop.Loop", "asyncio.create_task(coro)")
        # And that is the other.
        if sys.version_info < (3, 14):
            how.clear()
        assert await asyncio.create_task(other(), **how) == 42

    fb.run(main(), loop_factory=uvloop.new_event_loop)


@pytest.mark.parametrize("where", ["task", "callback"])
def test_an_eager_task_of_a_stock_loop_needs_nothing(fb, where):
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")

    async def task():
        return fb.await_(answer())

    async def main():
        loop = asyncio.get_running_loop()
        made = []
        make = lambda: made.append(asyncio.Task(task(), loop=loop, eager_start=True))  # noqa: E731
        loop.call_soon(make) if where == "callback" else make()
        while not made:
            await asyncio.sleep(0)
        assert await made[0] == 42

    asyncio.run(main())
    fb.run(main())


# --- other libraries -------------------------------------------------------------------------------


class Curio:
    """A library that sniffio tells of, and nobody else knows."""

    def __enter__(self):
        sniffio = import_or_skip("sniffio")
        sniffio.thread_local.name = "curio"

    def __exit__(self, *_):
        import_or_skip("sniffio").thread_local.name = None


def test_another_library(fb):
    with Curio():
        with pytest.raises(RuntimeError) as info:
            fb.await_(answer())
        says(info.value, "no-portal", "curio")
        with pytest.raises(RuntimeError) as info:
            fb.ensure_portal().send(None)
        says(info.value, "unsupported-library", "curio", "with_portal_run(fn)")

        def cured():
            return fb.await_(nothing())

        async def nothing():
            return 42

        with pytest.raises(StopIteration) as done:
            fb.with_portal_run_sync(cured).send(None)
        assert done.value.value == 42


# --- circles ---------------------------------------------------------------------------------------


def test_tasks_that_wait_for_each_other(fb):
    async def main():
        done = await waiting_for_each_other(fb)
        says(done[0], "wait-cycle", "'a'", "'b'", "waits for")

    asyncio.run(main())


# --- greenlets -------------------------------------------------------------------------------------


def test_a_build_of_greenlet_that_is_not_known(tmp_path):
    """A type without the methods that greenlet's has."""
    code = """
import ctypes, types, warnings
import fiberback
from fiberback._await import in_greenlet

class greenlet:
    pass

api = (ctypes.c_void_p * 11)()
api[0] = id(greenlet)
name = ctypes.create_string_buffer(b"greenlet._C_API")
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
module = types.ModuleType("greenlet._greenlet")
module._C_API = new(ctypes.addressof(api), ctypes.addressof(name), None)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    in_greenlet._meet(module)
print(caught[0].message)
"""
    said = runs(code, tmp_path).stdout
    says(said, "greenlet-unknown")
    says(said, "greenlet-version", "greenlet>=3,<4")


def test_a_greenlet_that_waits(fb):
    greenlet = import_or_skip("greenlet")

    async def main():
        event = asyncio.Event()
        waits = greenlet.greenlet(lambda: fb.await_(event.wait()))
        task = asyncio.create_task(fb.with_portal_run_sync(waits.switch))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError) as info:
            waits.switch()
        says(info.value, "greenlet-waits", "cancel its task")
        event.set()
        return await task

    assert asyncio.run(main()) is True


def test_a_greenlet_that_is_dropped(fb):
    greenlet = import_or_skip("greenlet")
    errors = []

    def body():
        try:
            outside.switch()
        finally:
            try:
                fb.await_(asyncio.sleep(0))
            except RuntimeError as error:
                errors.append(error)

    outside = greenlet.getcurrent()

    async def main():
        nonlocal ends
        await asyncio.sleep(0)
        del ends
        gc.collect()

    ends = greenlet.greenlet(body)
    ends.switch()
    asyncio.run(fb.with_portal_run(main))
    says(errors[0], "greenlet-ends", "throw()")


def test_a_greenlet_beside_the_loop(tmp_path):
    """The loop runs in another greenlet of the thread."""
    import_or_skip("greenlet")
    code = """
import asyncio, fiberback, greenlet

async def main():
    outside.switch()
    return fiberback.await_(asyncio.sleep(0, 42))

outside = greenlet.getcurrent()
runs = greenlet.greenlet(lambda: asyncio.run(main()))
runs.switch()

def other():
    try:
        fiberback.await_(asyncio.sleep(0))
    except RuntimeError as error:
        print(error)

greenlet.greenlet(other).switch()
assert runs.switch() == 42
"""
    says(runs(code, tmp_path).stdout, "greenlet-outside", "fiberback.run(main())")


# --- parking ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_a_signal_handler_that_interrupts_the_loop_itself(fb):
    errors = []

    def handler(*_):
        try:
            fb.await_(asyncio.sleep(0))
        except RuntimeError as error:
            errors.append(error)

    async def main():
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        await asyncio.sleep(0.3)

    previous, left = signal.signal(signal.SIGALRM, handler), signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *left)
    says(errors[0], "no-callback", "loop.add_signal_handler()")


def test_a_trace_function(fb):
    errors = []

    def trace(frame, event, arg):
        if frame.f_code is watched.__code__:
            sys.settrace(None)
            try:
                fb.await_(asyncio.sleep(0))
            except RuntimeError as error:
                errors.append(error)

    def watched():
        pass

    async def main():
        sys.settrace(trace)
        try:
            watched()
        finally:
            sys.settrace(None)

    asyncio.run(main())
    says(errors[0], "in-a-tracer", "fiberback.ensure_portal()")
    errors.clear()
    fb.run(main())
    assert errors == []


def test_a_loop_that_goes_on_in_another_thread(fb):
    """A callback is parked on a stack of the thread that the loop has left."""
    loop = asyncio.new_event_loop()
    told, log = [], []
    loop.set_exception_handler(lambda loop, context: told.append(context.get("exception")))
    future = loop.create_future()

    def callback():
        fb.await_(future)
        log.append("went on")

    with fb.enable(loop):
        loop.call_soon(callback)
        loop.run_until_complete(asyncio.sleep(0.01))

        def elsewhere():
            future.set_result(None)
            loop.run_until_complete(asyncio.sleep(0.01))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        says(told[0], "parked-elsewhere", "on one thread")
        assert log == []
        with pytest.warns(RuntimeWarning):
            loop.close()


def test_a_caller_on_the_stack_that_the_loop_returns_to(fb):
    loop = asyncio.new_event_loop()
    task = loop.create_task(fb_waits(fb), name="holder")
    with pytest.warns(RuntimeWarning) as caught:
        loop.run_until_complete(asyncio.sleep(0.005))
    says(caught[0].message, "parked-at-stop", "holder", "fiberback.enable(loop)")
    assert task.cancelled()
    loop.close()


async def fb_waits(fb):
    fb.await_(asyncio.sleep(1000))


def callback_parked_on(fb, loop):
    def callback():
        try:
            fb.await_(asyncio.sleep(1000))
        except asyncio.CancelledError:
            ended.append(True)

    ended = []
    with fb.enable(loop):
        loop.call_soon(callback)
        loop.run_until_complete(asyncio.sleep(0.005))
    return ended


def test_a_loop_that_is_closed_below_a_caller(fb):
    loop = asyncio.new_event_loop()
    ended = callback_parked_on(fb, loop)
    with pytest.warns(RuntimeWarning) as caught:
        loop.close()
    says(
        caught[0].message,
        "parked-at-close",
        "a callback that waits for",
        "the event loop was closed",
    )
    assert ended == [True]


@pytest.mark.parametrize("enabled", [False, True])
def test_nothing_else_is_said_when_the_portal_of_such_a_caller_is_collected(
    fb, enabled, monkeypatch
):
    unraisable, ended = [], []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    loop = asyncio.new_event_loop()

    async def waits():
        fb.await_(asyncio.sleep(1000))

    def callback():
        try:
            fb.await_(waits())
        except asyncio.CancelledError:
            ended.append(True)

    if enabled:
        fb.enable(loop)
    loop.call_soon(callback)
    loop.call_later(0.01, loop.stop)
    with pytest.warns(RuntimeWarning):
        loop.run_forever()
        loop.close()
    gc.collect()
    assert ended == [True]
    assert [each.exc_value for each in unraisable] == []


def test_a_loop_that_is_closed_in_another_thread(tmp_path):
    code = """
import asyncio, threading, warnings, fiberback

async def waits():
    fiberback.await_(asyncio.sleep(1000))

loop = asyncio.new_event_loop()
holder = loop.create_future()

async def first():
    fiberback.await_(holder)

async def main():
    global kept
    kept = [asyncio.create_task(first()), asyncio.create_task(waits(), name="left")]
    await asyncio.sleep(0.005)
    holder.set_result(None)

def close():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
    for warning in caught:
        print(warning.message)

loop.run_until_complete(main())
thread = threading.Thread(target=close)
thread.start()
thread.join()
"""
    says(
        runs(code, tmp_path).stdout,
        "closed-elsewhere",
        "left",
        "'loop.close()' in the loop's thread",
    )


def test_tasks_of_an_unknown_layout(tmp_path):
    code = """
import asyncio, _asyncio, fiberback

class Task:
    def __init__(self, *args, **kwds):
        self._coro = args[0]

async def main():
    real, _asyncio.Task = _asyncio.Task, Task
    try:
        fiberback.await_(asyncio.sleep(0))
    except RuntimeError as error:
        print(error)
    _asyncio.Task = real
    # And that is the cure.
    await fiberback.with_portal_run_sync(lambda: fiberback.await_(asyncio.sleep(0)))

asyncio.run(main())
"""
    says(runs(code, tmp_path).stdout, "unknown-tasks", "fiberback.run(main())")


# --- threads and their loops -----------------------------------------------------------------------


def test_a_loop_that_is_not_running(fb):
    loop = asyncio.new_event_loop()
    thread, errors = raised_in_a_thread(lambda: waits_for(fb, loop))
    thread.join()
    loop.run_until_complete(asyncio.sleep(0))  # what was asked of it
    loop.close()
    says(errors[0], "loop-stopped", "fiberback.to_thread(fn)")


def test_a_loop_whose_tasks_are_ended(fb):
    """The task in which a thread's waits run is destroyed."""
    loop = asyncio.new_event_loop()
    waits = threading.Event()

    async def begun():
        waits.set()
        await asyncio.sleep(1000)

    def work():
        with fb.parent_loop(loop):
            fb.await_(begun())

    async def main():
        thread, errors = raised_in_a_thread(work)
        while not waits.is_set():
            await asyncio.sleep(0.001)
        host = next(task for task in asyncio.all_tasks() if "in a thread" in task.get_name())
        host.get_coro().close()
        while thread.is_alive():
            await asyncio.sleep(0.001)
        return errors

    loop.set_exception_handler(lambda loop, context: None)
    errors = loop.run_until_complete(main())
    loop.close()
    says(errors[0], "loop-gone", "fiberback.to_thread(fn)")


def test_a_loop_that_is_busy(fb, monkeypatch):
    from fiberback._thread import channel

    monkeypatch.setattr(channel, "_BUSY", 0.2)

    def work():
        with pytest.warns(RuntimeWarning) as caught:
            fb.await_(answer())
        return caught

    async def main():
        task = asyncio.create_task(fb.to_thread(work))
        await asyncio.sleep(0)
        time.sleep(1)
        return await task

    says(asyncio.run(main())[0].message, "loop-busy", "'MainThread'", "in main")


def test_a_loop_that_is_blocked_by_the_thread(fb):
    async def main():
        loop = asyncio.get_running_loop()
        thread, errors = raised_in_a_thread(lambda: waits_for(fb, loop))
        thread.join()
        return errors

    says(asyncio.run(main())[0], "thread-deadlock", "'MainThread'", "in main")


def test_a_portal_that_waits_in_another_thread(fb):
    from fiberback._fiberback import Portal

    async def waits():
        fb.await_(answer())

    portal = Portal(waits())

    async def main():
        portal.send(None)
        thread, errors = raised_in_a_thread(lambda: portal.send(None))
        thread.join()
        with pytest.raises(StopIteration):
            portal.send(None)
        return errors

    says(asyncio.run(main())[0], "wrong-thread", "loop.call_soon_threadsafe()")


# --- the thread's own runner -----------------------------------------------------------------------


def test_in_the_runner_with_its_loop_hidden(fb):
    errors = []

    async def main():
        loop = asyncio.get_running_loop()

        def callback():
            asyncio._set_running_loop(None)
            try:
                fb.await_(answer())
            except RuntimeError as error:
                errors.append(error)
            finally:
                asyncio._set_running_loop(loop)

        loop.call_soon(callback)
        await asyncio.sleep(0)

    with fb.thread_runner():
        fb.await_(main())
    says(errors[0], "runner-busy")


def test_closing_the_runner_in_itself(fb):
    async def closes():
        fb.close_thread_runner()

    with pytest.raises(RuntimeError) as info:
        fb.await_(closes())
    fb.close_thread_runner()
    says(info.value, "runner-close", "close_thread_runner()")


# --- tasks, loops, decorators ----------------------------------------------------------------------


def test_a_task_that_hides_its_coroutine(fb):
    class Task:
        def __init__(self, coroutine):
            self.get_coro = lambda: coroutine

    coroutine = answer()
    with pytest.raises(RuntimeError) as info:
        fb.bestow_portal(Task(coroutine))
    coroutine.close()
    says(info.value, "task-keeps-coroutine", "fiberback.task_factory")


def test_a_task_that_is_given_another_coroutine(fb):
    from fiberback import _fiberback

    class Task:
        def __init__(self):
            self.coro = answer()

    def wrap(coroutine):
        task.coro = other
        return coroutine

    task, other = Task(), answer()
    coroutine = task.coro
    with pytest.raises(RuntimeError) as info:
        _fiberback.bestow(task, wrap)
    says(info.value, "task-changed", "bestow_portal()")
    for each in (coroutine, other):
        each.close()


def test_a_portal_of_what_is_no_coroutine(fb):
    from fiberback import _fiberback

    with pytest.raises(TypeError) as info:
        _fiberback.Portal(3)
    says(info.value, "portal-what", "with_portal_run(main)")


def test_the_task_factory_called_without_arguments(fb):
    for arguments in ((), (None,)):
        with pytest.raises(TypeError) as info:
            fb.task_factory(*arguments)
        says(info.value, "factory-call", "set_task_factory(fiberback.task_factory)")


def test_a_stack_larger_than_there_is_room_for(fb):
    size = fb.get_stack_size()
    with pytest.raises(ValueError) as info:
        fb.set_stack_size(1 << 62)
    says(info.value, "stack-size", "bytes")
    assert fb.get_stack_size() == size


def test_the_native_module_alone(tmp_path):
    code = """
import asyncio, importlib.machinery, importlib.util, pathlib

folder = pathlib.Path(importlib.util.find_spec("fiberback").origin).parent
[file] = [path for path in folder.glob("_fiberback*") if path.suffix in (".so", ".pyd")]
loader = importlib.machinery.ExtensionFileLoader("_fiberback", str(file))
alone = importlib.util.module_from_spec(
    importlib.util.spec_from_file_location("_fiberback", file, loader=loader)
)
loader.exec_module(alone)
try:
    alone.await_(asyncio.sleep(0))
except RuntimeError as error:
    print(error)
"""
    says(runs(code, tmp_path).stdout, "not-loaded", "import fiberback")


def test_loops_that_cannot_be_seen_to_begin(fb, monkeypatch):
    import _asyncio

    monkeypatch.setattr(_asyncio, "_set_running_loop", lambda loop: None)
    with pytest.raises(RuntimeError) as info:
        fb.enable(everywhere=True)
    says(info.value, "loops-unseen", "fiberback.enable(loop)")


def test_no_await_for_a_generator_function(fb):
    def counts():
        yield 1

    with pytest.raises(TypeError) as info:
        fb.no_await(counts)
    says(info.value, "no-await-generator", "counts", "with fiberback.no_await():")


def test_work_that_does_not_end_with_its_run(fb, monkeypatch):
    from fiberback._run import nested

    monkeypatch.setattr(nested, "_JOIN", 0.05)
    end = threading.Event()

    async def inner():
        asyncio.get_running_loop().run_in_executor(None, end.wait)

    async def main():
        with pytest.warns(RuntimeWarning) as caught:
            fb.run(inner())
        end.set()
        return caught

    says(asyncio.run(main())[0].message, "work-left", "1 function(s)")


# --- libraries -------------------------------------------------------------------------------------


def test_another_sqlalchemy(fb, monkeypatch):
    sqlalchemy = import_or_skip("sqlalchemy")
    import fiberback.sqlalchemy

    monkeypatch.setattr(sqlalchemy, "__version__", "3.0.1")
    other = types.ModuleType("sqlalchemy.util.concurrency")
    monkeypatch.setitem(sys.modules, other.__name__, other)
    fiberback.sqlalchemy.uninstall()
    with pytest.raises(ImportError) as info:
        fiberback.sqlalchemy.install()
    says(info.value, "unknown-sqlalchemy", "3.0.1")


def test_a_driver_of_asyncio_on_trio(fb):
    trio = import_or_skip("trio")
    import_or_skip("aiosqlite")
    from fiberback.dbapi import aiosqlite

    async def main():
        with pytest.raises(RuntimeError) as info:
            aiosqlite.connect(":memory:")
        says(info.value, "driver-needs-asyncio", "trio.to_thread.run_sync(fiberback.run, main())")
        # And that is the cure.
        assert await trio.to_thread.run_sync(fb.run, work()) == (42,)
        with pytest.raises(RuntimeError) as info:
            await trio.to_thread.run_sync(aiosqlite.connect, ":memory:")
        says(info.value, "driver-needs-asyncio")

    async def work():
        connection = aiosqlite.connect(":memory:")
        try:
            return connection.execute("select 42").fetchone()
        finally:
            connection.close()

    trio.run(main)


def test_a_pool_without_a_loop():
    import_or_skip("psycopg_pool")
    from fiberback.dbapi import psycopg_pool

    with pytest.raises(RuntimeError) as info:
        psycopg_pool.ConnectionPool("dbname=none", open=True)
    says(info.value, "pool-needs-loop", "connection_class=psycopg.Connection")


DJANGO = """
import asyncio, sys
import django
from django.conf import settings

settings.configure(DATABASES={
    "default": {"ENGINE": "fiberback.django.postgresql", "NAME": "none", "HOST": "/nowhere"},
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
})
django.setup()
import fiberback
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections

def told(alias):
    try:
        connections[alias].cursor()
    except SynchronousOnlyOperation as error:
        print(error)

async def main():
    connections["default"]
    told(sys.argv[1])

if sys.argv[1] == "other":
    fiberback.run(main())
else:
    import uvloop
    uvloop.new_event_loop().run_until_complete(main())
"""


@pytest.mark.parametrize(
    ("alias", "code", "cure"),
    [
        ("other", "django-blocks", "fiberback.django.in_thread(fn, *args)"),
        ("default", "django-no-portal", "'fiberback.django.PortalMiddleware' first in MIDDLEWARE"),
    ],
)
def test_django(alias, code, cure, tmp_path):
    for name in ("django", "psycopg", "uvloop"):
        import_or_skip(name)
    done = subprocess.run(
        [sys.executable, "-c", DJANGO, alias], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    says(done.stdout, code, cure)
