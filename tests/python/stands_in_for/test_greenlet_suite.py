"""greenlet's own test-suite, out of its wheel on PyPI, run against `fiberback.greenlet`, and the real one beside it.

With it come two extension modules that were compiled against greenlet.h. The wheel is downloaded when this
test runs, and is no part of this repository. It is skipped only when the registry cannot be reached;
`FIBERBACK_GREENLET_WHEEL` names a copy of the file for this interpreter.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from support import import_or_skip, only_fiberback, takes_long

pytestmark = [only_fiberback, pytest.mark.sampled]

VERSION = "3.5.6"

# The package `greenlet`: our module, with the suite below it.
PACKAGE = """
import sys
from fiberback._fiberback import greenlet as _greenlet
sys.modules["greenlet._greenlet"] = _greenlet
from fiberback.greenlet import *
from fiberback.greenlet import (
    CLOCKS_PER_SEC, GREENLET_USE_CONTEXT_VARS, GREENLET_USE_GC, GREENLET_USE_TRACING, _C_API, __version__,
    enable_optional_cleanup, get_clocks_used_doing_optional_cleanup,
)
"""

# Runs a module of the suite; the last line says how each test ended, and what was wrong.
RUNNER = """
import json, sys, unittest

class Result(unittest.TextTestResult):
    def startTestRun(self):
        self.ends = {}

    def addSuccess(self, test):
        super().addSuccess(test)
        self.ends[test.id()] = "passed"

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.ends[test.id()] = "skipped"

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.ends[test.id()] = "failed as expected"

tests = unittest.defaultTestLoader.loadTestsFromName("greenlet.tests." + sys.argv[1])
result = unittest.TextTestRunner(verbosity=2, resultclass=Result).run(tests)
wrong = {test.id(): text for test, text in [*result.failures, *result.errors]}
print(json.dumps({"ends": result.ends, "wrong": wrong}))
"""

MODULES = [
    "test_contextvars",
    "test_cpp",
    "test_extension_interface",
    "test_gc",
    "test_generator",
    "test_generator_nested",
    "test_greenlet",
    "test_greenlet_trash",
    pytest.param("test_interpreter_shutdown", marks=pytest.mark.slow),  # a process for each
    "test_leaks",
    "test_stack_saved",
    "test_throw",
    "test_tracing",
    "test_version",
    "test_weakref",
]

# Here the real one runs beside ours in the slow lane only.
TAKE_LONG = {"test_greenlet", "test_leaks"}

# What is otherwise here, and why.
OTHERWISE = {
    "test_stack_saved.Test.test_stack_saved": "counts bytes that were copied off the stack; none are",
    "test_greenlet.TestBrokenGreenlets.test_failed_to_slp_switch_into_running": (
        "has the copying of a stack fail, and expects an abort; nothing is copied"
    ),
    "test_cpp.CPPTests.test_unhandled_std_exception_as_greenlet_function_aborts": (
        "it aborts here, too, but it is Rust that says so, and does not know the exception's text"
    ),
    "test_greenlet.TestGreenlet.test_throw_to_dead_thread_doesnt_crash": (
        "looks at the frame of a greenlet that was suspended when its thread ended; here it was ended with it"
    ),
    "test_leaks.TestLeaks."
    "test_untracked_memory_doesnt_increase_unfinished_thread_dealloc_in_main": (
        "expects no GreenletExit in greenlets that are suspended when their thread ends"
    ),
}
# Tests that are said to leak, and do not here.
LEAK_ELSEWHERE = "to leak but it did not"


def fetch_wheel(folder):
    given = os.environ.get("FIBERBACK_GREENLET_WHEEL")
    if given:
        return pathlib.Path(given)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary"]
    command += [":all:", "--dest", str(folder), f"greenlet=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = list(folder.glob("greenlet-*.whl"))
    if not found:
        if any(sign in done.stderr for sign in ("connection broken by", "ConnectionError")):
            pytest.skip(f"the package registry cannot be reached: {done.stderr.strip()[-300:]}")
        pytest.fail(done.stderr)
    return found[0]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A folder with greenlet's tests in a package `greenlet` that is ours."""
    for name in ("objgraph", "psutil"):
        import_or_skip(name)
    folder = tmp_path_factory.mktemp("greenlet")
    with zipfile.ZipFile(fetch_wheel(folder)) as archive:
        archive.extractall(folder / "wheel")
    package = folder / "suite" / "greenlet"
    package.mkdir(parents=True)
    shutil.copytree(folder / "wheel" / "greenlet" / "tests", package / "tests")
    (package / "__init__.py").write_text(PACKAGE)
    return package.parent


@pytest.fixture(scope="module")
def real(suite):
    """A folder with the whole wheel."""
    return suite.parent / "wheel"


def run(suite, module, *, leakchecks):
    """How each test ended; and what was wrong, by test."""
    env = dict(os.environ, PYTHONPATH=str(suite))
    if not leakchecks:
        env["GREENLET_SKIP_LEAKCHECKS"] = "1"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", RUNNER, module],
        cwd=suite,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )
    report = done.stdout[-3000:] + done.stderr[-6000:]
    assert done.returncode == 0, report
    result = json.loads(done.stdout.splitlines()[-1])
    ends, wrong = (
        {name.removeprefix("greenlet.tests."): each for name, each in result[kind].items()}
        for kind in ("ends", "wrong")
    )
    for name in [name for name, text in wrong.items() if LEAK_ELSEWHERE in text]:
        del wrong[name]
        ends[name] = "passed"
    assert ends or wrong
    return ends, wrong


def run_ours(suite, module, *, leakchecks):
    ends, wrong = run(suite, module, leakchecks=leakchecks)
    expected = {name for name in OTHERWISE if name.startswith(f"{module}.")}
    assert wrong.keys() == expected, "\n".join(wrong.values()) or f"passes now: {expected}"
    return ends


def run_side_by_side(suite, real, module, *, leakchecks):
    """What passes with greenlet passes with ours, but for what is otherwise, and ours skips no more."""
    theirs, _ = run(real, module, leakchecks=leakchecks)
    ours = run_ours(suite, module, leakchecks=leakchecks)
    lost = {name for name, end in theirs.items() if ours.get(name) != end}
    assert lost <= OTHERWISE.keys(), lost
    otherwise = {name for name in OTHERWISE if name.startswith(f"{module}.")}
    assert otherwise <= theirs.keys(), "is otherwise with greenlet, too"


def test_these_are_all(suite):
    files = (suite / "greenlet" / "tests").glob("test_*.py")
    known = [getattr(module, "values", [module])[0] for module in MODULES]
    assert sorted(path.stem for path in files) == known


@pytest.mark.parametrize("module", MODULES)
def test_greenlets_own_suite(suite, real, module):
    # (greenlet copies stacks, and a sanitizer takes that for an underflow: .ci/python/sanitize.)
    if module in TAKE_LONG or "FIBERBACK_SANITIZED" in os.environ:
        run_ours(suite, module, leakchecks=False)
    else:
        run_side_by_side(suite, real, module, leakchecks=False)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_greenlets_own_suite_with_its_leak_checks(suite, real, module):
    takes_long()
    run_side_by_side(suite, real, module, leakchecks=True)
