"""What the Python layer has `await_` call, and lets it know of asyncio: see `_await.dispatch`."""

from __future__ import annotations

import threading
from types import CoroutineType
from typing import Any

from .report import report


class _Hooks:
    """Those that are not given are unset."""

    no_portal: Any = None
    is_usable: Any = None
    guard: Any = None
    not_awaitable: Any = None
    awaited: Any = None
    before_wait: Any = None
    after_wait: Any = None
    future: Any = None
    pure_future: Any = None
    wait: Any = None
    wait_for: Any = None
    current_task: Any = None


hooks = _Hooks()


def set_hooks(**given: Any) -> None:
    unknown = given.keys() - vars(_Hooks).keys()
    if unknown:
        raise TypeError("set_hooks() takes the hooks' names as keywords, and nothing else")
    vars(hooks).clear()
    vars(hooks).update(given)


class _Mine(threading.local):
    guarded = False


_mine = _Mine()


def set_guarded(guarded: bool, /) -> None:
    _mine.guarded = bool(guarded)


def is_guarded() -> bool:
    return _mine.guarded


def current_task() -> Any:
    return hooks.current_task() if hooks.current_task is not None else None


def is_for_task(yielded: Any, coro: Any) -> bool:
    """Whether what an awaitable has yielded is a future that a task may be behind.

    Tasks and what `gather` makes are subclasses of `Future`. `shield` makes a plain one that has a callback
    already, `wait` and `wait_for` (of 3.11) plain ones without: those are known by their code.
    """
    future = hooks.future
    if future is None or yielded is None:
        return False
    if type(yielded) is not future:
        pure = hooks.pure_future
        return isinstance(yielded, future) or (pure is not None and isinstance(yielded, pure))
    if getattr(yielded, "_callbacks", None):
        return True
    return type(coro) is CoroutineType and coro.cr_code in (hooks.wait, hooks.wait_for)


def before_wait(future: Any) -> Any:
    return hooks.before_wait(future) if hooks.before_wait is not None else None


def after_wait(watched: Any) -> None:
    if hooks.after_wait is None:
        return
    try:
        hooks.after_wait(watched)
    except Exception as error:
        report(error, None)
