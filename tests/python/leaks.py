"""Stacks that were given up, and less that was done than was wanted: never, in any process of the suite,
unless a test asks for it.

Whatever is not safe to free is leaked, which is right, and what cannot be had is done without; neither may
go unnoticed. So each test is compared with what was there before it, in this process (`COUNTED` in
`fiberback.stats()`) and in those that it has started (at_exit/sitecustomize.py). `@pytest.mark.leaks` is
for tests that give stacks up, or have to do without.
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
from collections import Counter

sys.path.insert(0, str(pathlib.Path(__file__).with_name("at_exit")))

from counted import of

HERE = pathlib.Path(__file__).parent


def watch_subprocesses() -> None:
    """From here on, every Python that is started tells of stacks that it has given up."""
    handle, path = tempfile.mkstemp(
        prefix="fiberback-leaks-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")
    )
    os.close(handle)
    os.environ["FIBERBACK_LEAKS"] = path
    paths = [str(HERE / "at_exit"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def stop_watching() -> None:
    path = os.environ.pop("FIBERBACK_LEAKS", None)
    if path is not None:
        pathlib.Path(path).unlink(missing_ok=True)


def in_this_process() -> Counter[str]:
    native = sys.modules.get("fiberback._fiberback")
    return Counter(of(native.stats())) if native is not None else Counter()


def in_subprocesses() -> list[str]:
    """What ended subprocesses have said since the last time."""
    path = os.environ.get("FIBERBACK_LEAKS")
    if path is None:
        return []
    with open(path, "r+") as file:
        lines = file.read().splitlines()
        file.truncate(0)
    return lines
