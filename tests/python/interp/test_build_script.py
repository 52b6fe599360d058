"""What pip says where the native module cannot be built: one sentence, with what to install, before anything
is compiled. The build script is run as cargo runs it, of interpreters and headers that are made up here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
OTHER = "3.12" if VERSION != "3.12" else "3.13"


@pytest.fixture(scope="module")
def script():
    """The one of the build that is tested."""
    target = os.environ.get("CARGO_TARGET_DIR")
    if target is None:
        pytest.skip(
            "these tests need a build of ./pyext: .ci/python/test makes it (CARGO_TARGET_DIR)"
        )
    found = list(Path(target).glob("*/build/fiberback-python-*/build-script-main"))
    assert found, f"no build script in {target}"
    return max(found, key=lambda path: path.stat().st_mtime)


@pytest.fixture
def build(script, tmp_path):
    def run(
        version=VERSION,
        implementation="CPython",
        abi=None,
        include=None,
        python=sys.executable,
        **more,
    ):
        config = {
            "implementation": implementation,
            "version": version,
            "shared": "true",
            "target_abi": abi or f"{implementation}-gil_enabled-{version}",
            "build_flags": "",
            "suppress_build_script_link_lines": "true",
        }
        if python is not None:
            config["executable"] = python
        text = "".join(f"{name}={value}\n" for name, value in config.items())
        triple = f"{os.uname().machine}-unknown-linux-gnu"
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "CC") if name in os.environ},
            "DEP_PYTHON_PYO3_CONFIG": text.encode().hex(),
            "OUT_DIR": str(tmp_path),
            "TARGET": triple,
            "HOST": triple,
            "OPT_LEVEL": "0",
            "DEBUG": "false",
            "CARGO_CFG_TARGET_ENDIAN": sys.byteorder,
            "CARGO_CFG_TARGET_ENV": "gnu",
            "CARGO_CFG_TARGET_OS": "linux",
            "CARGO_CFG_TARGET_ARCH": os.uname().machine,
            **more,
        }
        if include is not None:
            environment["FIBERBACK_PYTHON_INCLUDE"] = os.pathsep.join(map(str, include))
        pyext = Path(__file__).parents[3] / "pyext"
        done = subprocess.run(
            [script], env=environment, cwd=pyext, capture_output=True, text=True, timeout=100
        )
        errors = [
            line.removeprefix("cargo::error=")
            for line in done.stdout.splitlines()
            if "::error=" in line
        ]
        assert "panicked" not in done.stderr, done.stderr
        assert len(errors) == (done.returncode != 0), (done.returncode, done.stdout, done.stderr)
        return errors[0] if errors else ""

    return run


def headers_of(version, folder, extra=""):
    """A copy of this interpreter's headers that says it is of `version`."""
    paths = sysconfig.get_paths()
    for source in {paths["include"], paths["platinclude"]}:
        shutil.copytree(source, folder, dirs_exist_ok=True)
    with open(sysconfig.get_config_h_filename()) as config:
        text = config.read()
    (folder / "pyconfig.h").write_text(text + extra)
    level = folder / "patchlevel.h"
    was, now = (
        f"#define PY_MINOR_VERSION        {name.split('.')[1]}" for name in (VERSION, version)
    )
    text = level.read_text()
    assert was in text
    level.write_text(text.replace(was, now))
    above = Path(paths["include"]).parent
    return [folder, above]


def test_this_interpreter(build, tmp_path):
    assert build() == ""
    assert f"BUILT_VERSION_HEX: isize = {sys.hexversion}" in (tmp_path / "facts.rs").read_text()


def test_free_threaded_builds_are_told_what_to_install(build):
    said = build("3.14", abi="CPython-free_threaded-3.14")
    assert "free-threaded" in said and "python3.14 instead of python3.14t" in said
    assert "pip install --only-binary :all: fiberback" in said


def test_other_implementations(build):
    said = build("3.11", "PyPy")
    assert "for CPython, and this is PyPy 3.11" in said and "--only-binary" in said


@pytest.mark.parametrize("version", ["3.10", "3.16"])
def test_versions_without_a_file(build, version):
    said = build(version)
    assert f"this is {version}" in said and "3.11, 3.12, 3.13, 3.14, 3.15" in said


def test_missing_headers_name_the_package(build, tmp_path):
    said = build(include=[tmp_path / "nowhere"])
    assert (
        "Python.h" in said
        and f"apt-get install python{VERSION}-dev" in said
        and str(tmp_path) in said
    )
    assert "FIBERBACK_PYTHON_INCLUDE" in said


def test_internal_headers_are_needed_too(build, tmp_path):
    folder = tmp_path / "include"
    include = headers_of(VERSION, folder)
    shutil.rmtree(folder / "internal")
    assert "no internal/pycore_frame.h" in build(include=include[:1])


def test_headers_of_another_version(build, tmp_path):
    said = build(include=headers_of(OTHER, tmp_path / "include"))
    assert f"are those of CPython {OTHER}" in said and f"built for {VERSION}" in said


def test_headers_of_another_build_or_system(build, tmp_path):
    include = headers_of(VERSION, tmp_path / "t", "\n#define Py_GIL_DISABLED 1\n")
    assert "does not compile with the headers" in build(include=include)
    include = headers_of(VERSION, tmp_path / "mac", "\n#undef HAVE_EPOLL\n#define HAVE_KQUEUE 1\n")
    assert "does not compile with the headers" in build(include=include)


def test_a_cross_build_without_an_interpreter_names_the_variable(build, tmp_path):
    assert "FIBERBACK_PYTHON_INCLUDE" in build(python=None)
    include = headers_of(VERSION, tmp_path / "include")
    assert build(python=None, include=include) == ""


def test_no_compiler(build):
    said = build(CC="/nowhere/cc")
    assert "a C compiler for that target is needed" in said
