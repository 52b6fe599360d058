"""References that objects of CPython's keep in fields which Python code can only read.

A field is found by what is known to be in it: the one word of the object that is equal to it. The place is
checked on every use, so nothing is ever written where something else was. Without ctypes there is no writing.
"""

from __future__ import annotations

import sys
from typing import Any

_ctypes: Any
try:
    import ctypes as _ctypes
except ImportError:
    _ctypes = None

can_write = _ctypes is not None and sys.implementation.name == "cpython"


def replace(owner: Any, kind: type, old: Any, new: Any) -> bool:
    """Puts `new` in the place of `old`, if exactly one field of `owner`, as `kind` lays it out, refers to that."""
    if not can_write:
        return False
    place = _place(owner, kind, id(old))
    if place is None:
        return False
    _ctypes.pythonapi.Py_IncRef(_ctypes.py_object(new))
    place.value = id(new)
    _ctypes.pythonapi.Py_DecRef(_ctypes.py_object(old))
    return True


def offset_of(owner: Any, kind: type, thing: Any) -> int | None:
    """Where `owner` refers to `thing`, in bytes from its beginning."""
    place = _place(owner, kind, id(thing)) if can_write else None
    return None if place is None else _ctypes.addressof(place) - id(owner)


def fill(owner: Any, offset: int, thing: Any) -> bool:
    """Puts `thing` into a field that refers to nothing."""
    place = _ctypes.c_void_p.from_address(id(owner) + offset)
    if place.value is not None:
        return False
    _ctypes.pythonapi.Py_IncRef(_ctypes.py_object(thing))
    place.value = id(thing)
    return True


def _place(owner: Any, kind: type, address: int) -> Any:
    word = _ctypes.sizeof(_ctypes.c_void_p)
    found = [
        place
        for offset in range(object.__basicsize__, kind.__basicsize__ - word + 1, word)
        if (place := _ctypes.c_void_p.from_address(id(owner) + offset)).value == address
    ]
    # A second one would be something else, and we would not know which is which.
    return found[0] if len(found) == 1 else None
