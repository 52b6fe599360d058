"""`dump`: everything that waits in this process, as text or JSON."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from typing import Any, Literal

from .. import _messages
from .stacks import Stack, stacks


def dump(*, format: Literal["text", "json"] = "text") -> str:
    """What `stacks` finds, to be read by people or by programs.

    As "text", a tree: each task with what it waits for, for how long and who would wake it, its whole stack, and
    below it, indented, the tasks and threads that it waits for. A task that waits for itself by way of others is
    marked "IN A CIRCLE".

    As "json", an object with "process", "python", "time" (seconds since 1970) and "stacks": a list of objects
    with the attributes of `Stack`, without "task"; "frames" are objects with "file", "line" and "function",
    "children" lists of the same.

    To be called where `stacks` may be. Raises ValueError for another format.
    """
    if format not in ("text", "json"):
        raise ValueError(_messages.DUMP_FORMAT.format(format=format))
    found = stacks()
    if format == "json":
        # Not where fiberback is imported: that would take a tenth longer.
        import json
        import platform

        return json.dumps(
            {
                "process": os.getpid(),
                "python": platform.python_version(),
                "time": time.time(),
                "stacks": [_as_json(stack) for stack in found],
            },
            indent=1,
        )
    return "".join(_text(found))


def _as_json(stack: Stack) -> dict[str, Any]:
    shown = {name: value for name, value in vars(stack).items() if name != "task"}
    shown["frames"] = [
        {"file": frame.filename, "line": frame.lineno, "function": frame.name}
        for frame in stack.frames
    ]
    shown["children"] = [_as_json(child) for child in stack.children]
    return shown


def _text(found: list[Stack]) -> Iterator[str]:
    counts: dict[str, int] = {}
    place: tuple[str | None, str | None] | None = None
    texts: dict[Any, str] = {}  # of stacks, many of which are alike
    queue = list(found)
    for stack in queue:
        counts[stack.kind] = counts.get(stack.kind, 0) + 1
        queue += stack.children
    parts = (f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())
    yield f"Process {os.getpid()}: {', '.join(parts) or 'nothing waits'}\n"
    for root in found:
        if (root.loop, root.thread) != place:
            place = root.loop, root.thread
            yield "\n"
            if root.loop is not None:
                yield f"{'' if root.loop == 'Trio' else 'Event loop '}{root.loop}"
                yield f" in thread {root.thread!r}\n" if root.thread else ", which does not run\n"
        stack_queue = [(root, 0)]
        while stack_queue:
            stack, depth = stack_queue.pop()
            yield _one(stack, "    " * depth, texts)
            stack_queue += ((child, depth + 1) for child in reversed(stack.children))


def _one(stack: Stack, indent: str, texts: dict[Any, str]) -> str:
    head = [f"{stack.kind} {stack.name!r}" + (f" in {stack.group}" if stack.group else "")]
    if stack.state != "waiting":
        head.append(stack.state)
    else:
        head.append("waits" if stack.awaits is None else f"waits for {stack.awaits}")
        if stack.seconds is not None:
            head.append(f"{stack.seconds:.2f} s so far")
        if stack.woken_by is not None and stack.woken_by != stack.awaits:
            head.append(f"woken by {stack.woken_by}")
    if stack.times_out_in is not None:
        head.append(f"times out in {stack.times_out_in:.1f} s")
    if stack.in_circle:
        head.append("IN A CIRCLE: it waits for itself")
    key = tuple((frame.filename, frame.lineno, frame.name) for frame in stack.frames)
    lines = texts.get(key)
    if lines is None:
        lines = "".join(traceback.format_list(stack.frames)) or "  (no frame to be seen)\n"
        texts[key] = lines
    if stack.kind == "loop":
        lines = (
            "  (its tasks are missing: they were changed whenever they were listed; ask again)\n"
        )
    elif not stack.is_whole:
        lines += "  (frames are missing: greenlet is loaded; under fiberback.run or enable all are seen)\n"
    text = ", ".join(head) + "\n" + lines
    return "".join(indent + line for line in text.splitlines(keepends=True))
