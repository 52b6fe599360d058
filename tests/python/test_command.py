"""`python -m fiberback`: what is there, whether it works, prepared scripts, the table of errors."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]


def command(*arguments, cwd, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "fiberback", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=100,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_facts(tmp_path, fb):
    import_or_skip("uvloop")
    said = command(cwd=tmp_path)
    for word in (fb.__version__, sys.version.split()[0], "asyncio", "uvloop ", "guarded by"):
        assert word in said, said
    assert command("--version", cwd=tmp_path).strip() == fb.__version__


def test_check(tmp_path):
    said = command("--check", cwd=tmp_path)
    assert "FAILED" not in said
    assert said.splitlines()[-1].endswith("work here")


SCRIPT = """
import asyncio, sys
import fiberback

async def request(n):
    await asyncio.sleep(0)
    return n

async def main():
    # The portal tells that this loop was prepared: without one the stack would be parked.
    assert fiberback.has_portal()
    return fiberback.await_(request(7))

if __name__ == "__main__":
    print(asyncio.run(main()), sys.argv[1:], __file__.endswith("script.py"))
    import beside
"""


def test_run_prepares_every_loop_of_a_script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "beside.py").write_text("print('beside')")
    said = command("run", "script.py", "--flag", "x", cwd=tmp_path)
    assert said == "7 ['--flag', 'x'] True\nbeside\n"


def test_run_passes_exit_codes_and_errors_on(tmp_path):
    (tmp_path / "script.py").write_text("import sys\nsys.exit(3)\n")
    command("run", "script.py", cwd=tmp_path, code=3)
    (tmp_path / "script.py").write_text("1 / 0\n")
    command("run", "script.py", cwd=tmp_path, code=1)


def test_run_with_our_greenlet(tmp_path):
    script = "import greenlet, sys\nprint(greenlet.__name__, sys.argv[1:])\n"
    (tmp_path / "script.py").write_text(script)
    said = command("run", "--greenlet", "script.py", "--greenlet", cwd=tmp_path)
    assert said == "fiberback.greenlet ['--greenlet']\n"
    (tmp_path / "script.py").write_text("import fiberback.__main__ as it\nit.main([])\n")
    said = command("run", "--greenlet", "script.py", cwd=tmp_path)
    assert "fiberback.greenlet, as greenlet 3." in said


def test_errors(tmp_path):
    said = command("errors", cwd=tmp_path)
    assert "\n    cure: " in said
    assert "wrong-thread\n" in said and "trio-no-portal\n" in said
    one = command("errors", "trio-no-portal", cwd=tmp_path)
    assert one.startswith("trio-no-portal\n") and "with_portal_run_tree" in one
    assert command("errors", "[fiberback:trio-no-portal]", cwd=tmp_path) == one  # as messages end
    command("errors", "no-such-code", cwd=tmp_path, code=1)
