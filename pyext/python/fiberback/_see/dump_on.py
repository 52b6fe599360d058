"""`dump_on`: a dump whenever a signal comes, whatever the process is doing.

The signal's handler writes a byte to a pipe (`pyext/src/signal_pipe.rs`), a daemon thread reads it. For the time of
a fork that thread is ended, so that no child is forked in the middle of a dump, and CPython need not warn of
threads; afterwards both parent and child have one.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Literal

from .. import _messages
from .._fiberback import write_on_signal
from .dump import dump

_END = 0  # no signal's number
_PATIENCE = 2.0  # seconds that a fork waits for a dump that is being written


class _Listener:
    """The pipe and the thread, and what to do for each signal."""

    def __init__(self) -> None:
        self._actions: dict[int, Callable[[], None]] = {}
        self._pipe: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None
        self._is_hooked = False

    def begin(self, signum: int, action: Callable[[], None]) -> None:
        before = self._actions.get(signum)
        self._actions[signum] = action
        try:
            self._listen_again()
        except BaseException:  # it is no signal, or one that nobody may handle
            if before is None:
                del self._actions[signum]
                if not self._actions:
                    self._pause()
            raise
        if not self._is_hooked:
            self._is_hooked = True
            os.register_at_fork(
                before=self._pause,
                after_in_parent=self._listen_again,
                after_in_child=self._listen_in_child,
            )

    def end(self, signum: int, action: Callable[[], None]) -> None:
        if self._actions.get(signum) is action:
            write_on_signal(signum, -1)
            del self._actions[signum]
            if not self._actions:
                self._pause()

    def _listen_again(self) -> None:
        if self._actions and self._thread is None:
            if self._pipe is None:
                self._pipe = os.pipe()
                os.set_blocking(self._pipe[1], False)  # a handler must not wait
            thread = threading.Thread(
                target=self._listen, args=(self._pipe[0],), name="fiberback-dump", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter ends
                return
            self._thread = thread
        if self._pipe is not None:
            for signum in self._actions:
                write_on_signal(signum, self._pipe[1])

    def _pause(self) -> None:
        """Signals that come meanwhile wait in the pipe."""
        thread, pipe = self._thread, self._pipe
        if thread is None or pipe is None or thread is threading.current_thread():
            return
        self._thread = None
        os.write(pipe[1], bytes([_END]))
        thread.join(_PATIENCE)
        if (
            thread.is_alive()
        ):  # somebody does not read what it writes: it ends when it has been read
            self._pipe = None

    def _listen_in_child(self) -> None:
        if self._pipe is not None:
            for file in self._pipe:
                os.close(file)  # the parent's
        self._pipe = self._thread = None
        self._listen_again()

    def _listen(self, file: int) -> None:
        while True:
            signum = os.read(file, 1)
            if not signum or signum[0] == _END:
                return
            action = self._actions.get(signum[0])
            if action is not None:
                try:
                    action()
                except Exception as error:
                    sys.excepthook(type(error), error, error.__traceback__)


_listener = _Listener()


def dump_on(
    signum: int, /, *, file: Any = None, format: Literal["text", "json"] = "text"
) -> Callable[[], None]:
    """Write a `dump` whenever the signal comes, by a thread of its own::

        fiberback.dump_on(signal.SIGQUIT)         # then, in a shell: kill -QUIT PID; or Ctrl-\\ in its terminal

    So it comes, too, while the main thread is in C code or waits for a lock, unless that holds the GIL. `file` is a
    text file or a descriptor; None is `sys.stderr` as it is then. Forked children write dumps of their own.

    What the signal did before (SIGQUIT ends a process) it does no more. Returns a function that brings that
    back. Called again for the same signal, it replaces file and format; for another one, both are served.

    The thread is a daemon, uses no processor while nothing comes, and is ended and begun again around each
    `os.fork`. Raises TypeError for what is no signal's number or no file, ValueError for another format or a
    number out of range, OSError for a signal that nobody may handle (SIGKILL).
    """
    if format not in ("text", "json"):
        raise ValueError(_messages.DUMP_FORMAT.format(format=format))
    if isinstance(signum, bool) or not isinstance(signum, int):
        raise TypeError(_messages.DUMP_SIGNAL.format(value=signum))
    if signum not in signal.valid_signals():
        raise ValueError(_messages.DUMP_SIGNAL.format(value=signum))
    if file is not None and not isinstance(file, int) and not hasattr(file, "write"):
        raise TypeError(_messages.DUMP_FILE.format(value=file))

    def action() -> None:
        _write(sys.stderr if file is None else file, dump(format=format))

    _listener.begin(signum, action)
    return functools.partial(_listener.end, signum, action)


def _write(file: Any, text: str) -> None:
    """Past Python's own buffers, which somebody may have locked, where that can be done."""
    if file is None:  # there is no `sys.stderr`
        return
    try:
        descriptor = file if isinstance(file, int) else file.fileno()
    except (AttributeError, OSError, ValueError):
        file.write(text + "\n")
        file.flush()
        return
    data = memoryview((text + "\n").encode(errors="backslashreplace"))
    while data:
        data = data[os.write(descriptor, data) :]
