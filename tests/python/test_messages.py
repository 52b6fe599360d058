"""Every misuse error says what to type next in its place, and has a code; the table holds them all."""

from __future__ import annotations

import ast
import asyncio
import concurrent.futures
import functools
import os
import pathlib
import re
import subprocess
import sys
import threading

import pytest
from saying import says, table
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

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


def test_sentences_begin_as_sentences():
    """Those of this package's Python half; native ones, and what extensions say, put a colon before the cure."""
    from fiberback import _messages

    for message in vars(_messages).values():
        if isinstance(message, _messages.Message) and not message.code.startswith("extension-"):
            assert not message.cure[0].islower(), message


def test_each_message_is_raised_somewhere():
    """One that nobody raises is dead; native ones are constants, which the compiler watches."""
    from fiberback import _messages

    folder = pathlib.Path(_messages.__file__).parent
    sources = "".join(
        path.read_text() for path in folder.rglob("*.py") if path.name != "_messages.py"
    )
    crate = (ROOT / "pyext/fiberback-pyo3/src/api.rs").read_text()
    for name, value in vars(_messages).items():
        if isinstance(value, _messages.Message):
            assert f"_messages.{name}" in sources or f"[fiberback:{value.code}]" in crate, name


# Texts that are not in the table: those of what we stand in for, in its words. Each is the beginning of a text
# that is raised, up to its first field.
IN_THE_WORDS_OF = {
    "socket": ["timed out"],
    "select": ["cannot create 'select.poll' instances"],
    "the interpreter": (
        "'async_iter' re",
        "'async_exit_stack",
        "object ",
        "module ",
        "'",
        "__await__() returned ",
        "%T.__await__() must return an iterator, not %T",
        "coroutine already executing",
        "coroutine ignored GeneratorExit",
        "coroutine raised StopIteration",
        "coroutine is being awaited already",
        "cannot reuse already awaited coroutine",
        "can't send non-None value to a just-started coroutine",
        "throw expected 1 to 3 arguments, got ",
        "throw() third argument must be a traceback object",
        "instance exception may not have a separate value",
        "exceptions must be classes or instances deriving from BaseException, not ",
        "calling the exception class did not give an exception",
        "await_() takes exactly one argument (",
    ),
    "asyncio": (
        "task factory must be a callable or None",
        "a task factory must be a callable or None",
        "Event loop stopped before Future completed.",
    ),
    "concurrent.futures": ("cannot schedule new futures after shutdown",),
    "threading": ("release unlocked lock", "cannot release un-acquired lock"),
    "sqlite3": ("Cannot operate on a closed database.", "Cannot operate on a closed cursor."),
    "SQLAlchemy": ("the greenlet library is required to use this function.",),
    "greenback": (
        "unknown async library, or not in async context",
        "greenback does not support ",
        "No asyncio task is running",
    ),
    "greenlet": (
        "cannot serialize '%s' object",
        "cannot switch to a different thread (which happens to have exited)",
        "Cannot switch to a different thread",
        "Cannot delete force_switch_error",
        "GreenletChecker: Expected any type of greenlet, not %s",
        "__dict__ may not be deleted",
        "__dict__ must be a dictionary",
        "can't delete attribute",
        "can't delete context attribute",
        "cannot get context of a greenlet that is running in a different thread",
        "cannot set context of a greenlet that is running in a different thread",
        "cannot set the parent of a main greenlet",
        "cyclic parent chain",
        "exceptions must be classes, or instances, not %s",
        "greenlet context must be a contextvars.Context or None",
        "greenlet is being finalized",
        "parent cannot be on a different thread",
        "parent must not be garbage collected",
        "run cannot be set after the start of the greenlet",
    ),
    "Django": (
        "no event loop that this call would block",
        "Pooling doesn't support persistent connections.",
        "Error loading psycopg_pool module.",
    ),
    "the native module, to the package or itself alone": (
        "fiberback's self-check",
        "zero bytes were replaced",
        "set_parking() takes ",
        "set_hooks() takes ",
        "set_hooks(): ",
        "bestow() takes ",
        "call_masked() needs ",
        "locals_of() takes ",
        "suspended_lines() takes ",
        "write_on_signal() takes ",
        "sys._current_frames() is not there",
    ),
}


def is_in_words_of_others(text):
    return any(text.startswith(words) for group in IN_THE_WORDS_OF.values() for words in group)


