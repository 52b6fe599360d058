"""Whether a library is loaded: somebody has imported it, and it can be used.

Not the same as having a key in `sys.modules`: None there forbids the import, and while a module is
being imported, by another thread say, it is there without what it will have.
"""

from __future__ import annotations

import sys


def is_loaded(name: str) -> bool:
    """Whether `import name` would at once give a module that is complete."""
    module = sys.modules.get(name)
    if module is None:
        return False
    return not getattr(getattr(module, "__spec__", None), "_initializing", False)
