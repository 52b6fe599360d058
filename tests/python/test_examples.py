"""Every Python example runs, and its own test passes."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

FOLDER = pathlib.Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
# What an example imports beyond fiberback.
NEEDS = {
    "asgiref_functions": ["asgiref"],
    "dask_job": ["distributed"],
    "django_views": ["django", "httpx"],
    "fastapi_app": ["fastapi", "httpx"],
    "progress_bar": ["tqdm"],
    "pytest_async_fixtures": ["pytest_asyncio"],
    "orm": ["sqlalchemy", "aiosqlite"],
    "trio_tasks": ["trio"],
}


def test_there_are_examples():
    assert {"django_views", "fastapi_app", "notebook_cells", "pytest_fixtures", "trio_tasks"} <= {
        example.stem for example in EXAMPLES
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example, tmp_path):
    """As a script, and its own tests: each in a process that nothing else has set up."""
    for name in NEEDS.get(example.stem, []):
        import_or_skip(name)
    script = [sys.executable, str(example)]
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    for command in (script, [*tests, "--rootdir", str(tmp_path), str(example)]):
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout
    assert " passed" in done.stdout


def test_celery_app(tmp_path):
    """A worker in its folder, and what sends to it."""
    for name in ("celery", "sqlalchemy"):
        import_or_skip(name)
    folder = FOLDER / "celery_app"
    env = {**os.environ, "CELERY_APP_FOLDER": str(tmp_path)}
    command = [sys.executable, "-m", "celery", "-A", "app", "worker", "-c", "100"]
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(
            [*command, "--pool=fiberback.celery:Pool"], cwd=folder, env=env, stdout=log, stderr=log
        )
    try:
        done = subprocess.run(
            [sys.executable, "send.py"],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=100,
        )
    finally:
        worker.terminate()
        worker.wait(60)
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    lines = done.stdout.splitlines()
    assert lines[:20] == [f"THE PAGE OF USER {n}" for n in range(20)]
    assert lines[20:22] == ["['the page of home', 'the page of news']", "a picture of home"]


def test_every_example_has_a_line_of_its_own():
    page = (FOLDER / "README.md").read_text()
    listed = re.findall(r"^\| \[`([a-z_]+\.(?:py|rs))`\]\(\1\) \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(
        path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".rs")
    )
