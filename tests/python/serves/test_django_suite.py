"""Django's own test apps, out of its sdist on PyPI, run on `fiberback.django.postgresql`.

All of it in one task of an asyncio loop, where every query has to wait for the loop; a ticker shows
that the loop went on. The sdist is downloaded when this test runs, and is no part of this repository.
It is skipped only when the registry cannot be reached; `FIBERBACK_DJANGO_SDIST` names a copy of the
file. More labels: FIBERBACK_DJANGO_LABELS="schema migrations" pytest test_django_suite.py
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import pytest
import sdists
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

# The LTS is tested on one interpreter and the newest Django on another: see requirements.txt.
VERSIONS = [(3, 11), (3, 13)]

SETTINGS = """
import os

def database(name):
    return {
        "ENGINE": "fiberback.django.postgresql",
        "NAME": name,
        "USER": "postgres",
        "HOST": os.environ["FIBERBACK_PGHOST"],
        "TEST": {"NAME": "test_" + name},
    }

DATABASES = {"default": database("%(one)s"), "other": database("%(two)s")}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
USE_TZ = False
if os.environ["FIBERBACK_DJANGO"].startswith("5."):
    DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
"""

RUNNER = """
import asyncio, os, runpy, sys, fiberback

where, sys.argv = sys.argv[1], sys.argv[2:]
sys.path.insert(0, os.getcwd())
ticks = 0

def suite():
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0

async def main():
    async def tick():
        global ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)
    # As a request of fiberback.django's ASGI application: what sync_to_async and async_to_sync, which
    # Django wraps its async tests in, would hand to threads stays in this task.
    from fiberback.django._in_task import let_async_to_sync_wait, sync_code_in_task
    let_async_to_sync_wait()
    ticking = asyncio.create_task(tick())
    async with sync_code_in_task():
        code = await fiberback.with_portal_run_sync(suite)
    ticking.cancel()
    return code

code = asyncio.run(main()) if where == "task" else suite()
print("ticks:", ticks, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def source():
    """The unpacked sdist, shared by the workers of one run."""
    version = import_or_skip("django").get_version()
    folder = pathlib.Path(tempfile.gettempdir()) / f"fiberback-django-{version}-{os.getppid()}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        source = folder / f"django-{version}"
        if (source / "complete").exists():
            return source
        sdists.unpack("django", version, folder)
        (source / "complete").touch()
        return source


LABELS = {
    "task: basic": "basic bulk_create delete get_or_create update",
    "task: transactions": "transactions transaction_hooks select_for_update raw_query",
    "task: queries": "queries",
    "task: backends": "backends aggregation",
    "task: relations": "many_to_many many_to_one one_to_one prefetch_related select_related",
    "task: async": (
        "async.test_async_queryset async.test_async_related_managers async.test_async_model_methods"
        " async.test_async_shortcuts handlers signals"
    ),
    "thread: without a loop": "basic transactions transaction_hooks",
}
if os.environ.get("FIBERBACK_DJANGO_LABELS"):
    LABELS = {"task: chosen": os.environ["FIBERBACK_DJANGO_LABELS"]}


@pytest.mark.skipif(
    sys.version_info[:2] not in VERSIONS, reason="Django's own suite runs on 3.11 and 3.13 only"
)
@pytest.mark.parametrize(
    # On 3.13 a sample runs always.
    "group",
    [
        pytest.param(group, marks=[pytest.mark.slow] * (sys.version_info < (3, 13) or number > 0))
        for number, group in enumerate(LABELS)
    ],
)
@pytest.mark.time_limit(170)
def test_djangos_own_suite(group, source, postgres, tmp_path):
    import_or_skip("psycopg")
    import_or_skip("psycopg_pool")
    version = import_or_skip("django").get_version()
    one, two = postgres.create_database(), postgres.create_database()
    (tmp_path / "fiberback_settings.py").write_text(SETTINGS % {"one": one.name, "two": two.name})
    (tmp_path / "runner.py").write_text(RUNNER)
    env = dict(
        os.environ,
        PYTHONPATH=str(tmp_path),
        FIBERBACK_PGHOST=postgres.host,
        FIBERBACK_DJANGO=version,
    )
    where = group.partition(":")[0]
    command = [sys.executable, str(tmp_path / "runner.py"), where, "runtests.py"]
    command += ["--settings=fiberback_settings", "--parallel=1", *LABELS[group].split()]
    try:
        done = subprocess.run(
            command, cwd=source / "tests", env=env, capture_output=True, text=True, timeout=1500
        )
    finally:
        for database in (one, two):
            database.drop()
    said = done.stderr[-6000:] + done.stdout[-1000:]
    assert done.returncode == 0, said
    ran = re.search(r"^Ran (\d+) tests in ([\d.]+)s", done.stderr, re.MULTILINE)
    assert ran and int(ran[1]) > 20, said
    assert re.search(r"^OK", done.stderr, re.MULTILINE), said
    ticks = int(re.search(r"^ticks: (\d+)", done.stderr, re.MULTILINE)[1])
    if where == "task":
        # Most of a suite is CPU time of its own, which no ticker survives.
        assert ticks > int(ran[1]) / 10, (ticks, said)
    print(f"{group}: Django {version}, {ran[0]}, {ticks} ticks")
