"""The faces that there are, so that an object has one, and the metaclass by which all of them are known."""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakValueDictionary

from .home import Home

_lock = threading.Lock()
# By the ids of the objects, which live as long as their faces do.
_faces: WeakValueDictionary[int, Any] = WeakValueDictionary()


class IsFace(type):
    """The metaclass of faces' classes."""

    # The async class, and what is really made when a face is: that, or a class derived from it.
    _fiberback_class: Any
    _fiberback_inner: Any


def bind(face: Any, value: Any, home: Home) -> Any:
    """Have `face` be that of `value`, from now on."""
    object.__setattr__(face, "_fiberback_object", value)
    object.__setattr__(face, "_fiberback_home", home)
    with _lock:
        _faces[id(value)] = face
    return face


def face_of(value: Any) -> Any:
    """The face that `value` has already, or None."""
    found = _faces.get(id(value))
    return found if found is not None and found._fiberback_object is value else None
