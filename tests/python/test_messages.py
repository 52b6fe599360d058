"""Every misuse error says what to type next in its place, and has a code; the table holds them all."""

from __future__ import annotations

import ast
import asyncio
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import threading

import pytest
from saying import says, table
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

ROOT = pathlib.Path(__file__).parents[2]


async def answer():
    await asyncio.sleep(0)
    return 42


# --- the table -------------------------------------------------------------------------------------


def test_codes_are_short_and_unlike():
    from fiberback import _messages

    messages = _messages.table()
    codes = [message.code for message in messages]
    assert len(set(codes)) == len(codes) > 40
    for message in messages:
        assert re.fullmatch(r"[a-z]+(-[a-z]+){0,2}", message.code), message.code
        assert message.text and message.cure


def test_each_message_is_raised_somewhere():
    """One that nobody raises is dead; native ones are constants, which the compiler watches."""
    from fiberback import _messages

    folder = pathlib.Path(_messages.__file__).parent
    sources = "".join(
        path.read_text() for path in folder.rglob("*.py") if path.name != "_messages.py"
    )
    for name, value in vars(_messages).items():
        if isinstance(value, _messages.Message):
            assert f"_messages.{name}" in sources, name


def test_nothing_is_raised_that_is_not_in_the_table():
    """In the rooms: a RuntimeError of ours has its words from `_messages`."""
    import fiberback

    folder = pathlib.Path(fiberback.__file__).parent
    found = []
    for path in folder.glob("_*/*.py"):
        for match in re.finditer(r'raise (?:Runtime|Type)Error\(f?["\'](.*)', path.read_text()):
            # In the words of the interpreter, whose behaviour these lines have.
            if not re.match(
                r"coroutine ignored|Event loop stopped|task factory must|.* shutdown|\{error\}",
                match[1],
            ):
                found.append(f"{path.relative_to(folder)}: {match[0]}")
    allowed = {"_await/wrappers.py"}
    assert [each for each in found if each.partition(":")[0] not in allowed] == []


def test_each_message_is_met_by_a_test():
    """By its code: `says(error, "code", ...)`, or a script that looks for "[fiberback:code]"."""
    met = set()
    for path in pathlib.Path(__file__).parent.rglob("*.py"):
        source = path.read_text()
        met.update(re.findall(r"fiberback:([a-z-]+)", source))
        for call in ast.walk(ast.parse(source)):
            if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "says":
                met.update(strings(call.args[1]))
            elif isinstance(call, ast.Call) and getattr(call.func, "attr", None) == "parametrize":
                met.update(strings(call.args[1]))  # says() is given a parameter
    assert sorted(set(table()) - met) == []


def strings(node):
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}


# --- in their places -------------------------------------------------------------------------------


def test_on_uvloop(fb):
    uvloop = import_or_skip("uvloop")

    async def main():
        for attempt in (lambda: fb.await_(answer()), lambda: fb.run(answer())):
            with pytest.raises(RuntimeError) as info:
                attempt()
            says(info.value, "loop-no-portal", "uvloop.Loop", "fiberback.enable()", "lifespan")
            assert "loop_factory=uvloop.new_event_loop)" in str(info.value)
        # And that is the cure.
        with fb.enable():
            await asyncio.sleep(0)
            assert fb.await_(answer()) == 42

    asyncio.run(main(), loop_factory=uvloop.new_event_loop) if sys.version_info >= (3, 12) else (
        uvloop.new_event_loop().run_until_complete(main())
    )


def test_in_a_callback_of_uvloop(fb):
    uvloop = import_or_skip("uvloop")
    loop = uvloop.new_event_loop()
    seen = []

    def callback():
        try:
            fb.await_(answer())
        except RuntimeError as error:
            seen.append(error)
        loop.stop()

    loop.call_soon(callback)
    loop.run_forever()
    loop.close()
    says(seen[0], "loop-no-task", "uvloop.Loop", "with_portal_run_sync")
    assert "asyncio event loop" not in str(seen[0])


