"""Other packages' own tests, out of their sdists on PyPI, and versions of them beside the one that is installed;
they are no part of this repository."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tarfile
from typing import NoReturn

import pytest
from support import extract


def fetch(name: str, version: str, folder: pathlib.Path) -> pathlib.Path:
    """The sdist, downloaded into `folder`, or out of the folder that `FIBERBACK_SDISTS` names.

    Skips the test only when the registry cannot be reached.
    """
    given = os.environ.get("FIBERBACK_SDISTS")
    if given:
        return _found(name, version, pathlib.Path(given))[0]
    # What pip needs to ask the sdist for its dependencies may be wheels.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    command += [str(folder), "--no-binary", name, f"{name}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = _found(name, version, folder)
    if not found:
        _explain(done.stderr)
    return found[0]


def unpack(name: str, version: str, folder: pathlib.Path) -> pathlib.Path:
    """The folder of the unpacked sdist, in `folder`."""
    with tarfile.open(fetch(name, version, folder)) as archive:
        extract(archive, folder)
    return next(each for each in folder.iterdir() if each.name.lower() == f"{name}-{version}")


def install(python: pathlib.Path, *requirements: str) -> None:
    """Into the environment of that interpreter. Skips the test only when the registry cannot be reached."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True)
    if done.returncode != 0:
        _explain(done.stderr)


def _explain(said: str) -> NoReturn:
    # What pip says when it gets no answer, as opposed to an answer that it dislikes.
    if any(sign in said for sign in ("connection broken by", "ConnectionError")):
        pytest.skip(f"the package registry cannot be reached: {said.strip()[-300:]}")
    pytest.fail(said)


def _found(name: str, version: str, folder: pathlib.Path) -> list[pathlib.Path]:
    return [each for each in folder.iterdir() if each.name.lower() == f"{name}-{version}.tar.gz"]
