"""Builds native extensions for the interpreter that runs the tests."""

from __future__ import annotations

import functools
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
from types import ModuleType

import pytest

CHECKOUT = pathlib.Path(__file__).parents[2]


@functools.cache
def store_extension_file(*features: str) -> pathlib.Path:
    """The library of examples/store_extension, built by Cargo beside the package that is tested."""
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.skip("cargo is not installed")
    # Beside the virtual environment, where the package was built: what they share is built once.
    target = os.environ.get("CARGO_TARGET_DIR") or pathlib.Path(sys.prefix).parent / "cargo"
    command = [cargo, "build", "--release", "--package", "store-extension", "--quiet"]
    environment = {
        **os.environ,
        "CARGO_TARGET_DIR": str(target),
        "PYO3_PYTHON": sys.executable,
        "PYO3_BUILD_EXTENSION_MODULE": "1",
    }
    done = subprocess.run(
        [*command, "--features", ",".join(features)],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    names = {"darwin": "libstore_extension.dylib", "win32": "store_extension.dll"}
    return pathlib.Path(target) / "release" / names.get(sys.platform, "libstore_extension.so")


def load(name: str, file: pathlib.Path) -> ModuleType:
    """The extension module `name` of that file."""
    loader = importlib.machinery.ExtensionFileLoader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def compile_c(name: str, source: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Compiles an extension module written in C against the header that the package brings."""
    import fiberback

    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("a C compiler is not installed")
    include = pathlib.Path(fiberback.__file__).parent / "include"
    file = folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    python = sysconfig.get_path("include")
    options = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{include}", f"-I{python}"]
    done = subprocess.run(
        [compiler, *options, "-o", str(file), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return file
