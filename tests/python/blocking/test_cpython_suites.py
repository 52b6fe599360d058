"""CPython's own tests of what is hooked, in a running loop: what passes natively passes with the hooks in force."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
from support import only_fiberback, takes_long

pytestmark = [only_fiberback, pytest.mark.slow, pytest.mark.sampled, pytest.mark.time_limit(900)]

# Prints how each test has ended. The second argument says whether the hooks are in force, in a loop that runs.
RUN = """
import importlib, json, sys, unittest
import fiberback

class Result(unittest.TestResult):
    ended = {}
    def addSuccess(self, test):
        self.ended.setdefault(test.id(), "passed")
    def addFailure(self, test, error):
        self.ended[test.id()] = f"failed: {error[1]!r}"
    addError = addFailure
    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.addFailure(test, error)
    def addSkip(self, test, reason):
        self.ended[test.id()] = "skipped"

def chosen(suite):
    for each in suite:
        if isinstance(each, unittest.TestCase):
            if not left_out & set(each.id().split(".")):
                yield each
        else:
            yield type(suite)(chosen(each))

def run():
    module = importlib.import_module("test." + name)
    loader = unittest.defaultTestLoader
    unittest.TestSuite(chosen(loader.loadTestsFromModule(module))).run(Result())

async def main():
    run()

name, hooked, left_out = sys.argv[1], sys.argv[2], set(sys.argv[3:])
if hooked == "hooked":
    fiberback.run(main(), blocking=True)
else:
    run()
print()
print(json.dumps(Result.ended))
"""

IN_THE_LOOP = "the handler of a signal raises in the code that the thread is at, which is the loop"
# Tests and classes that are left out: what ends the loop, and with it all others.
LEFT_OUT = {
    "test_selectors": {"test_select_interrupt_exc": IN_THE_LOOP},
    "test_socket": {
        "test_sendall_interrupted": IN_THE_LOOP,
        "test_sendall_interrupted_with_timeout": IN_THE_LOOP,
        "testInterruptedTimeout": IN_THE_LOOP,
        "InterruptedRecvTimeoutTest": IN_THE_LOOP,
        "InterruptedSendTimeoutTest": IN_THE_LOOP,
    },
}
# What passes natively only.
OTHERWISE = {
    "test_socket": {
        "testRefCountGetNameInfo": "counts references, of which the executor's thread may have one",
        "testStream": "both runs want the same address of the machine's VSOCK",
    },
    "test_subprocess": {
        "test_communicate_BrokenPipeError_stdin_write": "looks which of its ways communicate() takes",
        "test_stopped": "puts a function in the place of os.waitpid, which Popen.poll() does not call",
    },
}


def ends(name, how, folder):
    done = subprocess.run(
        [sys.executable, "-c", RUN, name, how, *LEFT_OUT.get(name, ())],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "name",
    [
        "test_select",
        "test_selectors",
        "test_queue",
        "test_httplib",
        "test_urllib2_localnet",
        "test_socket",
        "test_ssl",
        "test_subprocess",
    ],
)
def test_suite(name, tmp_path):
    takes_long()
    if importlib.util.find_spec(f"test.{name}") is None:
        pytest.skip(f"this CPython comes without test.{name}")
    found = {}
    for how in ("natively", "hooked"):
        folder = tmp_path / how
        folder.mkdir()
        found[how] = ends(name, how, folder)
    passed = {test for test, end in found["natively"].items() if end == "passed"}
    assert len(passed) > 3
    known = OTHERWISE.get(name, {}).keys()
    worse = {
        test: found["hooked"].get(test)
        for test in passed
        if found["hooked"].get(test) != "passed" and test.split(".")[-1] not in known
    }
    print(f"{name}: {len(passed)} pass natively, {len(passed) - len(worse)} with the hooks")
    assert worse == {}
