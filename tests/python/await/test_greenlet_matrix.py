"""Who switches to whom: the table of PARKING.md, cell by cell, each row in a process of its own."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import sys

import pytest
from support import import_or_skip, only_fiberback

import_or_skip("greenlet")

CELL = pathlib.Path(__file__).with_name("greenlet_cell.py")
WHO = [
    "thread stack",
    "portal",
    "nested portal",
    "uvloop portal",
    "trio portal",
    "runner",
    "parked on the host",
    "parked on a runner",
    "greenlet of a portal",
    "waiting greenlet",
    "awaited code",
    "awaited code without a portal",
    "another thread",
]
ECHO, PING = "('echo', 7)", "('echo', 'ping')"
ELSEWHERE = "greenlet.error: ['Cannot switch to a different thread']"
EXITED = "greenlet.error: ['cannot switch to a different thread (which happens to have exited)']"
RAISED = "__main__.Ping: []"
# greenlet keeps its suspended greenlets from the collector by `tp_is_gc`. Not all CPythons heed that
# (3.15.0 with greenlet 3.5.6 does not): then the greenlet is cleared, and its code does not end.
IN_A_CYCLE = """
import gc, sys, greenlet
log, main = [], greenlet.getcurrent()
def body():
    try:
        main.switch()
    finally:
        log.append("finally")
target = greenlet.greenlet(body)
target.switch()
box = [target]
cycle = [box]
box.append(cycle)
del target, box, cycle
gc.collect()
assert "fiberback" not in sys.modules
print("ended" if log == ["finally"] else f"not ended: {log}")
"""


@functools.cache
def in_a_cycle():
    """What greenlet does where there is no fiberback."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CYCLE], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def expected(how):
    """What greenlet does on a thread without fibers."""
    if how == "drop":
        kinds = ("begun before", "begun here", "of a suspended portal", "of an ended portal")
        return {**dict.fromkeys(kinds, "ended"), "in a cycle": in_a_cycle()}
    thrown = how.endswith("throw")
    answer = PING if thrown else ECHO
    return {
        "begun before": answer,
        "begun here": answer,
        "not begun": RAISED if thrown else "('echo', (7,))",
        "dead": RAISED if thrown else "7",
        "itself": RAISED if thrown else "7",
        "of a suspended portal": answer,
        "of an ended portal": answer,
        "of another thread": ELSEWHERE,
        "of an ended thread": EXITED,
    }


@only_fiberback
@pytest.mark.parametrize("how", ["switch", "throw", "api switch", "api throw", "drop"])
@pytest.mark.parametrize("who", WHO)
def test_row(who, how):
    if who == "uvloop portal":
        import_or_skip("uvloop")
    if who == "trio portal":
        import_or_skip("trio")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(CELL), who, how],
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1:] == ["end"], done.stdout + done.stderr[-3000:]
    assert dict(line.split(": ", 1) for line in lines[:-1]) == expected(how)
    assert done.stderr == ""
