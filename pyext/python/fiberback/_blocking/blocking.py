"""`blocking`: what is called, installed and uninstalled."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from .. import _messages
from .._in_force import Handle, InForce
from .._replacements import Replacement
from . import scope
from .scope import Scope


class _OfProcess(Scope):
    @classmethod
    def begun(cls, switches: frozenset[str]) -> _OfProcess:
        own = cls(switches, _replacements())
        scope.add_to_process(own)
        return own

    def undo(self) -> None:
        scope.remove_from_process(self)


class Blocking(Scope):
    """What `blocking()` returns: it is in force within its `with` block."""

    def __enter__(self) -> Blocking:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.exit()


class BlockingInstalled(Handle[_OfProcess]):
    """What `blocking.install` returns. As a context manager it undoes at its end what it did."""

    def uninstall(self) -> None:
        """Put back what was there before this `install()`. Calls that wait go on."""
        self._take_back()


_in_force: InForce[_OfProcess] = InForce()


class _Blocking:
    """`fiberback.blocking`: `with blocking():`, `blocking.install()` and `blocking.uninstall()`."""

    def __repr__(self) -> str:
        return "fiberback.blocking"

    def __reduce__(self) -> str:
        return "blocking"

    def __call__(self, *only: str, without: Iterable[str] = ()) -> Blocking:
        """Blocking calls in unmodified code suspend their caller, and the event loop goes on::

            with fiberback.blocking():
                async with asyncio.TaskGroup() as group:
                    for url in urls:  # all of them at one time, in one thread
                        group.create_task(fiberback.with_portal_run_sync(requests.get, url))

        Within the `with` block it holds for the code of the block and for tasks that are begun there (for the context
        and its copies); `blocking.install()` is for the whole process, `run(main(), blocking=True)` for a program.

        Each is a switch of its own; without names all are on but "files". `blocking("sockets", "ssl")` has these alone,
        `blocking(without=["locks"])` all the others:

        "sleep": `time.sleep`.
        "sockets": what `socket.socket` receives, sends, accepts and connects.
        "ssl": handshakes, reads and writes of `ssl.SSLSocket`.
        "select": `select.select`, `select.poll`, and the selectors of `selectors`.
        "dns": `socket.getaddrinfo` and its relations, in the loop's executor.
        "locks": `threading.Lock` and `RLock` made from now on; all conditions, events, semaphores, barriers, queues and
            futures of `concurrent.futures`.
        "queues": `queue.SimpleQueue`, made from now on.
        "threads": `Thread.join`.
        "subprocess": `Popen.wait` and `communicate` and what stands on them, `os.waitpid`, `os.wait`.
        "signals": `signal.sigwait`, `sigwaitinfo`, `sigtimedwait`.
        "turns": a function that `with_portal_run_sync` calls gives way to the loop's other tasks before it begins, where
            others have begun in the same turn of the loop and that has taken 10 ms.
        "files": `open`, `os.open`, `os.fsync`, what `pathlib.Path` and `shutil` read, write and copy as a whole, in
            the loop's executor.

        What need not wait is done at once. Where the caller cannot be suspended (no event loop in this thread, uvloop
        and Trio without a portal, a `no_await` region) the original blocks, as ever. Cancelling the caller
        ends the wait, and raises what an `await` would. At the end of the last scope everything is as it was.

        What cannot wait, C code that blocks by itself, is listed in docs/blocking.md; `watch` says who does.

        Raises ValueError for a name that is no switch.
        """
        return Blocking(_switches(only, without), _replacements())

    def install(self, *only: str, without: Iterable[str] = ()) -> BlockingInstalled:
        """Have it hold in the whole process, until `uninstall()`. Switches as in `blocking()`.

        `with blocking.install():` undoes it at its end, unless it had been installed before; then nothing changes,
        the switches neither.
        """
        switches = _switches(only, without)
        return BlockingInstalled(_in_force, _in_force.put(lambda: _OfProcess.begun(switches)))

    def uninstall(self) -> None:
        """Undo `install()`; calls that wait go on. Does nothing where nothing is installed."""
        _in_force.take_back(_in_force.current)


def _replacements() -> dict[str, list[Replacement]]:
    # Not before somebody wants them: they take hold of functions that other libraries may have replaced.
    from .hooks import REPLACEMENTS

    return REPLACEMENTS


def _switches(only: Iterable[str], without: Iterable[str]) -> frozenset[str]:
    known = _replacements()
    names = ", ".join(map(repr, known))
    if isinstance(without, str):
        raise TypeError(_messages.BLOCKING_WITHOUT.format(value=without))
    without = tuple(without)
    for name in (*only, *without):
        if name not in known:
            raise ValueError(_messages.BLOCKING_SWITCH.format(name=name, names=names))
    from .hooks import OPTIONAL

    return frozenset(only or known.keys() - OPTIONAL) - frozenset(without)


blocking = _Blocking()
