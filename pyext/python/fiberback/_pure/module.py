"""`fiberback._fiberback` where there is no native module: the names of `_fiberback.pyi`."""

from __future__ import annotations

import atexit
from typing import Any

from . import messages as _messages
from .absent import StackMemoryError as StackMemoryError
from .absent import close_parked as close_parked
from .absent import current_turn as current_turn
from .absent import end_hosted as end_hosted
from .absent import get_stack_size as get_stack_size
from .absent import is_in_turn as is_in_turn
from .absent import meet_greenlet as meet_greenlet
from .absent import note_greenlet_replaced as note_greenlet_replaced
from .absent import parked as parked
from .absent import parked_on as parked_on
from .absent import refusal as _refusal
from .absent import run_hosted as run_hosted
from .absent import set_external_event as set_external_event
from .absent import set_parking as set_parking
from .absent import set_stack_size as set_stack_size
from .absent import stats as stats
from .absent import trim as trim
from .await_here import await_ as await_
from .calls import scope as scope
from .calls import scoped as scoped
from .calls import scoped_call as scoped_call
from .calls import scoped_portal as scoped_portal
from .contexts import lend_context as lend_context
from .contexts import set_finalizer as set_finalizer
from .factories import create_task_factory as create_task_factory
from .factories import eager_task_factory as eager_task_factory
from .factories import task_class as task_class
from .factories import task_factory as task_factory
from .frames import current_frames as current_frames
from .frames import frames_from as frames_from
from .frames import lines_from as lines_from
from .frames import local_of as local_of
from .frames import locals_of as locals_of
from .hooks import set_guarded as set_guarded
from .hooks import set_hooks as set_hooks
from .portal import Portal as Portal
from .portal import call_masked as call_masked
from .portal import close_all as close_all
from .portal import current_portal as current_portal
from .portal import note_fork as note_fork
from .portal import on_portal as on_portal
from .portal import suspended as suspended
from .portal import suspended_lines as suspended_lines
from .signals import write_on_signal as write_on_signal
from .tasks import bestow as bestow
from .tasks import context_of as context_of
from .tasks import portal_of as portal_of
from .tasks import unbestow as unbestow
from .version import VERSION as __version__
from .watch_loops import watch_loops as watch_loops

__all__ = ["__version__"]

messages = _messages.table()
_C_API = None

_kept: list[Any] = []


def leak(object: object, /) -> None:
    """Keep an object for ever: it is never finalized."""
    _kept.append(object)


def position(heap: list[Any], item: object, /) -> int:
    """An index at which a heap has this very object, or -1."""
    return next((index for index, each in enumerate(heap) if each is item), -1)


def __getattr__(name: str) -> Any:
    if name == "greenlet":
        raise ImportError(_refusal("fiberback.greenlet"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


atexit.register(close_all)
