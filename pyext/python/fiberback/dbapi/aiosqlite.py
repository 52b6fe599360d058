"""sqlite3's interface over aiosqlite: `from fiberback.dbapi import aiosqlite as sqlite3`.

SQLite blocks: a statement runs in C, and waits for other processes' locks there. aiosqlite gives each
connection a thread for that; this face waits for it with `fiberback.await_`, so other tasks run
meanwhile. Connections, cursors, rows, adapters, converters and errors behave as those of `sqlite3`;
everything not named here is sqlite3's own. Differences: a statement's first rows are fetched with it;
functions that SQL calls back (`create_function` and the like) run in the connection's thread and
cannot `await_`.

When a task is cancelled in a statement, the statement is interrupted and has ended before the task
goes on: sqlite3 then tells by `in_transaction` whether there is something to roll back.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False
# ruff: noqa: E402

from __future__ import annotations

from .. import _extras

_extras.need(__name__, "aiosqlite", "aiosqlite")

import asyncio
import contextlib
import sqlite3 as _sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from sqlite3 import Binary as Binary
from sqlite3 import DatabaseError as DatabaseError
from sqlite3 import DataError as DataError
from sqlite3 import Date as Date
from sqlite3 import DateFromTicks as DateFromTicks
from sqlite3 import Error as Error
from sqlite3 import IntegrityError as IntegrityError
from sqlite3 import InterfaceError as InterfaceError
from sqlite3 import InternalError as InternalError
from sqlite3 import NotSupportedError as NotSupportedError
from sqlite3 import OperationalError as OperationalError
from sqlite3 import ProgrammingError as ProgrammingError
from sqlite3 import Row as Row
from sqlite3 import Time as Time
from sqlite3 import TimeFromTicks as TimeFromTicks
from sqlite3 import Timestamp as Timestamp  # type: ignore[attr-defined]
from sqlite3 import TimestampFromTicks as TimestampFromTicks
from sqlite3 import Warning as Warning
from sqlite3 import apilevel as apilevel
from sqlite3 import paramstyle as paramstyle
from types import TracebackType
from typing import Any, Self

import aiosqlite as _aiosqlite

from .. import await_
from ._waiting import refuse_trio, running_loop, should_wait

# Tasks may share a connection: its thread takes their calls one by one.
threadsafety = 2
# Type objects: SQLite has no column types, and sqlite3 does not define any either. PEP 249 does.
STRING = str
BINARY = bytes
NUMBER = float
DATETIME = str
ROWID = int

# Rows that are fetched in one visit to the connection's thread.
_CHUNK = 64


async def _in_thread(driver: Any, function: Callable[..., Any], args: Any, kwds: Any) -> Any:
    try:
        return await driver._execute(function, *args, **kwds)
    except asyncio.CancelledError:
        with contextlib.suppress(ValueError):  # "Connection closed", by somebody else
            await driver.interrupt()
            # The thread takes one thing after the other: when it has got here, that one is over.
            await driver._execute(int)
        raise


def _outside(name: str) -> Any:
    """A property of the sqlite3 connection that can be read from any thread."""

    def get(self: Connection) -> Any:
        return getattr(self._raw(), name)

    def put(self: Connection, value: Any) -> None:
        self._run(setattr, self._raw(), name, value)

    return property(get, put, doc=f"`sqlite3.Connection.{name}`.")


class _WithoutAnswers:
    """The queue of a connection's thread, whose answers nobody waits for: the loop may be closed by then,
    and the thread would end with that error."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def put_nowait(self, job: tuple[Any, Callable[[], Any]]) -> None:
        self._queue.put_nowait((None, job[1]))


