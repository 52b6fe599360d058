"""What a user meets in an editor, at a prompt, in `help()`: docstrings, stubs, reprs."""

from __future__ import annotations

import ast
import asyncio
import inspect
import pathlib
import pickle
import pydoc
import re
import subprocess
import sys

import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]


def native():
    from fiberback import _fiberback

    return _fiberback


def stub():
    """The stub's functions and classes by name."""
    path = pathlib.Path(native().__file__).with_name("_fiberback.pyi")
    definitions = (ast.FunctionDef, ast.ClassDef)
    return {n.name: n for n in ast.parse(path.read_text()).body if isinstance(n, definitions)}


def test_help_begins_with_what_to_do(fb):
    text = pydoc.plain(pydoc.render_doc(fb))
    description, contents = text.split("PACKAGE CONTENTS")
    assert "fiberback.run(main())" in description[:900]
    for word in ("layout", "room", "native", "test_"):
        assert word not in description, word
    # The list of files is pydoc's own.
    classes = contents.partition("CLASSES")[2]
    assert classes and not re.search(r"fiberback\._\w", classes)


def test_the_module_s_example_runs(fb, tmp_path):
    """As it stands in the docstring."""
    lines = inspect.getdoc(fb).partition("::\n")[2].splitlines()
    code = lines[: lines.index("What to do where:")]
    script = tmp_path / "example.py"
    script.write_text(inspect.cleandoc("\n".join(code)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("the page at https://example.org\n", "")


def test_everything_public_has_a_docstring(fb):
    for name in fb.__all__:
        if name != "__version__":
            assert inspect.getdoc(getattr(fb, name)), name


def test_an_editor_shows_what_the_runtime_says(fb):
    """Editors read the stub of a native module, and nothing else of it."""
    public = {name for name in fb.__all__ if getattr(native(), name, None) is getattr(fb, name)}
    shown = stub()
    assert {"await_", "task_factory", "StackMemoryError"} <= public & shown.keys()
    for name, node in shown.items():
        docstring = ast.get_docstring(node)
        assert docstring or name not in public, f"{name} has no docstring in the stub"
        if docstring:
            assert docstring == inspect.getdoc(getattr(native(), name)), name
    assert "    fiberback.run(main())" in ast.get_docstring(shown["await_"]), "an example"


def test_public_names_are_the_package_s(fb):
    for name in fb.__all__:
        value = getattr(fb, name)
        if name != "__version__":
            assert value.__module__ == "fiberback", name
            assert pickle.loads(pickle.dumps(value)) is value
    assert repr(fb.Enabled) == "<class 'fiberback.Enabled'>"


class Manager:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass


async def numbers():
    yield 1


def test_reprs(fb):
    import_or_skip("trio")
    manager, generator = Manager(), numbers()

    async def main():
        loop = asyncio.get_running_loop()
        with fb.enable() as enabled:
            assert repr(enabled) == f"<fiberback.Enabled: {loop!r}>"
        assert repr(enabled) == "<fiberback.Enabled: undone>"
        with fb.enable(everywhere=True) as enabled:
            assert repr(enabled).startswith("<fiberback.Enabled: everywhere")
        assert repr(fb.parent_loop(loop)) == f"fiberback.parent_loop({loop!r})"

    asyncio.run(main())
    assert repr(fb.no_await()) == "fiberback.no_await()"
    assert repr(fb.no_await("transfer")) == "fiberback.no_await('transfer')"
    assert repr(fb.thread_runner(debug=True)) == "fiberback.thread_runner(debug=True)"
    assert repr(fb.portals_for_children()) == "fiberback.portals_for_children()"
    assert repr(fb.portals_for_tree()) == "fiberback.portals_for_tree()"
    assert repr(fb.async_context(manager)) == f"fiberback.async_context({manager!r})"
    assert repr(fb.async_iter(generator)) == f"fiberback.async_iter({generator!r})"
    instrument = "<fiberback.AutoPortalInstrument: 0 tasks in 0 scopes>"
    assert repr(fb.AutoPortalInstrument()) == instrument


def test_blocks_serve_as_decorators_too(fb):
    """As what `contextlib` makes does."""

    @fb.thread_runner()
    def waits():
        return fb.await_(asyncio.sleep(0, 42))

    assert waits() == waits() == 42


def test_repr_of_a_portal(fb):
    seen = []

    async def main():
        await fb.ensure_portal()
        seen.append(repr(asyncio.current_task().get_coro()))

    asyncio.run(main())
    assert re.fullmatch(r"<fiberback\.Portal of <coroutine object .*main at .*> at .*>", seen[0])


def test_reprs_of_middleware(fb):
    from fiberback.asgi import PortalMiddleware

    assert repr(PortalMiddleware("app")) == "fiberback.asgi.PortalMiddleware('app')"
    import_or_skip("django")
    from fiberback.django import PortalMiddleware

    assert (
        repr(PortalMiddleware(len)) == f"<fiberback.django.PortalMiddleware get_response={len!r}>"
    )


def test_reprs_of_databases(fb):
    import_or_skip("aiosqlite")
    from fiberback.dbapi import aiosqlite

    async def main():
        connection = aiosqlite.connect(":memory:")
        cursor = connection.cursor()
        assert repr(connection).startswith("<fiberback.dbapi.aiosqlite.Connection [open] at ")
        assert repr(cursor).startswith("<fiberback.dbapi.aiosqlite.Cursor [open] of <fiberback")
        cursor.close()
        connection.close()
        assert "Connection [closed] at" in repr(connection)
        assert "Cursor [closed] of" in repr(cursor)

    fb.run(main())


def test_repr_of_a_pool(fb):
    import_or_skip("psycopg_pool")
    from fiberback.dbapi import psycopg_pool

    pool = psycopg_pool.ConnectionPool("dbname=none", name="mine")
    assert repr(pool).startswith("<fiberback.dbapi.psycopg_pool.ConnectionPool 'mine' at ")


@pytest.mark.parametrize("name", ["fiberback.greenback", "fiberback.dbapi", "fiberback.asgi"])
def test_modules_say_what_they_serve(fb, name):
    __import__(name)
    assert inspect.getdoc(sys.modules[name]).partition(" ")[0] in ("Serves", "Stands")
