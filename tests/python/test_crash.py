"""Programs that try to kill the interpreter, each in a process of its own.

Every script in the rooms of crash/ states in its first lines how it must end:

    # expect: 0                   the exit code (default 0); never a signal
    # expect-stdout: text         a line that must be printed (any number of these)
    # expect-stderr: text         text that must be in stderr (any number of these)
    # python: 3.12                the first version that it is for
    # leaks: on purpose           it has stacks given up (default no; see leaks.py)
    # parts: 4                    how often it is run, with arguments "0 4" to "3 4": it does a part
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from support import UNDER_TEST, only_fiberback

pytestmark = only_fiberback

SCRIPTS = sorted((pathlib.Path(__file__).parent / "crash").rglob("*.py"))


def expectations(script):
    found = {
        "expect": ["0"],
        "expect-stdout": [],
        "expect-stderr": [],
        "python": ["3.11"],
        "parts": ["1"],
        "leaks": [],
    }
    for line in script.read_text().splitlines():
        if not line.startswith("#"):
            break
        key, separator, value = line[1:].strip().partition(": ")
        if separator and key in found:
            if key in ("expect", "python", "parts"):
                found[key] = []
            found[key].append(value.strip())
    return found


def test_there_are_scripts():
    assert len(SCRIPTS) >= 15


def runs():
    for script in SCRIPTS:
        parts = int(expectations(script)["parts"][0])
        for part in range(parts):
            arguments = [str(part), str(parts)] if parts > 1 else []
            marks = [pytest.mark.leaks] if expectations(script)["leaks"] else []
            yield pytest.param(
                script, arguments, id="-".join([script.stem, *arguments]), marks=marks
            )


def run_until_it_hangs(command, env):
    """One that hangs dies by SIGABRT, so that faulthandler says where its threads are."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    with process:
        try:
            output = process.communicate(timeout=110)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            output = process.communicate()
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, *output)


@pytest.mark.parametrize(("script", "arguments"), list(runs()))
def test_script(script, arguments):
    expected = expectations(script)
    first = tuple(map(int, expected["python"][0].split(".")))
    if sys.version_info < first:
        pytest.skip(f"is for Python {expected['python'][0]} and later")
    env = dict(os.environ, PYTHONFAULTHANDLER="", FIBERBACK_UNDER_TEST=UNDER_TEST)
    del env["PYTHONFAULTHANDLER"]
    done = run_until_it_hangs([sys.executable, "-X", "faulthandler", str(script), *arguments], env)
    report = f"\n--- stdout\n{done.stdout[-3000:]}\n--- stderr\n{done.stderr[-3000:]}"
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        pytest.fail(f"{script.name} died by {name}{report}")
    assert done.returncode == int(expected["expect"][0]), report
    printed = done.stdout.splitlines()
    for line in expected["expect-stdout"]:
        assert line in printed, report
    for text in expected["expect-stderr"]:
        assert text in done.stderr, report
