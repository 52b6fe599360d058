"""What there is not without the native module: it says so, and what to install."""

from __future__ import annotations

from typing import Any

from .. import _messages
from .portal import count_suspended, suspended
from .switching import can_switch


class StackMemoryError(MemoryError):
    """A call stack for a portal could not be had: the process is out of memory, address space or mappings. Fewer
    tasks suspended in await_() at a time, or smaller stacks (set_stack_size), need less."""


def refusal(what: str) -> str:
    return _messages.NEEDS_NATIVE.format(what=what)


def set_stack_size(bytes: int, /) -> None:
    raise RuntimeError(refusal("fiberback.set_stack_size()"))


def get_stack_size() -> int:
    raise RuntimeError(refusal("fiberback.get_stack_size()"))


def trim() -> int:
    """There is nothing to give back: greenlets keep no stacks when they have ended."""
    return 0


def stats() -> dict[str, int]:
    """Counts of portals that wait; there are no stacks of ours to count."""
    return {
        "fibers_idle": 0,
        "fibers_suspended": count_suspended(),
        "stack_size": 0,
        "stacks_shared": 0,
        "stacks_in_use": len(suspended()),
        "stacks_warm": 0,
        "stacks_cold": 0,
        "stacks_high_water": 0,
        "stacks_leaked": 0,
        "stacks_small": 0,
        "stacks_not_shared": 0,
        "wakes_put_off": 0,
        "loops_not_passed_on": 0,
        "reserved_bytes": 0,
        "greenlet_loaded": int(can_switch),
        "greenlet_replaced": 0,
    }


# --- parking: await_() without a portal on a stock loop ---------------------------------------------


def set_parking(*hooks: Any) -> None:
    """Nobody is parked."""


def run_hosted(loop: Any, /) -> None:
    raise RuntimeError(refusal("running a loop's callbacks on fibers"))


def end_hosted(loop: Any, /) -> None:
    """None is hosted."""


def current_turn() -> None:
    """Callbacks run on the loop's own stack."""


def is_in_turn(loop: Any, /) -> bool:
    return False


def parked_on(loop: Any, /) -> list[Any]:
    return []


def close_parked(loop: Any, /) -> int:
    return 0


def parked() -> list[Any]:
    return []


# --- greenlets of our own, and others' native code --------------------------------------------------


def meet_greenlet(module: Any, /) -> None:
    """It switches stacks itself."""


def note_greenlet_replaced() -> None:
    raise RuntimeError(refusal("fiberback.greenlet"))


def set_external_event(type: type, /) -> None:
    """Of the C API, which there is not."""
