"""Every Python example runs, and its own test passes."""

from __future__ import annotations

import pathlib
import runpy
import subprocess
import sys

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

FOLDER = pathlib.Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
# What an example imports beyond fiberback.
NEEDS = {"orm": ["sqlalchemy", "aiosqlite"]}


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example):
    for name in NEEDS.get(example.stem, []):
        import_or_skip(name)
    namespace = runpy.run_path(str(example))
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
