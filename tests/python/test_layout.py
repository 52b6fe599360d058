"""The rooms of the package: each file imports only from below its own, and no two in a circle.

Read from the sources: every import counts, also those in functions and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import functools
import pathlib
import re

import pytest
from support import only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

ROOT = pathlib.Path(__file__).parents[2]
TESTS = pathlib.Path(__file__).parent

NATIVE, FLOOR, NAMES = "_fiberback", "the files beside the rooms", "__init__.py"
COMMAND = "__main__.py"  # on top of all
SERVES, STANDS_IN_FOR = "Serves", "Stands in for"
# From below to above: each may import from those before it, and from itself. The last two, libraries
# that we serve and libraries that we stand in for, know nothing of each other.
ROOMS = [
    "_pure",
    "_loop",
    "_portal",
    "_deadlock",
    "_thread",
    "_await",
    "_blocking",
    "_run",
    "_group",
    "_sync",
    "_face",
    "_see",
]
ORDER = [NATIVE, FLOOR, *ROOMS, NAMES, SERVES, STANDS_IN_FOR, COMMAND]


def package_sources():
    import fiberback

    folder = pathlib.Path(fiberback.__file__).parent
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.py")}


@functools.cache
def first_line(source):
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def room_of(file, sources):
    """Where a file stands in ORDER, by its path; a library's, by how its first line begins."""
    top = file.partition("/")[0]
    if top in (NATIVE, NAMES, COMMAND):
        return top
    if top.startswith("_"):
        return top if "/" in file else FLOOR
    about = first_line(sources[file if top == file else f"{top}/__init__.py"])
    for kind in (SERVES, STANDS_IN_FOR):
        if re.match(rf"{kind} [^:]+: ", about):
            return kind
    return None


def imports(file, sources):
    """(line, file) of everything in the package that `file` imports."""
    package = ["fiberback", *file.split("/")[:-1]]

    def file_of(*names):
        """The file of the module of that name, if it is one."""
        path = "/".join(names[1:])
        if path == "_fiberback":
            return path
        candidates = (f"{path}.py", f"{path}/__init__.py" if path else "__init__.py")
        return next((each for each in candidates if each in sources), None)

    for node in ast.walk(ast.parse(sources[file])):
        if isinstance(node, ast.Import):
            for name in (alias.name.split(".") for alias in node.names):
                if name[0] == "fiberback":
                    yield node.lineno, file_of(*name)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            if base[0] == "fiberback":
                for alias in node.names:
                    found = file_of(*base, alias.name) or file_of(*base)
                    assert found, f"{file}:{node.lineno}: no file for {'.'.join(base)}"
                    yield node.lineno, found


def complaints(sources):
    """What is wrong with the arrows, a sentence each, with where the line belongs instead."""

    def asks(room):
        question = first_line(sources.get(f"{room}/__init__.py", "")).partition("?")[0]
        return f"{room} ({question}?)" if question else room

    found = []
    arrows = {}
    for file in sorted(sources):
        own = room_of(file, sources)
        if own is None:
            found.append(
                f"{file}: a library's first line begins with "
                f"'{SERVES} <library>: ' or '{STANDS_IN_FOR} <library>: '"
            )
            continue
        if own not in ORDER:
            found.append(f"{file}: {own} is not among the rooms; ROOMS in {__file__} lists them")
            continue
        if file.startswith("_") and file.endswith("/__init__.py") and list(imports(file, sources)):
            found.append(f"{file}: a room's __init__.py says its question and imports nothing")
        for line, other in imports(file, sources):
            arrows.setdefault(file, []).append(other)
            theirs = room_of(other, sources)
            if theirs not in ORDER:
                continue
            strangers = {own, theirs} == {SERVES, STANDS_IN_FOR}
            if strangers:
                found.append(
                    f"{file}:{line} imports {other}: a library that we serve and one that we stand "
                    "in for know nothing of each other; what both need belongs in a room below"
                )
            elif ORDER.index(theirs) > ORDER.index(own):
                found.append(
                    f"{file}:{line} imports {other}, which lies above it. If the line answers the "
                    f"question of {asks(theirs)}, it belongs there; if {other} answers that of "
                    f"{asks(own)}, what is needed of it belongs down here, or lower"
                )
    circle = circle_in(arrows)
    if circle:
        found.append(
            f"{' imports '.join(circle)}: a circle. What they all need "
            "belongs in a file of its own, below them"
        )
    return found


