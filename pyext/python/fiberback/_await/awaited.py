"""`await fiberback.await_(x)`: the result of what was waited for is awaited once more."""

from __future__ import annotations

import inspect
import opcode
import sys
from types import FrameType
from typing import Any

from .. import _messages

_AWAITS = opcode.opmap["GET_AWAITABLE"]
# On 3.11 the first one may do the work of both.
_CALLS = {opcode.opmap[name] for name in ("PRECALL", "CALL") if name in opcode.opmap}
_UNIT = 2  # bytes of an instruction


def check(result: Any, frame: FrameType | None = None) -> None:
    """Raises TypeError, as `await` would, if the coroutine that has called `await_` awaits the result.

    `frame` is the caller's, where it is not the one below this.
    """
    if frame is None:
        frame = sys._getframe(1)
    code, at = frame.f_code.co_code, frame.f_lasti
    # With one argument: so it is `await_` itself that is called, or what gives its result.
    if code[at] not in _CALLS or code[at + 1] != 1:
        return
    while code[at] in _CALLS or code[at] == 0:  # zeros are what is noted about the call
        at += _UNIT
    if code[at] == _AWAITS and not inspect.isawaitable(result):
        raise TypeError(_messages.ALREADY_AWAITED.format(kind=type(result).__name__))