def beginning(node):
    """The words that a text begins with, if its source has them; of a call, those of its object."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return beginning(node.values[0])
    if isinstance(node, ast.BinOp):
        return beginning(node.left)
    return None


def test_nothing_is_raised_that_is_not_in_the_table():
    """Whatever is raised or warned of with words of its own is in the words of somebody else."""
    import fiberback

    folder = pathlib.Path(fiberback.__file__).parent
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                texts = node.exc.args
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "warn":
                texts = node.args
            else:
                continue
            words = beginning(texts[0]) if texts else None
            if words is not None and not is_in_words_of_others(words):
                found.append(f"{path.relative_to(folder)}:{node.lineno}: {words}")
    assert found == []


def test_nothing_native_is_raised_that_is_not_in_the_table():
    """The same of the Rust sources: each text beside what sets an error or warns."""
    known, found, seen = table(), [], 0
    sources = [*ROOT.glob("pyext/src/**/*.rs"), *ROOT.glob("pyext/fiberback-pyo3/src/*.rs")]
    sources += ROOT.glob("pyext/python/fiberback/include/*.h")
    # (What `unlike::set` is given becomes part of a message of the table.)
    sets = r"(?:(?<!unlike::)\bset|set_runtime|set_type|new_err|SetString|PyErr_Format|PyErr_WarnEx|PyErr_WarnFormat)"
    text = r'c?"((?:[^"\\]|\\.)*)"(?:\s*"((?:[^"\\]|\\.)*)")*'
    for path in sources:
        for call in re.finditer(sets + r"\s*\(", path.read_text()):
            source = path.read_text()[call.end() :]
            arguments = source[: source.find(";")]
            seen += 1
            for match in re.finditer(text, arguments):
                words = re.sub(r'\\\n\s*|"\s+"', "", match[0].removeprefix("c")[1:-1])
                code = re.search(r"\[fiberback:([a-z-]+)\]", words)
                if code is not None:
                    assert code[1] in known, words
                elif " " in words.strip() and not is_in_words_of_others(words):
                    found.append(f"{path.relative_to(ROOT)}: {words}")
    assert seen > 40
    assert found == []


def test_the_docs_have_each_message():
    """docs/errors.md is the table; FIBERBACK_BLESS=1 writes it anew."""
    from fiberback import _messages

    file = ROOT / "docs/errors.md"
    before = file.read_text().partition("\n## ")[0] if file.exists() else "# Errors\n"
    entries = "".join(
        f"\n## {message.code}\n\n{shown(message.text)}.\n\n{shown(message.cure)}.\n"
        for message in _messages.table()
    )
    if os.environ.get("FIBERBACK_BLESS"):
        file.write_text(before.rstrip("\n") + "\n" + entries)
    is_true = file.read_text() == before.rstrip("\n") + "\n" + entries
    assert is_true, "type FIBERBACK_BLESS=1 before the command, and commit docs/errors.md"


def shown(words):
    """What is to be typed as code, and fields by their names."""
    field = r"\{(\w+)(?:!\w)?(?::[^}]*)?\}"
    code = re.compile(r"(?<!\w)'([^']*)'(?!\w)")
    words = code.sub(lambda match: "`" + re.sub(field, r"\1", match[1]) + "`", words)
    words = re.sub(field, r"*\1*", words)
    first = words.partition(" ")[0]
    return words if first == "fiberback" or not first.isalpha() else words[0].upper() + words[1:]


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
    for error in anywhere(lambda: fb.await_(lambda: answer())):
        says(error, "forgot-call", "await_(fn())")
    for error in anywhere(lambda: fb.await_(functools.partial(answer))):
        says(error, "forgot-call", "await_(fn())")
    for error in anywhere(lambda: fb.await_(asyncio.Lock())):
        says(error, "async-context", "with fiberback.async_context(manager)")
    for error in anywhere(lambda: fb.await_(numbers())):
        says(error, "async-iterator", "in fiberback.async_iter(iterator)")
    for error in anywhere(lambda: fb.await_(42)):
        assert "fiberback" not in str(error)  # the words of `await` are all there is to say


def test_the_cures_for_what_is_async_otherwise(fb):
    async def main():
        with fb.async_context(asyncio.Lock()) as value:
            assert value is None
        return [value for value in fb.async_iter(numbers())]

    assert asyncio.run(main()) == [1, 2]


async def numbers():
    yield 1
    yield 2


async def waits(value):
    await asyncio.sleep(0)
    return value


async def ready(value):
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

    async def of_what_is_ready():
        await fb.await_(ready(42))

    async def of_a_future_that_is_done():
        future = asyncio.get_running_loop().create_future()
        future.set_result("x")
        await fb.await_(future)

    async def of_a_generator():
        yield await fb.await_(waits(42))

    async def in_a_generator():
        async for _ in of_a_generator():
            pass

    async def main():
        for misuse in (
            plain,
            as_a_name,
            of_a_future,
            of_what_is_ready,
            of_a_future_that_is_done,
            in_a_generator,
        ):
            with pytest.raises(TypeError) as info:
                await misuse()
            says(info.value, "already-awaited", "Leave out the 'await'")
        # What can be awaited is.
        future = asyncio.get_running_loop().create_future()
        future.set_result(7)
        assert await fb.await_(waits(future)) == 7
        assert await fb.await_(waits(waits(8))) == 8
        assert await fb.await_(ready(waits(8))) == 8
        assert await fb.await_(ready(ready(8))) == 8
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


def test_a_synchronous_function_for_an_async_one(fb, backend):
    def three():
        return 3

    async def fails():
        raise TypeError("its own")

    async def main():
        with pytest.raises(TypeError) as info:
            await fb.with_portal_run(three)
        says(info.value, "sync-function", "await fiberback.with_portal_run_sync(three, …)")
        for own in (lambda: fb.with_portal_run(fails), lambda: fb.with_portal_run(fails, 1)):
            with pytest.raises(TypeError) as info:
                await own()
            assert "fiberback:" not in str(info.value)

    backend.run(main)


@pytest.mark.parametrize(
    "name", ["with_portal_run", "with_portal_run_sync", "with_portal_run_tree"]
)
def test_a_call_for_a_function(fb, backend, name, recwarn):
    run = getattr(fb, name)

    async def main():
        for thing in (waits(1), 42):
            with pytest.raises(TypeError) as info:
                await run(thing)
            says(info.value, "function-called", repr(thing), f"'{name}(fn, *args)'")

    backend.run(main)
    assert not recwarn.list  # "never awaited" would be one thing more to read


@pytest.mark.parametrize("value", ["x", 3, asyncio])
def test_enable_what_is_no_loop(fb, value):
    with pytest.raises(TypeError) as info:
        fb.enable(value)
    says(info.value, "enable-what", repr(value), "fiberback.enable(loop)")


def test_run_what_is_no_coroutine(fb):
    with pytest.raises(TypeError) as info:
        fb.run(answer)
    says(info.value, "run-what", "fiberback.run(answer())")
    with pytest.raises(TypeError) as info:
        fb.run(None)
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