class Connection:
    """A `sqlite3.Connection` in all but its type. Make one with `connect()`."""

    Warning = Warning
    Error = Error
    InterfaceError = InterfaceError
    DatabaseError = DatabaseError
    DataError = DataError
    OperationalError = OperationalError
    IntegrityError = IntegrityError
    InternalError = InternalError
    ProgrammingError = ProgrammingError
    NotSupportedError = NotSupportedError

    isolation_level = _outside("isolation_level")
    autocommit = _outside("autocommit")  # CPython 3.12 and later
    row_factory = _outside("row_factory")
    text_factory = _outside("text_factory")
    in_transaction = _outside("in_transaction")
    total_changes = _outside("total_changes")

    def __init__(self, driver: _aiosqlite.Connection) -> None:
        self._driver: Any = driver

    def __repr__(self) -> str:
        state = "closed" if self._driver._connection is None else "open"
        return f"<fiberback.dbapi.aiosqlite.Connection [{state}] at {id(self):#x}>"

    def _raw(self) -> Any:
        raw = self._driver._connection
        if raw is None:
            raise ProgrammingError("Cannot operate on a closed database.")
        return raw

    def _run(self, function: Callable[..., Any], *args: Any, **kwds: Any) -> Any:
        self._raw()
        return await_(_in_thread(self._driver, function, args, kwds))

    def cursor(self, factory: type[Cursor] | None = None) -> Cursor:
        """A cursor; `factory` makes another class of it, called with this connection."""
        self._raw()
        return (factory or Cursor)(self)

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        """`cursor().execute(...)`."""
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Cursor:
        """`cursor().executemany(...)`."""
        return self.cursor().executemany(sql, parameters)

    def executescript(self, script: str, /) -> Cursor:
        """`cursor().executescript(...)`."""
        return self.cursor().executescript(script)

    def commit(self) -> None:
        """Commit the open transaction, if any."""
        self._run(self._raw().commit)

    def rollback(self) -> None:
        """Roll back the open transaction, if any."""
        self._run(self._raw().rollback)

    def close(self) -> None:
        """Roll back and close; a second time it does nothing.

        In a loop's callback, where nothing can wait, the connection's thread does it a little later.
        """
        if self._driver._connection is None:
            return
        if running_loop() is not None and not should_wait():
            self._driver._tx = _WithoutAnswers(self._driver._tx)
            self._driver.stop()
        else:
            await_(self._driver.close())

    def interrupt(self) -> None:
        """Make the statements that run now fail with OperationalError. From any task or thread."""
        self._raw().interrupt()

    def iterdump(self, **kwds: Any) -> Iterable[str]:
        """The database as SQL text, line by line; it is read at once."""
        raw = self._raw()
        lines: list[str] = self._run(lambda: list(raw.iterdump(**kwds)))
        return iter(lines)

    def backup(self, target: Any, **kwds: Any) -> None:
        """Copy the database into another connection's, be it a face, aiosqlite's or sqlite3's."""
        driver = target._driver if isinstance(target, Connection) else target
        self._run(self._raw().backup, getattr(driver, "_connection", driver), **kwds)

    def blobopen(self, *args: Any, **kwds: Any) -> Any:
        """A `sqlite3.Blob` whose methods wait."""
        return _Blob(self, self._run(self._raw().blobopen, *args, **kwds))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """As sqlite3: commits, or rolls back on an error, and does not close."""
        self._run(self._raw().__exit__, kind, error, traceback)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._raw(), name)
        if not callable(value):
            return value

        def call(*args: Any, **kwds: Any) -> Any:
            return self._run(value, *args, **kwds)

        return call


