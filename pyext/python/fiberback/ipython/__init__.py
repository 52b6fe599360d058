"""Stands in for nest_asyncio in notebooks and in IPython: `%load_ext fiberback`.

From the next cell on, synchronous code in cells, in widgets' callbacks and in tasks calls
`fiberback.await_`, `asyncio.run` and `loop.run_until_complete`, whatever the kernel's event loop is. It waits
alone: background tasks, comm messages and the kernel go on. `%unload_ext fiberback` undoes it.

To have it always, in `ipython_kernel_config.py`, and for the terminal in `ipython_config.py`, below
`~/.ipython/profile_default`::

    c.InteractiveShellApp.extensions = ["fiberback"]
"""

from __future__ import annotations

import contextlib
from typing import Any
from weakref import WeakKeyDictionary

from .. import nest
from . import _kernel, _terminal, _tracebacks

__all__ = ["load_ipython_extension", "unload_ipython_extension"]

_loaded: WeakKeyDictionary[Any, contextlib.ExitStack] = WeakKeyDictionary()


def load_ipython_extension(shell: Any) -> None:
    """What `%load_ext fiberback` calls. Does nothing in a shell that has it.

    `asyncio.run` and its relations are those of `fiberback.nest` from then on, in the whole process, and every
    event loop is enabled. What a cell's `asyncio.run` has started ends with it, as asyncio says.
    """
    if shell in _loaded:
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(nest.apply(run_close_loop=True))
        stack.enter_context(_tracebacks.of_users_only(shell))
        kernel = getattr(shell, "kernel", None)
        if kernel is not None:
            stack.enter_context(_kernel.serve(kernel))
        else:
            stack.enter_context(_terminal.one_loop())
        _loaded[shell] = stack.pop_all()


def unload_ipython_extension(shell: Any) -> None:
    """What `%unload_ext fiberback` calls: all is as before. Cells and tasks that wait go on as they would have."""
    stack = _loaded.pop(shell, None)
    if stack is not None:
        stack.close()
