"""What a forked child has inherited of its parent's event loops: none of them runs there.

`os.fork()`, `multiprocessing`'s "fork" method and `preexec_fn` go on in the child on top of the stack
that they were called on. The loop below it, and those of other threads, are the parent's: a portal of
that loop must not be suspended, nor may anybody wait for such a loop. Unless the child says that the
same loop runs there (`asyncio._set_running_loop`), which portals then follow.
"""

from __future__ import annotations

import asyncio
import os
import threading
from asyncio import _get_running_loop
from typing import Any

from .._fiberback import current_frames, note_fork
from .library import is_trio_running
from .thread import thread_of


class _Mine(threading.local):
    # What runs below a fork that is in progress.
    below: Any = None


_mine = _Mine()
# What ran below the fork that this process began with, or None.
_forked_on: Any = None
_is_child = False


def is_parents(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether `loop`, which says that it runs, does so in the process that forked this one."""
    if not _is_child:
        return False
    ident = thread_of(loop)
    if ident == threading.get_ident():
        return loop is not _get_running_loop()
    return ident not in current_frames()


def is_on_parents_trio() -> bool:
    """Whether Trio, which says that it runs this code, does so in the process that forked this one."""
    return _forked_on is is_trio_running and _mine.below is is_trio_running


def _before() -> None:
    # Before 3.14 the child cannot ask any more: asyncio's answer is None in other processes.
    _mine.below = is_trio_running if is_trio_running() else _get_running_loop()


def _in_parent() -> None:
    _mine.below = None


def _in_child() -> None:
    global _forked_on, _is_child
    _is_child, _forked_on = True, _mine.below
    if _forked_on is not None:
        note_fork(_forked_on)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
