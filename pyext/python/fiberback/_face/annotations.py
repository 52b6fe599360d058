"""Return annotations: what a sync face gives in place of what the async function says."""

from __future__ import annotations

import collections.abc
import contextlib
import re
import typing
from typing import Any

SYNC = {
    "AsyncIterator": "Iterator",
    "AsyncIterable": "Iterable",
    "AsyncGenerator": "Generator",
    "AbstractAsyncContextManager": "AbstractContextManager",
    "AsyncContextManager": "ContextManager",
}
_ASYNC = re.compile(rf"\b({'|'.join(SYNC)})\b")


def returned(function: Any) -> Any:
    """The return annotation, or None."""
    try:
        return function.__annotations__.get("return")
    except Exception:  # from 3.14 on they are evaluated here, and may name what is not there
        return None


def in_sync(annotation: Any) -> Any:
    """An annotation, text or not, of what is iterated or entered in its sync form. Others are the same."""
    if isinstance(annotation, str):
        return _ASYNC.sub(lambda found: SYNC[found[1]], annotation)
    origin = typing.get_origin(annotation)
    name = getattr(origin, "__name__", None)
    if origin is None or name not in SYNC:
        return annotation
    arguments = typing.get_args(annotation)
    if name == "AsyncGenerator":
        arguments = (*arguments, None)
    module = contextlib if name.endswith("ContextManager") else collections.abc
    sync: Any = getattr(module, SYNC[name])
    return sync[arguments]
