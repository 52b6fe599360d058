"""Async generators that are begun in a thread without a loop, made known to the loop that runs them.

An async generator learns who is to close it when its first `__anext__()` is *called*, from the hooks
of the thread that calls it; where no loop runs there are none. So such threads note what is begun in
them, from their first `await_` on, and hand it to the loop with the next thing that they wait for.
What was begun before is looked for in that thing itself.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from types import AsyncGeneratorType, CoroutineType
from typing import Any, TypeAlias
from weakref import ref

from .._fiberback import set_finalizer

Generator: TypeAlias = AsyncGeneratorType[Any, Any]


def _step_types() -> list[type]:
    """Of what `__anext__()` and `asend()`; `athrow()` and `aclose()`; `anext()` with a default return."""

    async def sample() -> AsyncGenerator[None, None]:
        yield

    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)  # no loop that runs here is to know the samples
    try:
        steps: list[Any] = [sample().__anext__(), sample().aclose(), anext(sample(), None)]
    finally:
        sys.set_asyncgen_hooks(*hooks)
    for step in steps:
        step.close()  # or it would warn that it was not awaited
    return [type(step) for step in steps]


_STEPS = _step_types()
CLOSING = _STEPS[1]


class _Mine(threading.local):
    hook: Callable[[Generator], None] | None = None
    begun: list[ref[Generator]]


_mine = _Mine()


def note() -> bool:
    """Note in this thread which generators are begun. False if that had been done before."""
    previous = sys.get_asyncgen_hooks().firstiter
    if previous is not None and previous is _mine.hook:
        return False
    mine = _mine
    mine.begun = []

    def begin(generator: Generator) -> None:
        mine.begun.append(ref(generator))
        if previous is not None:
            previous(generator)

    mine.hook = begin
    hook: Any = begin
    sys.set_asyncgen_hooks(firstiter=hook)
    return True


def begun(awaitable: Any) -> list[Generator]:
    """The generators that no loop knows of yet, of this thread and of what it is about to await."""
    if note():
        found = list(_of(awaitable, True))
    elif type(awaitable) in _STEPS:
        found = list(_of(awaitable, False))
    else:
        found = []
    if _mine.begun:
        noted, _mine.begun = _mine.begun, []
        found.extend(generator for each in noted if (generator := each()) is not None)
    return found


def adopt(generators: list[Generator]) -> None:
    """Have the loop that runs here close them in the end, or when they are dropped."""
    first_iteration, finalizer = sys.get_asyncgen_hooks()
    if finalizer is None or first_iteration is None:
        return
    for generator in generators:
        if generator.ag_frame is not None and set_finalizer(generator, finalizer):
            first_iteration(generator)


def _of(awaitable: Any, deep: bool) -> Iterator[Generator]:
    if type(awaitable) in _STEPS:
        for thing in gc.get_referents(awaitable):
            if type(thing) is AsyncGeneratorType:
                yield thing
            elif type(thing) in _STEPS:
                yield from _of(thing, False)
    elif deep and type(awaitable) is CoroutineType and awaitable.cr_frame is not None:
        # Its arguments: `asyncio.wait_for(generator.__anext__(), 1)`.
        for value in awaitable.cr_frame.f_locals.values():
            yield from _of(value, False)
