"""Who waits for whom: from tasks to the tasks, groups and threads that wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import FunctionType
from typing import Any

from .._deadlock.wait_cycle import completes, is_full, waiters_of


def owners(task: Any) -> list[tuple[Any, str | None]]:
    """The tasks that wait for `task`, or have started it in a group, each with what that is: "TaskGroup",
    "gather", or None for a plain wait. Futures that stand for something else are returned, too."""
    found: list[tuple[Any, str | None]] = []
    seen = {id(task)}
    queue: list[tuple[Any, str | None]] = [(task, None)]
    for node, label in queue:
        for callback, _ in tuple(getattr(node, "_callbacks", None) or ()):
            waiter, name = _waiter(callback, node)
            if waiter is None or id(waiter) in seen:
                continue
            seen.add(id(waiter))
            name = label or name
            found.append((waiter, name))
            if not hasattr(waiter, "get_coro"):
                queue.append((waiter, name))
    return found


def _waiter(callback: Any, node: Any) -> tuple[Any, str | None]:
    owner: Any = getattr(callback, "__self__", None)
    if issubclass(type(owner), asyncio.TaskGroup):
        return owner._parent_task, f"TaskGroup {id(owner):#x}"
    waiter = completes(callback, node)
    if waiter is not None:
        return waiter, "gather" if type(waiter).__name__ == "_GatheringFuture" else None
    if owner is not None and hasattr(owner, "get_coro"):
        return owner, None
    if type(callback) is FunctionType:
        cells = zip(callback.__code__.co_freevars, callback.__closure__ or (), strict=False)
        for name, cell in cells:
            if name == "waiter" and is_full(cell) and asyncio.isfuture(cell.cell_contents):
                return cell.cell_contents, "wait"
    return None, None


def in_circles(tasks: Iterable[Any]) -> set[int]:
    """The ids of the tasks (and futures) that wait, by way of others, for themselves.

    Each is looked at once: these are the strongly connected components (Tarjan), without recursion.
    """
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    kept: list[Any] = []  # so that no id is used twice
    found: set[int] = set()
    for root in tasks:
        if id(root) in index:
            continue
        path: list[tuple[Any, Any]] = []

        def enter(node: Any, path: list[tuple[Any, Any]] = path) -> None:
            index[id(node)] = low[id(node)] = len(index)
            stack.append(id(node))
            on_stack.add(id(node))
            kept.append(node)
            path.append((node, iter(waiters_of(node))))

        enter(root)
        while path:
            node, waiters = path[-1]
            for waiter in waiters:
                if waiter is node:
                    found.add(id(node))
                elif id(waiter) not in index:
                    enter(waiter)
                    break
                elif id(waiter) in on_stack:
                    low[id(node)] = min(low[id(node)], index[id(waiter)])
            else:
                path.pop()
                if path:
                    outer = id(path[-1][0])
                    low[outer] = min(low[outer], low[id(node)])
                if low[id(node)] == index[id(node)]:
                    component: list[int] = []
                    while not component or component[-1] != id(node):
                        component.append(stack.pop())
                        on_stack.discard(component[-1])
                    if len(component) > 1:
                        found.update(component)
    return found
