"""Texts that the native module has as well (`pyext/src/messages.rs`), word for word: their codes are the same."""

from __future__ import annotations


class _Text(str):
    code: str
    text: str
    cure: str

    def __new__(cls, code: str, text: str, cure: str) -> _Text:
        self = super().__new__(cls, f"{text}: {cure} [fiberback:{code}]")
        self.code, self.text, self.cure = code, text, cure
        return self


ALREADY_RUNNING = "coroutine already executing"
IGNORED_EXIT = "coroutine ignored GeneratorExit"
NO_BASE = "type 'fiberback._fiberback.Portal' is not an acceptable base type"

# The package calls these alone.
SCOPE_USAGE = "scope() takes a portal and a task"
CALL_USAGE = "scoped_call() takes a function, a tuple and a dict"

WRONG_THREAD = _Text(
    "wrong-thread",
    "this portal is suspended in await_() on another thread, and only that thread can resume it",
    "use loop.call_soon_threadsafe() or asyncio.run_coroutine_threadsafe() to get back to it",
)
TASK_KEEPS_COROUTINE = _Text(
    "task-keeps-coroutine",
    "this task does not let its coroutine be replaced",
    "start it with a task factory (fiberback.task_factory) instead",
)
LOOPS_UNSEEN = _Text(
    "loops-unseen",
    "asyncio._set_running_loop is not CPython's own, so loops cannot be seen to begin",
    "pass each loop to fiberback.enable(loop)",
)
PORTAL_WHAT = _Text(
    "portal-what",
    "a portal needs a coroutine: an object with send(), throw() and close()",
    "type 'fiberback.with_portal_run(main)', which makes one of an async function",
)
TASK_CHANGED = _Text(
    "task-changed",
    "the task was given another coroutine meanwhile",
    "call 'fiberback.bestow_portal()' again, and let one piece of code replace coroutines of tasks",
)
FACTORY_CALL = _Text(
    "factory-call",
    "a task factory is called with (loop, coro, **kwargs)",
    "type 'loop.set_task_factory(fiberback.task_factory)'",
)
NOT_A_TASK = _Text(
    "not-a-task",
    "a portal can be given to a running asyncio or Trio task only, an object with get_coro() or coro",
    "pass asyncio.current_task() or trio.lowlevel.current_task()",
)


def table() -> str:
    """A line each, with tabs between code, text and cure, as the native module's `messages`."""
    texts = [value for value in globals().values() if isinstance(value, _Text)]
    return "".join(f"{each.code}\t{each.text}\t{each.cure}\n" for each in texts)
