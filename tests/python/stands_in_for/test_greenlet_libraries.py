"""Libraries that stand on greenlet, unchanged, on `fiberback.greenlet`: their own tests.

Those of SQLAlchemy and greenback come out of their sdists on PyPI (`sdists`), gevent's out of its wheel, which is
installed.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest
import sdists
from support import import_or_skip, only_fiberback, takes_long

pytestmark = [
    only_fiberback,
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 12), reason="libraries' own suites run on 3.12 only"
    ),
]

# Whatever imports greenlet in a process that finds this gets ours.
SITECUSTOMIZE = """
import fiberback.greenlet
fiberback.greenlet.install()
"""

# The sdist's checkout, not what is installed.
SQLALCHEMY = """
import os, sys
sys.path.insert(0, os.path.join(os.getcwd(), "lib"))
import greenlet, sqlalchemy
assert sqlalchemy.__file__.startswith(os.getcwd()), sqlalchemy.__file__
assert greenlet.__name__ == "fiberback.greenlet"
"""

ON_AIOSQLITE = "sqlite+aiosqlite:///:memory:"

# What is otherwise with ours, and why.
OTHERWISE = {
    "test__monkey_fork_atomic": "16 processes, each of which imports fiberback here, are to end within 2 s",
}


def gevents_tests():
    """The modules of gevent's tests that its wheel brings."""
    package = importlib.util.find_spec("gevent")
    if package is None:
        return ["gevent is not installed"]
    folder = pathlib.Path(package.origin).parent / "tests"
    return sorted(file.stem for file in folder.glob("test_*.py"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Environment variables with which Python has our greenlet installed."""
    folder = tmp_path_factory.mktemp("ours")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return {**os.environ, "PYTHONPATH": str(folder)}


def run_pytest(folder, env, *arguments):
    takes_long()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_greenback(ours, tmp_path):
    for name in ("trio", "anyio", "sniffio", "greenback"):
        import_or_skip(name)
    source = sdists.unpack("greenback", "1.3.0", tmp_path)
    run_pytest(source, ours, "greenback/_tests")


def sqlalchemys_tests(version, folder):
    """The folder of its checkout, and its tests of asyncio."""
    source = sdists.unpack("sqlalchemy", version, folder)
    (source / "fiberback_plugin.py").write_text(SQLALCHEMY)
    concurrency = next((source / "test" / "base").glob("test_concurrency*.py"))
    return source, ["test/ext/asyncio", str(concurrency.relative_to(source))]


# What it cancels waits for a stopped thread, with greenlet as well.
NOT_ON_AIOSQLITE = ("--deselect", "test/ext/asyncio/test_cancellation.py")


def test_some_of_sqlalchemys(ours, tmp_path):
    import_or_skip("aiosqlite")
    source, tests = sqlalchemys_tests("2.1.9", tmp_path)
    tests[0] += "/test_session.py"
    # Some of its tests have limits of time that a busy machine breaks.
    options = ["-m", "not timing_intensive", "-p", "fiberback_plugin", "--dburi", ON_AIOSQLITE]
    run_pytest(source, ours, *options, *tests)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.1.9", "2.0.58"])
@pytest.mark.parametrize("driver", ["aiosqlite", "asyncpg"])
def test_sqlalchemy(ours, tmp_path, version, driver, request):
    import_or_skip(driver)
    source, tests = sqlalchemys_tests(version, tmp_path)
    url = ON_AIOSQLITE
    if driver == "aiosqlite":
        tests += NOT_ON_AIOSQLITE
    else:
        database = request.getfixturevalue("database")
        # What SQLAlchemy's README.unittests.rst asks for.
        database.sql(
            "CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2; CREATE EXTENSION hstore;"
            "CREATE EXTENSION citext"
        )
        url = database.url(driver)
    run_pytest(source, ours, "-p", "fiberback_plugin", "--dburi", url, *tests)


def run_gevent(module, env):
    command = [sys.executable, "-X", "faulthandler", "-m", f"gevent.tests.{module}"]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )


@pytest.mark.slow
@pytest.mark.parametrize("module", gevents_tests())
def test_gevent(ours, module):
    """What passes with greenlet passes with ours."""
    import_or_skip("gevent")
    done = run_gevent(module, ours)
    assert done.returncode >= 0, f"died by signal {-done.returncode}: {done.stderr[-6000:]}"
    if done.returncode != 0:
        real = run_gevent(module, dict(os.environ))
        is_known = module in OTHERWISE or real.returncode != 0
        assert is_known, done.stdout[-6000:] + done.stderr[-6000:]