def test_on_trio(fb):
    trio = import_or_skip("trio")

    async def main():
        with pytest.raises(RuntimeError) as info:
            fb.await_(trio.sleep(0))
        says(info.value, "trio-no-portal", "trio.run(fiberback.with_portal_run_tree, main)")
        assert "asyncio" not in str(info.value)

    trio.run(main)

    async def cured():
        fb.await_(trio.sleep(0))

    trio.run(fb.with_portal_run_tree, cured)


NEST = """
import asyncio, nest_asyncio, fiberback

async def answer():
    await asyncio.sleep(0)
    return 42

def refused(attempt):
    try:
        attempt()
    except RuntimeError as error:
        assert "[fiberback:nest-asyncio]" in str(error), error
        assert "no longer needed" in str(error) and "fiberback.enable()" in str(error)
    else:
        raise AssertionError("not refused")

async def main():
    nest_asyncio.apply()
    refused(lambda: fiberback.await_(answer()))
    refused(lambda: fiberback.run(answer()))
    with fiberback.enable():
        await asyncio.sleep(0)
        assert fiberback.await_(answer()) == fiberback.run(answer()) == 42

asyncio.run(main())
"""


def test_with_nest_asyncio(tmp_path):
    import_or_skip("nest_asyncio")
    done = subprocess.run(
        [sys.executable, "-c", NEST], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


GEVENT = """
from gevent import monkey

monkey.patch_all()
import asyncio, gevent, fiberback

async def answer():
    await asyncio.sleep(0.1)
    return 42

def refused():
    try:
        return fiberback.await_(answer())
    except RuntimeError as error:
        assert "[fiberback:gevent]" in str(error), error
        assert "gevent.get_hub().threadpool.apply(fiberback.await_, (x,))" in str(error)
        return "refused"

def cured():
    return gevent.get_hub().threadpool.apply(fiberback.await_, (answer(),))

def both(function):
    greenlets = [gevent.spawn(function) for _ in "12"]
    gevent.joinall(greenlets, raise_error=True)
    return {each.value for each in greenlets}

# The one that comes first has the thread to itself, so the thread's own runner serves it.
assert both(refused) == {42, "refused"}
assert both(cured) == {42}
"""


def test_in_greenlets_of_gevent(tmp_path):
    import_or_skip("gevent")
    done = subprocess.run(
        [sys.executable, "-c", GEVENT], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def anywhere(call):
    """What `call` raises without a loop, and inside one."""
    with pytest.raises(TypeError) as outside:
        call()

    async def main():
        with pytest.raises(TypeError) as inside:
            call()
        return inside.value

    return outside.value, asyncio.run(main())


def test_what_cannot_be_awaited(fb):
    for error in anywhere(lambda: fb.await_(answer)):
        says(error, "forgot-call", "object", "await_(answer())")
    coroutines = [answer(), answer()]
    for error in anywhere(lambda: fb.await_(coroutines)):
        says(error, "several-awaitables", "asyncio.gather(*awaitables)")
    for coroutine in coroutines:
        coroutine.close()
    for error in anywhere(lambda: fb.await_(concurrent.futures.Future())):
        says(error, "concurrent-future", "asyncio.wrap_future(future)")
    for error in anywhere(lambda: fb.await_(42)):
        assert "fiberback" not in str(error)  # the words of `await` are all there is to say


async def waits(value):
    await asyncio.sleep(0)
    return value


@pytest.mark.parametrize("run", ["asyncio.run", "fiberback.run"])
def test_a_result_that_is_awaited(fb, run):
    """`await fiberback.await_(x)`."""
    await_ = fb.await_

    async def plain():
        await fb.await_(waits(42))

    async def as_a_name():
        for _ in range(20):  # and as the interpreter specialises it
            with pytest.raises(TypeError):
                await await_(waits("x"))
        return await await_(waits(None))

    async def of_a_future():
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, 1.5)
        await fb.await_(future)

    async def of_a_generator():
        yield await fb.await_(waits(42))

    async def in_a_generator():
        async for _ in of_a_generator():
            pass

    async def main():
        for misuse in (plain, as_a_name, of_a_future, in_a_generator):
            with pytest.raises(TypeError) as info:
                await misuse()
            says(info.value, "already-awaited", "Leave out the 'await'")
        # What can be awaited is.
        future = asyncio.get_running_loop().create_future()
        future.set_result(7)
        assert await fb.await_(waits(future)) == 7
        assert await fb.await_(waits(waits(8))) == 8
        assert await min([waits(9)], key=lambda _: fb.await_(waits(1))) == 9
        keys = map(fb.await_, [waits(1), waits(2)])
        assert [fb.await_(waits(1)), *keys] == [1, 1, 2]
        return fb.await_(waits(42))

    assert (fb.run if run == "fiberback.run" else asyncio.run)(main()) == 42


def test_an_async_function_for_a_synchronous_one(fb, backend):
    async def main():
        with pytest.raises(TypeError) as info:
            await fb.with_portal_run_sync(answer)
        says(info.value, "async-function", "await fiberback.with_portal_run(answer, …)")

    backend.run(main)


@pytest.mark.parametrize("value", ["x", 3, asyncio])
def test_enable_what_is_no_loop(fb, value):
    with pytest.raises(TypeError) as info:
        fb.enable(value)
    says(info.value, "enable-what", repr(value), "fiberback.enable(loop)")


def test_run_what_is_no_coroutine(fb):
    with pytest.raises(TypeError) as info:
        fb.run(answer)
    says(info.value, "run-what", "fiberback.run(main())")


def test_parent_loop_of_what_is_no_loop(fb):
    with pytest.raises(TypeError) as info:
        fb.parent_loop("x")
    says(info.value, "parent-what", "asyncio.get_running_loop()")


def test_the_future_of_a_loop_that_stands_still(fb):
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    with pytest.raises(RuntimeError) as info:
        fb.await_(future)
    says(info.value, "idle-loop", repr(loop))
    future.set_result(42)
    assert fb.await_(future) == 42
    fb.close_thread_runner()
    loop.close()


def test_in_a_thread_whose_loop_is_closed(fb):
    seen = []

    def work(begin):
        begin.wait()
        try:
            fb.await_(answer())
        except RuntimeError as error:
            seen.append(error)

    begin = threading.Event()

    async def main():
        def enter():
            with fb.parent_loop(loop):
                work(begin)

        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=enter)
        thread.start()
        return thread

    thread = asyncio.run(main())
    begin.set()
    thread.join()
    says(seen[0], "loop-closed", "fiberback.to_thread(fn)")


