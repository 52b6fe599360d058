"""A pytest plugin (`-p hidden_native`) for runs without the native module: what `not_served.txt` lists fails there.

Each line of that file is the name of a test, with or without its parameters, and after a tab the reason. A test
that is listed must fail, so that the list stays true; where the reason begins with "not run:" it is not begun.
"""

import pathlib

import pytest

LIST = pathlib.Path(__file__).with_name("not_served.txt")


def reasons():
    lines = LIST.read_text().splitlines()
    return dict(line.split("\t") for line in lines if line and not line.startswith("#"))


def pytest_collection_modifyitems(items):
    listed = reasons()
    for item in items:
        name = f"{item.path.parent.name}/{item.path.name}::{item.name}"
        reason = listed.get(name) or listed.get(name.partition("[")[0])
        if reason is not None:
            runs = not reason.startswith("not run:")
            item.add_marker(pytest.mark.xfail(reason=reason, run=runs, strict=True))
