"""README's table of platforms is that of docs/platforms.toml (`.ci/platforms/table`)."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from support import only_fiberback

pytestmark = only_fiberback

ROOT = pathlib.Path(__file__).parents[2]


def test_readme_has_the_table():
    command = [sys.executable, str(ROOT / ".ci/platforms/table"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
