"""Type checkers agree with the package: mypy --strict on a typed program, stubtest on the stub."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

EXAMPLE = pathlib.Path(__file__).parent / "typing" / "example.py"


def run(cwd, *command):
    # Not from the checkout: what is checked is the installed package. And `cwd` may be written to:
    # stubtest keeps its cache there, whatever MYPY_CACHE_DIR says.
    import fiberback

    package = pathlib.Path(fiberback.__file__).resolve().parent
    root = str(pathlib.Path(fiberback.__file__).parent.parent)
    env = dict(os.environ, MYPY_CACHE_DIR=os.devnull)
    if "site-packages" not in root:
        env["MYPYPATH"] = root
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=170, env=env, cwd=cwd
    )
    assert done.returncode == 0, f"{package}\n{done.stdout[-5000:]}{done.stderr[-3000:]}"


def test_typed_example_under_mypy_strict(tmp_path):
    import_or_skip("mypy")
    run(tmp_path, "-m", "mypy", "--strict", str(EXAMPLE))


def test_stubtest(tmp_path):
    import_or_skip("mypy")
    allowed = EXAMPLE.parent / "stubtest-allowlist.txt"
    run(tmp_path, "-m", "mypy.stubtest", "--concise", "--allowlist", str(allowed), "fiberback")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14", "3.15"])
def test_package_under_mypy_strict(tmp_path, version):
    """Whatever interpreter this is: code for other versions is checked for those only."""
    import_or_skip("mypy")
    import_or_skip("greenlet")
    if importlib.util.find_spec("greenlet-stubs") is None:
        pytest.skip("types-greenlet is not installed")
    run(tmp_path, "-m", "mypy", "--strict", "--python-version", version, "-p", "fiberback")


def test_typed_example_runs(tmp_path):
    run(tmp_path, str(EXAMPLE))


@pytest.mark.parametrize("name", ["py.typed", "_fiberback.pyi"])
def test_marker_files_are_installed(name):
    import fiberback

    assert (pathlib.Path(fiberback.__file__).parent / name).exists()
