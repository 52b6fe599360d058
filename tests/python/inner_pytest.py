"""pytest on a file of tests, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def pytest_on(path, text, *options, code=0):
    """What it has printed; it must end with that code."""
    path.write_text(textwrap.dedent(text))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=path.parent, timeout=110)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout
