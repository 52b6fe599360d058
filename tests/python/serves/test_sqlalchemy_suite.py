"""SQLAlchemy's own tests of its asyncio half, out of its sdists on PyPI, with `install()` in force.

In place of the greenlet package there is an empty module: `import greenlet`, by which SQLAlchemy's
tests find out whether they can run, succeeds, and whoever wanted something out of it would fail.

The suites are downloaded when this test runs (`sdists`).
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
import sdists
from support import import_or_skip, only_fiberback, takes_long

# Both releases on one interpreter, to keep a run on all of them short.
pytestmark = [
    only_fiberback,
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 12), reason="SQLAlchemy's own suites run on 3.12 only"
    ),
]

VERSIONS = {"2.1": "2.1.9", "2.0": "2.0.58"}
CONCURRENCY = {"2.1": "test_concurrency.py", "2.0": "test_concurrency_py3k.py"}

# Tests that assert the refusal which `install()` takes away.
REFUSALS = [
    # `await_` outside `greenlet_spawn`, and below a coroutine that another `await_` waits for
    "test/base/{concurrency}::TestAsyncioCompat::test_await_only_no_greenlet",
    "test/base/{concurrency}::TestAsyncioCompat::test_await_only_error",
    "test/base/{concurrency}::TestAsyncioCompat::test_await_fallback_error",  # 2.0 only
    # a lazy load outside `greenlet_spawn`; its "new_style" twin, which loads nothing, runs
    "test/ext/asyncio/test_session.py::AsyncORMBehaviorsTest::"
    "test_new_style_active_history[legacy_style]",
]

# Loaded by pytest before anything of SQLAlchemy.
PLUGIN = """
import os, sys, types
sys.path.insert(0, os.path.join(os.getcwd(), "lib"))
sys.modules["greenlet"] = None
import fiberback.sqlalchemy
fiberback.sqlalchemy.install()
sys.modules["greenlet"] = types.ModuleType("greenlet")
import sqlalchemy
assert sqlalchemy.__file__.startswith(os.getcwd()), sqlalchemy.__file__
# Its tests give a process ten seconds, which are few on a busy machine. One that hangs ends with the whole run.
import multiprocessing.process
of = multiprocessing.process.BaseProcess
of.join = lambda self, timeout=None, join=of.join: join(self)
"""

# Each in a time of its own: the cancellation tests cancel everything everywhere, also twice.
PARTS = {
    "engine": ["test/ext/asyncio", "--deselect", "test/ext/asyncio/test_cancellation.py"],
    "cancellation": ["test/ext/asyncio/test_cancellation.py", "-k", "not twice"],
    "twice": ["test/ext/asyncio/test_cancellation.py", "-k", "twice"],
}


@pytest.fixture(scope="session", params=VERSIONS)
def suite(request, tmp_path_factory):
    """Its version, and the folder in which it lies."""
    import_or_skip("sqlalchemy")
    folder = tmp_path_factory.mktemp("sqlalchemy")
    sdists.unpack("sqlalchemy", VERSIONS[request.param], folder)
    (folder / "fiberback_plugin.py").write_text(PLUGIN)
    return request.param, folder / f"sqlalchemy-{VERSIONS[request.param]}"


def database_url(driver, request):
    import_or_skip(driver)
    if driver == "aiosqlite":
        return "sqlite+aiosqlite:///:memory:"
    database = request.getfixturevalue("database")
    # What SQLAlchemy's README.unittests.rst asks for.
    database.sql(
        "CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2; CREATE EXTENSION hstore;"
        "CREATE EXTENSION citext"
    )
    return database.url(driver)


def run_pytest(folder, arguments, **environment):
    takes_long()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


# SQLAlchemy itself leaves out "twice" for aiosqlite, which "deadlocks waiting on its stopped worker".
@pytest.mark.parametrize(
    ("driver", "part"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * (case[1] != "engine"))
        for case in [
            *(("asyncpg", part) for part in PARTS),
            ("aiosqlite", "engine"),
            ("aiosqlite", "cancellation"),
        ]
    ],
)
def test_sqlalchemys_own_suite(suite, driver, part, request):
    version, folder = suite
    url = database_url(driver, request)
    arguments = ["-p", "fiberback_plugin", "--dburi", url, *PARTS[part]]
    if part == "engine":
        arguments.append(f"test/base/{CONCURRENCY[version]}")
        for test in REFUSALS:
            arguments += ["--deselect", test.format(concurrency=CONCURRENCY[version])]
    summary = run_pytest(folder, arguments, PYTHONPATH=str(folder.parent))
    passed = int(summary.partition(" passed")[0].split()[-1])
    # If SQLAlchemy found that nothing can run, it would skip it all.
    least = {"engine": 150, "cancellation": 8, "twice": 2}[part]
    assert passed >= least, summary


def test_our_own_tests_with_sqlalchemy_2_0(tmp_path):
    """`test_sqlalchemy.py` runs with the newest SQLAlchemy elsewhere."""
    import_or_skip("sqlalchemy")
    sdists.unpack("sqlalchemy", VERSIONS["2.0"], tmp_path)
    library = tmp_path / f"sqlalchemy-{VERSIONS['2.0']}" / "lib"
    tests = pathlib.Path(__file__).with_name("test_sqlalchemy.py")
    chosen = "(asyncio- or not -) and not cancelled_tasks"
    run_pytest(tmp_path, [str(tests), "-x", "-k", chosen], PYTHONPATH=str(library))
