"""psycopg's connection pool for sync code on an event loop: `from fiberback.dbapi import psycopg_pool`.

Reads like `psycopg_pool.ConnectionPool`, and is a `psycopg_pool.AsyncConnectionPool` underneath: its
workers are tasks of the loop on which the pool is opened, and no threads.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False
# ruff: noqa: E402

from __future__ import annotations

from .. import _extras

_extras.need(__name__, "psycopg", "psycopg", "psycopg_pool")

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import psycopg_pool as _psycopg_pool
from psycopg_pool import PoolClosed as PoolClosed
from psycopg_pool import PoolTimeout as PoolTimeout
from psycopg_pool import TooManyRequests as TooManyRequests

from .. import _messages, await_, with_portal_run_sync
from ._waiting import running_loop, should_wait
from .psycopg import Connection, _Driver


class _PooledDriver(_Driver):
    """What the async pool keeps: with its face, whose settings live as long as the connection."""

    face_class: type[Connection[Any]]
    face: Connection[Any]

    @classmethod
    async def connect(
        cls, conninfo: str = "", *, row_factory: Any = None, cursor_factory: Any = None, **kwds: Any
    ) -> Any:
        self = await super().connect(conninfo, **kwds)
        self.face = cls.face_class.over(self)
        if row_factory:
            self.face.row_factory = row_factory
        if cursor_factory:
            self.face.cursor_factory = cursor_factory
        return self


def _raise_if_cancelled() -> None:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class _QueueUntilCancelled:
    """A worker's queue, from which a worker that has been cancelled gets nothing more."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    async def get(self) -> Any:
        _raise_if_cancelled()
        return await self._queue.get()


class _EventUntilCancelled:
    """The scheduler's event, whose wait a scheduler that has been cancelled does not get through."""

    def __init__(self, event: Any) -> None:
        self._event = event
        self.set = event.set
        self.clear = event.clear

    async def wait_timeout(self, timeout: float) -> Any:
        is_set = await self._event.wait_timeout(timeout)
        _raise_if_cancelled()
        return is_set


class _Pool(_psycopg_pool.AsyncConnectionPool[Any]):
    """A pool whose tasks end when they are cancelled.

    psycopg_pool's workers go on when they are cancelled at work, and its scheduler when it is woken at
    the same time (3.11's `wait_for` drops the cancellation then, bpo-37658). asyncio.run, which
    cancels the tasks that are left and waits for them, would never end with a pool open.
    """

    def _start_workers(self) -> None:
        self._sched._event = _EventUntilCancelled(self._sched._event)  # type: ignore[assignment]
        super()._start_workers()

    @classmethod
    async def worker(cls, q: Any) -> None:
        await super().worker(_QueueUntilCancelled(q))  # type: ignore[arg-type]


class ConnectionPool:
    """A pool of `fiberback.dbapi.psycopg.Connection`, for the tasks of one event loop.

    Parameters are those of `psycopg_pool.ConnectionPool` (sizes in connections, times in seconds);
    `configure`, `check`, `reset` and `reconnect_failed` are sync functions, and may query. The pool
    opens at the first use or with `open()`, and belongs to the loop that runs then. In threads without
    a loop use `psycopg_pool.ConnectionPool` itself, with `connection_class=psycopg.Connection`.

    Connections given back in a transaction are rolled back; those given back busy or broken, or after a
    cancelled wait, are replaced. A cancelled `getconn` has taken none.
    """

    def __init__(
        self,
        conninfo: str = "",
        *,
        connection_class: type[Connection[Any]] = Connection,
        kwargs: dict[str, Any] | None = None,
        open: bool = False,
        configure: Callable[[Any], None] | None = None,
        check: Callable[[Any], None] | None = None,
        reset: Callable[[Any], None] | None = None,
        reconnect_failed: Callable[[Any], None] | None = None,
        **options: Any,
    ) -> None:
        if reconnect_failed is not None:
            failed = reconnect_failed

            async def reconnect(pool: Any) -> None:
                await with_portal_run_sync(failed, self)

            options["reconnect_failed"] = reconnect
        self._pool = _Pool(
            conninfo,
            connection_class=type("Driver", (_PooledDriver,), {"face_class": connection_class}),
            kwargs=kwargs,
            open=False,
            configure=_on_face(configure),
            check=_on_face(check),
            reset=_on_face(reset),
            **options,
        )
        self._check = check
        self._loop: asyncio.AbstractEventLoop | None = None
        self._returns: set[asyncio.Task[None]] = set()
        if open:
            self.open()

    def __repr__(self) -> str:
        return f"<fiberback.dbapi.psycopg_pool.ConnectionPool {self._pool.name!r} at {id(self):#x}>"

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Start the pool's workers on the running loop; nothing happens if it is open.

        With `wait`, for `min_size` connections: PoolTimeout after `timeout` seconds.
        """
        if self._loop is None:
            loop = running_loop()
            if loop is None:
                raise RuntimeError(_messages.POOL_NEEDS_A_LOOP)
            self._loop = loop
        await_(self._pool.open(wait, timeout))

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until `min_size` connections are there; PoolTimeout after `timeout` seconds."""
        self.open()
        await_(self._pool.wait(timeout))

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool: waiters get PoolClosed, connections in use are closed when given back."""
        await_(self._pool.close(timeout))

    def getconn(self, timeout: float | None = None) -> Any:
        """A connection for the caller alone; PoolTimeout after `timeout` seconds."""
        if self._loop is None:
            self.open()
        driver = await_(self._pool.getconn(timeout))
        face = driver.face
        face._pool = self
        return face

    def putconn(self, conn: Any) -> None:
        """Give a connection back. Nothing is waited for where the caller cannot wait."""
        driver = conn._driver
        conn._pool = None
        if conn.interrupted:
            driver.pgconn.finish()  # and the pool makes another
        loop = running_loop()
        if loop is self._loop:
            # In a task of its own: a caller that is cancelled must not interrupt it.
            task = self._put(driver)
            if should_wait():
                await_(asyncio.shield(task))
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._put, driver)
        else:
            conn.pgconn.finish()  # the loop of the pool's workers is gone

    def _put(self, driver: Any) -> asyncio.Task[None]:
        assert self._loop is not None
        task = self._loop.create_task(self._pool.putconn(driver))
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)
        return task

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Any]:
        """A connection for the length of the block: committed at its end, rolled back on an error."""
        conn = self.getconn(timeout)
        try:
            with conn:
                yield conn
        finally:
            self.putconn(conn)

    def check(self) -> None:
        """Replace the idle connections that are broken."""
        await_(self._pool.check())

    def drain(self) -> None:
        """Replace all connections: idle ones now, others when they are given back."""
        await_(self._pool.drain())

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the sizes, in connections."""
        await_(self._pool.resize(min_size, max_size))

    @staticmethod
    def check_connection(conn: Any) -> None:
        """For the parameter `check`: raises if the connection does not answer."""
        if conn.autocommit:
            conn.execute("")
        else:
            conn.autocommit = True
            try:
                conn.execute("")
            finally:
                conn.autocommit = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        # Sizes, names, `closed`, `get_stats()`: all that does not wait.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._pool, name)


def _on_face(callback: Callable[[Any], None] | None) -> Any:
    if callback is None:
        return None
    found = callback

    async def call(driver: Any) -> None:
        await with_portal_run_sync(found, driver.face)

    return call


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_psycopg_pool, name)
