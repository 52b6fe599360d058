"""The native module: stacks, switching, portals. Everything public is re-exported elsewhere."""

from asyncio import AbstractEventLoop, Task
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextvars import Context
from types import CodeType, FrameType
from typing import Any, TypeVar, final

from ._stacks import Stats

_T = TypeVar("_T")

__version__: str
messages: str
_C_API: Any

class StackMemoryError(MemoryError):
    """A call stack for a portal could not be had: the process is out of memory, address space or mappings. Fewer tasks suspended in await_() at a time, or smaller stacks (set_stack_size), need less."""

def await_(awaitable: Awaitable[_T], /) -> _T:
    """Wait for 'awaitable' and return its result, in synchronous code.

    Takes what `await` takes and gives what `await` gives: the result, or the exception with its
    traceback::

        def load(url):                            # synchronous, and so are its callers
            return fiberback.await_(fetch(url))   # fetch is an async function

        async def main():
            print(load("https://example.org"))    # other tasks run meanwhile

        fiberback.run(main())                     # in place of asyncio.run(main())

    It works where ordinary synchronous code happens to run. Where that is decides who drives
    the awaitable; the first that holds counts:

    1. In a task that has a portal (every task of `fiberback.run`, or by `enable`, a task factory,
       `ensure_portal`, `with_portal_run_sync`): the task is suspended, with its whole call stack, and
       goes on when it would have gone on after `await`. If nothing needs to be waited for, nothing is
       switched. On asyncio, uvloop and Trio.
    2. In a thread where a stock asyncio loop runs, without a portal, in a task or in a callback: the
       stack is parked and the loop goes on meanwhile. uvloop and Trio cannot do that: RuntimeError,
       which says how to get a portal.
    3. In a thread that works for an event loop in another thread: the awaitable is run there, and this
       thread waits. It is known of `fiberback.to_thread`, `asyncio.to_thread`, `run_in_executor`, Trio's
       and AnyIO's worker threads, inside `parent_loop(loop)`, and where the context was copied from a
       task of `fiberback.run`. A task or future that belongs to a loop running elsewhere is waited for
       there in any thread.
    4. In a thread without any of these: the awaitable is run here, by this thread's own event loop. The
       first such call makes it and the next ones go on with it, so what is bound to it (connections,
       background tasks, which go on only while something is awaited) lives across calls. It is closed
       at the end of the thread or the interpreter; see `thread_runner` and `close_thread_runner`.

    In a child that was forked below an event loop (`os.fork`, `multiprocessing`'s "fork"), that loop and its
    portals are the parent's: the child waits as in case 4. Below Trio it is refused: RuntimeError, which says
    how to start the child instead.

    One task and one context for a thread's waits. Where there is no task of the caller's own (in a callback,
    and in cases 3 and 4) all that one thread or callback waits for runs in one task, one thing after the
    other: a timeout, a task group or a cancel scope that one `await_` has entered may be left by another.
    In `fiberback.to_thread`, and in Trio's worker threads, it is the task that awaits the thread. That of an
    executor's or AnyIO's thread ends with the call that it runs, that of a callback with the callback.

    Cancellation. Where the current task is cancelled, or a timeout around it expires, CancelledError
    (Trio: Cancelled) is raised here and in the awaitable, as at an `await`. In a worker thread the same
    happens when the task that awaits the thread's work is cancelled; if the thread does not wait at that
    moment, in its next `await_` that has to wait. Ctrl-C in a thread that waits
    (cases 3 and 4) cancels the awaitable, lets it clean up, and raises KeyboardInterrupt.

    Context variables. The awaitable runs in the caller's own context: each sees what the other has set, and
    tokens of one can be reset by the other.

    Async generators that are begun here are known to the loop that runs them, and closed by it, in cases 3
    and 4, too.

    Errors of its own. A coroutine that is not waited for is closed.
    TypeError: not an awaitable, in the words of `await`.
    RuntimeError, inside a `no_await` region; in uvloop or Trio without a portal; where the loop that this
    thread works for is closed, stands still, or waits for this very thread; where the current task would
    wait, over other tasks and threads, for itself. Each says who waits for whom, or what to type.
    StackMemoryError: no memory for another stack.

    While it waits other tasks run: state that must not change meanwhile needs a lock, or no wait, which
    `no_await` makes sure of.
    """