def test_no_await_names_its_region_and_code(fb):
    with fb.no_await("transfer"), pytest.raises(RuntimeError) as info:
        fb.await_(answer())
    says(info.value, "no-await", "transfer", "Move the call out")
    with pytest.raises(TypeError) as info:
        fb.no_await(answer)
    says(info.value, "no-await-async", "answer")


def test_a_portal_outside_tasks(fb):
    with pytest.raises(RuntimeError) as info:
        fb.ensure_portal().send(None)
    says(info.value, "no-task")
    with pytest.raises((RuntimeError, TypeError)) as info:
        fb.bestow_portal(object())
    says(info.value, "not-a-task")


@pytest.mark.parametrize(
    "module, absent, extra",
    [
        ("fiberback.peewee", "peewee", "peewee"),
        ("fiberback.dbapi.psycopg", "psycopg", "psycopg"),
        ("fiberback.dbapi.psycopg_pool", "psycopg_pool", "psycopg"),
        ("fiberback.dbapi.aiosqlite", "aiosqlite", "aiosqlite"),
        ("fiberback.django", "django", "django"),
        ("fiberback.sqlalchemy", "sqlalchemy", "sqlalchemy"),
    ],
)
def test_a_missing_extra_is_named(module, absent, extra, tmp_path):
    code = f"""
import importlib.util, sys

real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {absent!r} else real(name, *rest)
try:
    import {module}
    {"fiberback.sqlalchemy.install()" if extra == "sqlalchemy" else ""}
except ImportError as error:
    assert "pip install fiberback[{extra}]" in str(error), error
    assert "[fiberback:needs-extra]" in str(error)
else:
    raise AssertionError("imported")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    extras = (ROOT / "pyext/pyproject.toml").read_text()
    assert f"\n{extra} = [" in extras