def circle_in(arrows):
    """Files of which each imports the next, the last being the first again; None if there are none."""
    done = set()

    def visit(file, path):
        if file in path:
            return [*path[path.index(file) :], file]
        if file in done:
            return None
        for other in arrows.get(file, ()):
            circle = visit(other, [*path, file])
            if circle:
                return circle
        done.add(file)
        return None

    return next(filter(None, (visit(file, []) for file in arrows)), None)


def test_arrows_run_down_only():
    sources = package_sources()
    assert len(sources) > 40
    assert complaints(sources) == []


def test_every_import_is_seen():
    sources = {
        "__init__.py": "",
        "_messages.py": "",
        "_loop/__init__.py": "",
        "_loop/one.py": (
            "import fiberback._messages\n"
            "from .. import _messages, run\n"
            "from . import two\n"
            "from .two import Two\n"
            "from .._fiberback import await_\n"
            "if TYPE_CHECKING:\n    from fiberback._loop import two\n"
            "def f():\n    from fiberback import run\n"
            "import asyncio, fiberbacks\n"
            "from os import path\n"
        ),
        "_loop/two.py": "",
    }
    assert sorted(imports("_loop/one.py", sources)) == [
        (1, "_messages.py"),
        (2, "__init__.py"),
        (2, "_messages.py"),
        (3, "_loop/two.py"),
        (4, "_loop/two.py"),
        (5, "_fiberback"),
        (7, "_loop/two.py"),
        (9, "__init__.py"),
    ]


@pytest.mark.parametrize(
    ("file", "line", "sentence"),
    [
        (
            "_loop/library.py",
            "from .._deadlock.blocked_thread import is_blocked_on",
            "_loop/library.py:{line} imports _deadlock/blocked_thread.py, which lies above it. If the "
            "line answers the question of _deadlock (Can this wait ever end?), it belongs there",
        ),
        (
            "_portal/call_portal.py",
            "if TYPE_CHECKING:\n    from .. import Enabled",
            "_portal/call_portal.py:{line} imports __init__.py, which lies above it",
        ),
        ("_messages.py", "import fiberback._run.run", "_messages.py:{line} imports _run/run.py"),
        (
            "__init__.py",
            "def late():\n    from . import greenback",
            "__init__.py:{line} imports greenback.py, which lies above it",
        ),
        ("greenback.py", "from .dbapi import psycopg", "know nothing of each other"),
        ("peewee.py", "from .greenback import await_", "know nothing of each other"),
        (
            "_thread/host.py",
            "from .channel import Channel",
            "_thread/host.py imports _thread/channel.py imports _thread/host.py: a circle",
        ),
        (
            "dbapi/_locks.py",
            "from ..peewee import Database",
            "a circle. What they all need belongs in a file of its own",
        ),
        ("_await/__init__.py", "from .can_await import can_await", "imports nothing"),
    ],
)
def test_a_wrong_arrow_is_told_where_it_belongs(file, line, sentence):
    sources = package_sources()
    sources[file] += f"\n{line}\n"
    expected = sentence.format(line=len(sources[file].splitlines()))
    assert any(expected in said for said in complaints(sources)), complaints(sources)


def test_new_files_and_rooms_are_told_where_they_belong():
    sources = package_sources()
    sources["_odds/__init__.py"] = sources["_odds/ends.py"] = ""
    sources["nest_asyncio.py"] = '"""Nested loops."""\n'
    said = complaints(sources)
    assert any(each.startswith("_odds/ends.py: _odds is not among the rooms") for each in said)
    assert any("nest_asyncio.py: a library's first line begins with" in each for each in said)
    assert len(said) == 3


def test_contributing_lists_the_rooms_with_their_questions():
    sources = package_sources()
    table = re.findall(r"^ +\| `(_\w+)/` \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert table == [(room, first_line(sources[f"{room}/__init__.py"])) for room in ROOMS]


def test_tests_lie_in_the_same_rooms():
    """Beside the package's own: `interp` for that of the native module, and what is no test."""
    rooms = {room.lstrip("_") for room in ROOMS} | {"serves", "stands_in_for", "interp"}
    folders = {file.parent.name for file in TESTS.glob("*/test_*.py")}
    assert folders == rooms
    assert {file.parent.name for file in TESTS.glob("crash/**/*.py")} <= rooms
    assert list(TESTS.glob("crash/*.py")) == []


def test_no_two_test_files_have_the_same_name():
    """pytest imports them by that alone, and would collect only the first."""
    names = [file.name for file in TESTS.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
