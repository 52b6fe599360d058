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


def test_every_example_has_a_line_of_its_own():
    page = (FOLDER / "README.md").read_text()
    listed = re.findall(r"^\| \[`([a-z_]+\.(?:py|rs))`\]\(\1\) \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(
        path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".rs")
    )
