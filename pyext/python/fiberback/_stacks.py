"""Stacks and their memory: how large they are, how many there are, and giving them back.

Every portal that waits in `await_` keeps a stack of its own. Stacks are address space of which
only the pages that were touched cost memory, so their size hardly matters; their number does.
"""

from __future__ import annotations

from typing import TypedDict

from . import _counts, _fiberback


class Stats(TypedDict):
    """What `stats()` returns. Counts, except where bytes are named."""

    fibers_idle: int
    """Fibers of the calling thread that wait for work, each with its stack."""
    fibers_suspended: int
    """Portals of the calling thread that wait in `await_` now."""
    stack_size: int
    """Bytes of each new stack, as `get_stack_size()`."""
    stacks_shared: int
    """Stacks of the calling thread that what its tasks await is run on, where many of them wait."""
    stacks_in_use: int
    """Stacks that fibers of any thread hold, idle ones and shared ones included."""
    stacks_warm: int
    """Stacks kept for reuse with the memory that they have touched."""
    stacks_cold: int
    """Stacks kept for reuse as address space only."""
    stacks_high_water: int
    """The most stacks that there ever were at once."""
    stacks_leaked: int
    """Stacks that were given up for good since the process began, with what they refer to: 0, unless
    something is wrong. A RuntimeWarning says what, once for each kind: threads that end while their
    tasks wait, portals that will not end, native code that leaves frames of its own behind."""
    stacks_small: int
    """Stacks smaller than `stack_size` that fibers got since the process began, since there was no address
    space for larger ones: 0, unless something limits it. A RuntimeWarning says so once."""
    stacks_not_shared: int
    """Steps of what tasks await that took a page of the task's own stack, since there was no other: 0,
    unless memory or address space is short. A RuntimeWarning says so once."""
    wakes_put_off: int
    """Callers that waited without a portal and could not go on at once when their wait was over, because
    other code was in their context: each went on a millisecond later, or was tried again."""
    loops_not_passed_on: int
    """Event loops that stayed on their own stack while callers without a portal waited, since there was
    no other: 0, unless memory or address space is short. A RuntimeWarning says so once."""
    loops_blocked: int
    """How often code has blocked an event loop for longer than a `watch` allows, and was reported."""
    loops_unwatched: int
    """Event loops that `watch` cannot watch, for they have no `call_soon_threadsafe` that takes a context: the logger
    "fiberback" gets a warning for the first."""
    looks_given_up: int
    """Event loops whose tasks `stacks` or `watch` could not list, for other threads changed them again and
    again: `stacks` says so in its result; in `watch`'s report no tasks are named then."""
    reserved_bytes: int
    """Address space of all stacks, in bytes; not memory."""
    greenlet_loaded: int
    """1 if `greenlet` was found in the process, and its switches are looked after. Else 0."""
    greenlet_replaced: int
    """1 if `import greenlet` gives `fiberback.greenlet` (see `fiberback.greenlet.install()`). Else 0."""


def set_stack_size(size: int, /) -> None:
    """Set the size of the stacks that are made from now on, in bytes, rounded up to whole pages.

    Unless set, it is 16 MiB, twice what threads usually have; where address space is scarce (a
    low `RLIMIT_AS`, `vm.overcommit_memory=2`) it is 1 MiB (4 on CPython 3.11), and likewise once
    address space has run out. A size that was set is never reduced: a portal that finds no such
    stack raises StackMemoryError.

    A larger stack serves C code that recurses deeply; Python functions that call each other take
    none of it (on 3.12 and newer). A stack is address space, of which touched pages cost memory:
    a smaller one saves next to nothing.

    Applies to all threads. Portals that wait keep the stacks that they have; idle stacks of the
    calling thread are given back, those of other threads are still used up. Raises ValueError if
    the size is too small for CPython (256 KiB, 768 up to 3.13) or above 64 GiB, TypeError if it
    is no integer, OverflowError if it is negative or larger than any address.
    """
    _fiberback.set_stack_size(size)


def get_stack_size() -> int:
    """The size of the stacks that are made from now on, in bytes: see `set_stack_size`."""
    return _fiberback.get_stack_size()


def stats() -> Stats:
    """Count fibers, stacks and their address space; see `Stats`.

    Fibers are those of the calling thread, stacks those of the process (since the last
    `set_stack_size`). Cheap enough for monitoring, not meant for inner loops.
    """
    return {
        **_fiberback.stats(),
        "loops_blocked": _counts.loops_blocked,
        "loops_unwatched": _counts.loops_unwatched,
        "looks_given_up": _counts.looks_given_up,
    }


def trim() -> int:
    """Give the memory of idle stacks back to the system, say after a burst of many tasks.

    That is of the stacks that the calling thread keeps and of those that no thread keeps; what
    other threads keep stays. Returns the number of bytes of stack that were given back, touched
    or not. Nothing that waits is disturbed, and the next portals work as before, a little slower.
    """
    return _fiberback.trim()
