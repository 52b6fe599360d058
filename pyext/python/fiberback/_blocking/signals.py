"""`signal.sigwait`, `sigwaitinfo` and `sigtimedwait`: a signal that is pending stays so until it is asked for, which is done
less and less often."""

from __future__ import annotations

import signal
from asyncio import _get_running_loop
from typing import Any

from .._fiberback import on_portal
from .._replacements import Replacement, named
from .poller import Wait
from .waiter import waiter_for

_sigtimedwait: Any = getattr(signal, "sigtimedwait", None)
_sigwaitinfo: Any = getattr(signal, "sigwaitinfo", None)
_sigwait: Any = getattr(signal, "sigwait", None)
# Seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02


def _until_pending(sigset: Any, seconds: float | None) -> Any:
    """None if nothing came, or the caller cannot wait."""
    found = None

    def is_pending() -> bool:
        nonlocal found
        found = _sigtimedwait(sigset, 0)
        return found is not None

    if not is_pending():
        caller = waiter_for("signals")
        if caller is not None:
            waits = Wait(caller, seconds)
            if not waits.until(is_pending, _FIRST_PAUSE, _LONGEST_PAUSE):
                is_pending()
    return found


def sigtimedwait(sigset: Any, timeout: Any, /) -> Any:
    if (_get_running_loop() is None and not on_portal()) or not timeout > 0:
        return _sigtimedwait(sigset, timeout)
    sigset = set(sigset)
    if waiter_for("signals") is None:
        return _sigtimedwait(sigset, timeout)
    return _until_pending(sigset, timeout)


def sigwaitinfo(sigset: Any, /) -> Any:
    if _get_running_loop() is None and not on_portal():
        return _sigwaitinfo(sigset)
    sigset = set(sigset)
    return _until_pending(sigset, None) or _sigwaitinfo(sigset)


def sigwait(sigset: Any, /) -> Any:
    if _get_running_loop() is None and not on_portal():
        return _sigwait(sigset)
    sigset = set(sigset)
    found = _until_pending(sigset, None)
    return _sigwait(sigset) if found is None else signal.Signals(found.si_signo)


REPLACEMENTS = []
if _sigtimedwait is not None:
    REPLACEMENTS = [
        Replacement(signal, "sigtimedwait", named(sigtimedwait, _sigtimedwait), by_name=True),
        Replacement(signal, "sigwaitinfo", named(sigwaitinfo, _sigwaitinfo), by_name=True),
        Replacement(signal, "sigwait", named(sigwait, _sigwait), by_name=True),
    ]