def set_parking(*hooks: Any) -> None: ...
def meet_greenlet(module: Any, /) -> None: ...
def note_greenlet_replaced() -> None: ...
def context_of(task: Any, /) -> Context | None: ...
def run_hosted(loop: AbstractEventLoop, /) -> None: ...
def end_hosted(loop: AbstractEventLoop, /) -> None: ...
def current_turn() -> Any: ...
def is_in_turn(loop: Any, /) -> bool: ...
def parked_on(loop: AbstractEventLoop, /) -> list[tuple[Any, Any]]: ...
def close_parked(loop: AbstractEventLoop, /) -> int: ...
def set_hooks(
    *,
    no_portal: Callable[[Any], Any] | None = None,
    is_usable: Callable[[], bool] | None = None,
    guard: Callable[[Any], Any] | None = None,
    not_awaitable: Callable[[Any], str] | None = None,
    awaited: Callable[[Any], Any] | None = None,
    before_wait: Callable[[Any], Any] | None = None,
    after_wait: Callable[[Any], Any] | None = None,
    future: type | None = None,
    pure_future: type | None = None,
    wait: CodeType | None = None,
    wait_for: CodeType | None = None,
    current_task: Callable[[], Any] | None = None,
) -> None: ...
def note_fork(loop: object, /) -> None: ...
def set_external_event(type: type, /) -> None: ...
def set_guarded(guarded: bool, /) -> None: ...
def watch_loops(hook: Callable[[AbstractEventLoop], object] | None, /) -> None: ...
def close_all() -> int: ...
def leak(object: object, /) -> None: ...
def lend_context(function: Callable[[Context], _T], /) -> _T: ...
def set_finalizer(
    generator: AsyncGenerator[Any, Any], finalizer: Callable[[Any], Any], /
) -> bool: ...
def current_frames() -> dict[int, FrameType]: ...
def frames_from(frame: FrameType, most: int, /) -> list[FrameType]: ...
def lines_from(frame: FrameType, most: int, /) -> list[tuple[CodeType, int | None]]: ...
def suspended() -> list[Portal]: ...
def suspended_lines(portal: Portal, /) -> list[tuple[CodeType, int | None]] | None: ...
def parked() -> list[
    tuple[AbstractEventLoop, Any, Any, Any, float, int, list[tuple[CodeType, int | None]], bool]
]: ...
def write_on_signal(signum: int, fd: int, /) -> None: ...
def locals_of(frame: FrameType, /) -> Mapping[str, Any]: ...
def local_of(code: CodeType | str, index: int, /) -> Any: ...
def position(heap: list[Any], item: object, /) -> int: ...

# The module `greenlet._greenlet` of fiberback.greenlet.
greenlet: Any

@final
class Portal(Coroutine[Any, Any, Any]):
    """A coroutine around a coroutine, in which synchronous code can await_().

    Give it to whatever would have run the coroutine itself: a task, an event loop, an await.
    """

    def __new__(cls, coro: Any, /) -> Portal: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, Any]: ...
    __name__: str
    __qualname__: str
    @property
    def cr_await(self) -> Any: ...
    @property
    def cr_code(self) -> CodeType: ...
    @property
    def cr_frame(self) -> FrameType | None: ...
    @property
    def cr_origin(self) -> tuple[tuple[str, int, str], ...] | None: ...
    @property
    def cr_running(self) -> bool: ...
    @property
    def cr_suspended(self) -> bool: ...
    @property
    def waits(self) -> float | None: ...
    @property
    def in_await(self) -> bool: ...
    @property
    def wrapped(self) -> Any: ...
    @property
    def stepped(self) -> bool: ...

def set_stack_size(bytes: int, /) -> None: ...
def get_stack_size() -> int: ...
def trim() -> int: ...
def stats() -> Stats: ...
def current_portal() -> Portal | None: ...
def on_portal() -> bool: ...
def portal_of(task: Any, /) -> Portal | None: ...
def scope(portal: Portal, task: Any, /) -> Portal: ...
def scoped(awaitable: Awaitable[_T], coroutine_of: Callable[[Any], Any], /) -> Awaitable[_T]: ...
def scoped_call(
    function: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any], /
) -> Awaitable[_T]: ...
def scoped_portal(task: Any, /) -> Portal | None: ...
def bestow(task: Any, wrap: Callable[[Any], Any] | None = None, /) -> Portal: ...
def unbestow(task: Any, /) -> bool: ...
def task_factory(
    loop: AbstractEventLoop,
    coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
    **kwargs: Any,
) -> Task[_T]:
    """An asyncio.Task with a portal.

    For `loop.set_task_factory(fiberback.task_factory)`. `fiberback.enable(loop)` does that, serves tasks
    that exist already, and can be undone.
    """

def task_class() -> type[Task[Any]]: ...
def create_task_factory(inner: Callable[..., Any] | None, /) -> Callable[..., Any]:
    """A task factory that gives 'inner' coroutines with portals.

    'inner' is a task factory, or None for ordinary tasks::

        loop.set_task_factory(fiberback.create_task_factory(asyncio.eager_task_factory))
    """