class Cursor:
    """A `sqlite3.Cursor` in all but its type."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.arraysize = 1
        self.row_factory: Any = connection.row_factory
        self._cursor: Any = None
        self._closed = False
        self._rows: deque[Any] = deque()
        self._more = False  # whether the statement may have rows that were not fetched
        self._error: BaseException | None = None  # what came after the rows that are here

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return (
            f"<fiberback.dbapi.aiosqlite.Cursor [{state}] of {self.connection!r} at {id(self):#x}>"
        )

    def _raw(self) -> Any:
        """The sqlite3 cursor; called in the connection's thread."""
        if self._cursor is None:
            self._cursor = self.connection._raw().cursor()
        self._cursor.row_factory = self.row_factory
        return self._cursor

    def _start(self, method: str, *args: Any) -> Self:
        if self._closed:
            raise ProgrammingError("Cannot operate on a closed cursor.")
        self._rows.clear()
        self._more, self._error = False, None

        def run() -> None:
            raw = self._raw()
            getattr(raw, method)(*args)
            if raw.description is not None:
                self._more = True
                self._fetch(_CHUNK)

        self.connection._run(run)
        return self

    def _fetch(self, count: int) -> None:
        """Called in the connection's thread."""
        raw = self._raw()
        try:
            for _ in range(count):
                row = raw.fetchone()
                if row is None:
                    self._more = False
                    return
                self._rows.append(row)
        except BaseException as error:
            self._more, self._error = False, error

    def _need(self, count: int) -> None:
        if self._closed:
            raise ProgrammingError("Cannot operate on a closed cursor.")
        missing = count - len(self._rows)
        if missing > 0 and self._more:
            self.connection._run(self._fetch, max(missing, _CHUNK))
        if len(self._rows) < count and self._error is not None and not self._rows:
            error, self._error = self._error, None
            raise error

    def execute(self, sql: str, parameters: Any = (), /) -> Self:
        """Run one statement."""
        return self._start("execute", sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Self:
        """Run one statement with each of the parameters, which are all read first."""
        return self._start("executemany", sql, list(parameters))

    def executescript(self, script: str, /) -> Self:
        """Run statements separated by semicolons; commits first."""
        return self._start("executescript", script)

    def fetchone(self) -> Any:
        """The next row, or None."""
        self._need(1)
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next `size` rows, by default `arraysize`, or those that are left."""
        count = self.arraysize if size is None else size
        self._need(count)
        return [self._rows.popleft() for _ in range(min(count, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        while self._more:
            self._need(len(self._rows) + 1024)
        self._need(len(self._rows) + 1)
        rows = list(self._rows)
        self._rows.clear()
        return rows

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        self._need(1)
        if not self._rows:
            raise StopIteration
        return self._rows.popleft()

    def close(self) -> None:
        """Drop what is left of the result. The cursor is unusable then."""
        self._closed = True
        self._rows.clear()
        self._more = False
        if self._cursor is not None and self.connection._driver._connection is not None:
            if running_loop() is None or should_wait():
                self.connection._run(self._cursor.close)

    @property
    def description(self) -> Any:
        """The columns of the result: 7-tuples of which only the name is set, or None."""
        return None if self._cursor is None else self._cursor.description

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed, or -1."""
        return -1 if self._cursor is None else int(self._cursor.rowcount)

    @property
    def lastrowid(self) -> int | None:
        """The row id of the last inserted row."""
        return None if self._cursor is None else self._cursor.lastrowid

    def setinputsizes(self, sizes: Any, /) -> None:
        """Does nothing, as in sqlite3."""

    def setoutputsize(self, size: Any, column: Any = None, /) -> None:
        """Does nothing, as in sqlite3."""


class _Blob:
    def __init__(self, connection: Connection, blob: Any) -> None:
        self._connection = connection
        self._blob = blob

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._blob, name)

        def call(*args: Any) -> Any:
            return self._connection._run(value, *args)

        return call

    def __len__(self) -> int:
        size: int = self._connection._run(len, self._blob)
        return size

    def __getitem__(self, index: Any) -> Any:
        return self._connection._run(self._blob.__getitem__, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._connection._run(self._blob.__setitem__, index, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection._run(self._blob.close)


def connect(database: Any, *args: Any, factory: Any = None, **kwds: Any) -> Connection:
    """Open a database; parameters and errors are those of `sqlite3.connect`.

    `factory` makes another class of face, called with aiosqlite's connection.
    """
    names = ("timeout", "detect_types", "isolation_level", "check_same_thread")
    kwds.update(zip(names, args, strict=False))
    refuse_trio()
    driver = await_(_open(database, kwds))
    connection: Connection = (factory or Connection)(driver)
    return connection


async def _open(database: Any, kwds: dict[str, Any]) -> _aiosqlite.Connection:
    return await _aiosqlite.connect(database, **kwds)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_sqlite3, name)
