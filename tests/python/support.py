"""What every behavioural test stands on: the module under test and the event loops.

`FIBERBACK_UNDER_TEST` names the module whose behaviour is checked (default `fiberback`;
`greenback` and `fiberback.greenback` are useful too: what they share with fiberback must
pass on them unchanged). Tests about what only fiberback offers carry `only_fiberback`.

A `Backend` is a tiny event-loop runner with one vocabulary for all loops, so that the same
test runs on stock asyncio, asyncio with eager tasks, uvloop and Trio.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
from typing import Any

import pytest

UNDER_TEST = os.environ.get("FIBERBACK_UNDER_TEST", "fiberback")
# Optional test dependencies whose absence must fail the run instead of skipping tests.
REQUIRED = [name for name in os.environ.get("FIBERBACK_REQUIRE", "").split(",") if name]

only_fiberback = pytest.mark.skipif(
    UNDER_TEST != "fiberback", reason=f"{UNDER_TEST} does not offer this; fiberback does"
)


def module_under_test() -> Any:
    return importlib.import_module(UNDER_TEST)


def import_or_skip(name: str) -> Any:
    """Import an optional test dependency, or skip with a plain message (or fail: see REQUIRED)."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if name in REQUIRED:
            raise
        version = sys.version.split()[0]
        pytest.skip(f"{name} is not installed for Python {version}", allow_module_level=True)


def printed_by(script: pathlib.Path, *arguments: str, timeout: float = 100) -> str:
    """What a program of its own beside the tests prints; it finds what they share. It must succeed."""
    shared = [str(pathlib.Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", script, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(shared)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def takes_long() -> None:
    """For a test that runs somebody's whole suite: neither conftest.py nor pytest's faulthandler shall take it for a
    hang. What it starts has a limit of its own."""
    faulthandler.cancel_dump_traceback_later()
    signal.setitimer(signal.ITIMER_REAL, 0)


class Handle:
    """A spawned task that can be cancelled."""

    def __init__(self, cancel: Any, task: Any = None) -> None:
        self.cancel = cancel
        self.task = task

    def done(self) -> bool:
        """For asyncio only: whether the task has ended."""
        return isinstance(self.task, asyncio.Future) and self.task.done()


class Backend:
    name: str
    library: str
    Cancelled: type[BaseException]
    TimedOut: type[BaseException]

    def run(self, async_fn: Any, *args: Any, debug: bool = False) -> Any:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{self.name}>"


class _AsyncioGroup:
    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> _AsyncioGroup:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> Any:
        return await self._group.__aexit__(*exc)

    def spawn(self, async_fn: Any, *args: Any) -> Handle:
        task = self._group.create_task(async_fn(*args))
        return Handle(task.cancel, task)


class AsyncioBackend(Backend):
    library = "asyncio"
    Cancelled = asyncio.CancelledError
    TimedOut = TimeoutError

    def __init__(self, name: str, loop_factory: Any = None, task_factory: Any = None) -> None:
        self.name = name
        self._loop_factory = loop_factory
        self._task_factory = task_factory

    def run(self, async_fn: Any, *args: Any, debug: bool = False) -> Any:
        def new_loop() -> asyncio.AbstractEventLoop:
            loop = (self._loop_factory or asyncio.new_event_loop)()
            if self._task_factory is not None:
                loop.set_task_factory(self._task_factory)
            return loop

        async def main() -> Any:
            return await async_fn(*args)

        with asyncio.Runner(loop_factory=new_loop, debug=debug or None) as runner:
            return runner.run(main())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def current_task(self) -> Any:
        return asyncio.current_task()

    def coro_of(self, task: Any) -> Any:
        return task.get_coro()

    def group(self) -> _AsyncioGroup:
        return _AsyncioGroup()

    def timeout(self, seconds: float) -> Any:
        return asyncio.timeout(seconds)

    def Event(self) -> Any:
        return asyncio.Event()


class _TrioGroup:
    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> _TrioGroup:
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> Any:
        return await self._manager.__aexit__(*exc)

    def spawn(self, async_fn: Any, *args: Any) -> Handle:
        scope = self._trio.CancelScope()
        handle = Handle(scope.cancel)

        async def scoped() -> None:
            handle.task = self._trio.lowlevel.current_task()
            with scope:
                await async_fn(*args)

        self._nursery.start_soon(scoped)
        return handle


class TrioBackend(Backend):
    name = "trio"
    library = "trio"

    def __init__(self) -> None:
        self._trio = import_or_skip("trio")
        self.Cancelled = self._trio.Cancelled
        self.TimedOut = self._trio.TooSlowError

    def run(self, async_fn: Any, *args: Any, debug: bool = False) -> Any:
        return self._trio.run(async_fn, *args)

    async def sleep(self, seconds: float) -> None:
        await self._trio.sleep(seconds)

    def current_task(self) -> Any:
        return self._trio.lowlevel.current_task()

    def coro_of(self, task: Any) -> Any:
        return task.coro

    def group(self) -> _TrioGroup:
        return _TrioGroup(self._trio)

    def timeout(self, seconds: float) -> Any:
        @contextlib.asynccontextmanager
        async def manager() -> Any:
            with self._trio.fail_after(seconds):
                yield

        return manager()

    def Event(self) -> Any:
        return self._trio.Event()


BACKENDS = ["asyncio", "uvloop", "trio"]
if sys.version_info >= (3, 12):
    BACKENDS.insert(1, "eager")


def parks(backend: Any) -> bool:
    """Whether `await_` needs no portal there: the whole stack waits (tests in test_parking.py)."""
    return UNDER_TEST == "fiberback" and backend.name in ("asyncio", "eager")


def make_backend(name: str) -> Any:
    if name == "asyncio":
        return AsyncioBackend("asyncio")
    if name == "eager":
        return AsyncioBackend("eager", task_factory=asyncio.eager_task_factory)  # type: ignore
    if name == "uvloop":
        return AsyncioBackend("uvloop", loop_factory=import_or_skip("uvloop").new_event_loop)
    if name == "trio":
        return TrioBackend()
    raise ValueError(name)


async def waiting_for_each_other(fb):
    """What two tasks that wait for each other have come to: what they returned or raised."""
    tasks = {}

    async def one(name, other):
        await asyncio.sleep(0)
        return fb.await_(tasks[other])

    tasks["a"] = asyncio.create_task(one("a", "b"), name="a")
    tasks["b"] = asyncio.create_task(one("b", "a"), name="b")
    return await asyncio.gather(*tasks.values(), return_exceptions=True)


def extract(archive: tarfile.TarFile, folder: os.PathLike[str]) -> None:
    """All that is in an archive. Without what could be harmful, where `tarfile` can tell (from 3.11.4 on)."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
    else:
        archive.extractall(folder)
