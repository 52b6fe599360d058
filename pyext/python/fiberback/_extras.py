"""What a library's module needs beyond fiberback: the extra that brings it is named where it lacks."""

from __future__ import annotations

import importlib.util

from . import _messages


def missing(module: str, extra: str, *packages: str) -> str | None:
    """What to say if one of these packages is not installed."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    needs = " and ".join(absent)
    return _messages.NEEDS_EXTRA.format(module=module, needs=needs, extra=extra)


def need(module: str, extra: str, *packages: str) -> None:
    """Raises ImportError, naming the extra, unless these packages are installed."""
    said = missing(module, extra, *packages)
    if said is not None:
        raise ImportError(said, name=module)
