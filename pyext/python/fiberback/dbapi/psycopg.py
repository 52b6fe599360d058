"""psycopg 3 in its sync shape, waiting on the event loop: `from fiberback.dbapi import psycopg`.

`Connection` *is* a `psycopg.Connection`: cursors, server-side cursors, `stream`, `copy`, pipelines,
`transaction()`, two-phase commit, `notifies`, adapters, row factories and `TypeInfo.fetch` are
psycopg's own. What is different is how it waits. Where an asyncio loop runs (stdlib or uvloop), it
waits through a `psycopg.AsyncConnection`, with `fiberback.await_`; so other tasks run meanwhile, and a
task may be cancelled there: the query is then cancelled on the server, and the connection is left
idle, in a failed transaction, or closed. In a thread without a loop it blocks as psycopg does.

A connection may be shared by tasks and threads: they use it in turn. Exceptions, type objects and
constructors are psycopg's own, and so is everything that is not named here: this module can stand in
for `psycopg` wherever sync code gets its driver by name.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False
# ruff: noqa: E402

from __future__ import annotations

from .. import _extras

_extras.need(__name__, "psycopg", "psycopg")

from contextvars import ContextVar
from typing import Any, Self

import psycopg as _psycopg
from psycopg import BINARY as BINARY
from psycopg import DATETIME as DATETIME
from psycopg import NUMBER as NUMBER
from psycopg import ROWID as ROWID
from psycopg import STRING as STRING
from psycopg import AsyncConnection
from psycopg import Binary as Binary
from psycopg import ClientCursor as ClientCursor
from psycopg import Cursor as Cursor
from psycopg import DatabaseError as DatabaseError
from psycopg import DataError as DataError
from psycopg import Date as Date
from psycopg import DateFromTicks as DateFromTicks
from psycopg import Error as Error
from psycopg import IntegrityError as IntegrityError
from psycopg import InterfaceError as InterfaceError
from psycopg import InternalError as InternalError
from psycopg import IsolationLevel as IsolationLevel
from psycopg import NotSupportedError as NotSupportedError
from psycopg import OperationalError as OperationalError
from psycopg import ProgrammingError as ProgrammingError
from psycopg import RawCursor as RawCursor
from psycopg import Rollback as Rollback
from psycopg import ServerCursor as ServerCursor
from psycopg import Time as Time
from psycopg import TimeFromTicks as TimeFromTicks
from psycopg import Timestamp as Timestamp
from psycopg import TimestampFromTicks as TimestampFromTicks
from psycopg import Transaction as Transaction
from psycopg import Warning as Warning
from psycopg import apilevel as apilevel
from psycopg import paramstyle as paramstyle
from psycopg import threadsafety as threadsafety
from psycopg.abc import AdaptContext, ConnParam
from psycopg.pq import TransactionStatus
from psycopg.rows import Row, RowFactory

from .. import await_
from ._locks import Lock
from ._waiting import running_loop, should_wait

# The attempts to connect of the `_connect` that runs in this context.
_attempts: ContextVar[list[Any]] = ContextVar("fiberback_psycopg_attempts")


class _Driver(AsyncConnection[Any]):
    """An async connection that leaves nothing behind when connecting is cancelled.

    psycopg leaves half a connection to the garbage collector, and the server has one client too many
    until then.
    """

    @classmethod
    def _connect_gen(cls, *args: Any, **kwds: Any) -> Any:
        attempt = super()._connect_gen(*args, **kwds)
        _attempts.get().append(attempt)
        return attempt

    @classmethod
    async def connect(cls, *args: Any, **kwds: Any) -> Any:  # type: ignore[override]
        attempts: list[Any] = []
        token = _attempts.set(attempts)
        try:
            return await super().connect(*args, **kwds)
        finally:
            _attempts.reset(token)
            for attempt in attempts:
                attempt.close()


class Connection(_psycopg.Connection[Row]):
    """A `psycopg.Connection` that waits on the running asyncio loop instead of blocking it.

    Make one with `connect()`. Methods raise what psycopg raises; in a task that cannot wait they
    raise `await_`'s RuntimeError. A method cancelled in the middle ends the query first.
    """

    #: Whether a wait was ever cancelled. The transaction can be rolled back; what belongs to the session
    #: (open cursors, settings, locks) may be half done, so pools do not use such a connection again.
    interrupted: bool = False
    _driver: AsyncConnection[Any]

    def __init__(self, pgconn: Any, *args: Any, **kwds: Any) -> None:
        super().__init__(pgconn, *args, **kwds)
        # psycopg holds it across waits. Its own would stop the loop when two tasks meet at it.
        self.lock: Any = Lock()

    @classmethod
    def over(cls, driver: AsyncConnection[Any]) -> Self:
        """The sync face of an async connection, which must not be used directly any more.

        Autocommit, adapters, isolation and prepared statements are taken over; row and cursor
        factories are not, since an async connection's are of another kind.
        """
        self = cls(driver.pgconn)
        self._driver = driver
        self._autocommit = driver._autocommit
        self._adapters = driver._adapters
        self._prepared = driver._prepared
        self._isolation_level = driver._isolation_level
        self._read_only = driver._read_only
        self._deferrable = driver._deferrable
        self._begin_statement = driver._begin_statement
        if not hasattr(driver, "_pool"):
            driver._pool = None  # no warning of its own when both are deleted unclosed
        return self

    @classmethod
    def connect(  # type: ignore[override]
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: RowFactory[Any] | None = None,
        cursor_factory: type[Cursor[Any]] | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect to a server; arguments and errors are those of `psycopg.Connection.connect`.

        Names are resolved, hosts tried in turn and `connect_timeout` kept without stopping the loop.
        """
        if running_loop() is None:
            return super().connect(
                conninfo,
                autocommit=autocommit,
                prepare_threshold=prepare_threshold,
                context=context,
                row_factory=row_factory,
                cursor_factory=cursor_factory,
                **kwargs,
            )
        connecting = _Driver.connect(
            conninfo,
            autocommit=autocommit,
            prepare_threshold=prepare_threshold,
            context=context,
            **kwargs,
        )
        self = cls.over(await_(connecting))
        if row_factory:
            self.row_factory = row_factory
        if cursor_factory:
            self.cursor_factory = cursor_factory
        return self

    def _underneath(self) -> AsyncConnection[Any]:
        try:
            return self._driver
        except AttributeError:
            pass
        # It was made in a thread without a loop. The new object must not get our notices.
        pgconn: Any = self.pgconn
        handlers = pgconn.notice_handler, pgconn.notify_handler
        self._driver = AsyncConnection(pgconn)
        pgconn.notice_handler, pgconn.notify_handler = handlers
        self._driver._pool = None
        return self._driver

    def wait(self, gen: Any, *args: Any, **kwds: Any) -> Any:
        """Run one of psycopg's generators to its end, waiting on the loop where there is one."""
        if running_loop() is None:
            return super().wait(gen, *args, **kwds)
        try:
            return await_(self._underneath().wait(gen, *args, **kwds))
        except BaseException as error:
            if not isinstance(error, Exception):
                self.interrupted = True
            # psycopg has cancelled the query and waited for its end. A COPY that was beginning has
            # only begun then, and nobody would ever end it.
            beginning = getattr(gen, "__name__", None) == "_start_copy_gen"
            if beginning and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
            raise

    def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Ask the server to cancel what the connection is at, from another task or thread.

        `timeout` is in seconds; `psycopg.errors.CancellationTimeout` is raised after it.
        """
        if running_loop() is None:
            super().cancel_safe(timeout=timeout)
        else:
            await_(self._underneath().cancel_safe(timeout=timeout))

    def cancel(self) -> None:
        """`cancel_safe`, or psycopg's blocking request in a loop's callback, where nothing can wait."""
        if running_loop() is not None and should_wait():
            self.cancel_safe()
        else:
            super().cancel()


connect = Connection.connect


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_psycopg, name)
