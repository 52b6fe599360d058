"""Serves Peewee: its sync API on an event loop, waiting with `fiberback.await_`.

Take the database class from here; models, queries and transactions stay as they are::

    from fiberback.peewee import PostgresqlDatabase      # or SqliteDatabase, Pooled...

    db = PostgresqlDatabase("shop", user="shop")

    def order(name):                                     # plain sync code
        with db.atomic():
            return Order.create(customer=Customer.get(name=name))

    async def main():
        await asyncio.gather(*(handle(request) for request in requests))   # each calls order()

Connections, transactions and `db.connection_context()` belong to the task, as with Peewee they belong
to the thread: a task's children have connections of their own (`":memory:"` is another database for
each). What a task leaves open is closed, or given back to the pool, when the task ends. In threads
without a loop all of it blocks, as with Peewee.

PostgreSQL goes through `fiberback.dbapi.psycopg` (psycopg 3), SQLite through
`fiberback.dbapi.aiosqlite`. Parameters and errors are Peewee's.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False
# ruff: noqa: E402

from __future__ import annotations

from . import _extras

_extras.need(__name__, "peewee", "peewee", "psycopg")

import asyncio
import contextlib
import logging
from typing import Any

import peewee
from playhouse import pool

from . import with_portal_run_sync
from .dbapi import psycopg
from .dbapi._locks import Condition, RLock
from .dbapi._tasks import TaskLocal

__all__ = [
    "PooledPostgresqlDatabase",
    "PooledSqliteDatabase",
    "PostgresqlDatabase",
    "SqliteDatabase",
]

logger = logging.getLogger("fiberback.peewee")
# Tasks that give connections back to pools: the loop keeps weak references only.
_returning: set[asyncio.Task[None]] = set()


class _TaskState:
    """Peewee's state of a connection, one for each task where Peewee keeps one for each thread."""

    def __init__(self, end: Any) -> None:
        vars(self)["_of_tasks"] = TaskLocal[Any](peewee._ConnectionState, end)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of_tasks.get(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._of_tasks.get(), name, value)


class _Tasks:
    """Mixed in before one of Peewee's databases."""

    thread_safe: bool
    _state: Any
    _lock: Any

    def __init__(self, *args: Any, **kwds: Any) -> None:
        super().__init__(*args, **kwds)
        if self.thread_safe:
            self._state = _TaskState(self._end_of_task)
            # Peewee holds it across connecting; but what it guards is the task's own.
            self._lock = contextlib.nullcontext()

    def _end_of_task(self, state: Any) -> None:
        """Called on the loop, outside every task, where nothing can wait."""
        if state.closed:
            return
        conn = state.conn
        state.reset()
        try:
            self._leave(conn)
        except Exception:
            logger.exception("closing the connection of a finished task")

    def _leave(self, conn: Any) -> None:
        conn.close()


class _PooledTasks:
    """Mixed in before one of Peewee's pools."""

    _pool_lock: Any
    _pool_available: Any
    _close: Any

    def __init__(self, *args: Any, **kwds: Any) -> None:
        super().__init__(*args, **kwds)
        self._pool_lock = RLock()
        self._pool_available = Condition(self._pool_lock)

    def _is_closed(self, conn: Any) -> bool:
        try:
            closed: bool = super()._is_closed(conn)
        except BaseException:  # cancelled: it is in nobody's hands now
            conn.close()
            raise
        return closed

    def _can_reuse(self, conn: Any) -> bool:
        if getattr(conn, "interrupted", False):
            return False
        try:
            reusable: bool = super()._can_reuse(conn)
        except BaseException:
            conn.close()
            raise
        return reusable

    def _leave(self, conn: Any) -> None:
        # Rolling back, if need be, waits.
        task = asyncio.get_running_loop().create_task(with_portal_run_sync(self._close, conn))
        _returning.add(task)
        task.add_done_callback(_returning.discard)


class _Psycopg(peewee.Psycopg3Adapter):
    def connect(self, db: Any, **params: Any) -> Any:
        if db._encoding:
            params.setdefault("client_encoding", db._encoding)
        name = "conninfo" if "://" in db.database or "=" in db.database else "dbname"
        params.setdefault(name, db.database)
        return psycopg.connect(autocommit=True, **params)


class PostgresqlDatabase(_Tasks, peewee.PostgresqlDatabase):
    """`peewee.PostgresqlDatabase` on psycopg 3, with connections for tasks."""

    psycopg3_adapter = _Psycopg

    def init(self, database: Any, *args: Any, **kwds: Any) -> None:
        """As Peewee's; always psycopg 3."""
        super().init(database, *args, **{**kwds, "prefer_psycopg3": True})


class SqliteDatabase(_Tasks, peewee.SqliteDatabase):
    """`peewee.SqliteDatabase` on aiosqlite, with connections for tasks.

    Registered functions, aggregates and collations run in the connection's thread.
    """

    _timeout: Any
    _add_conn_hooks: Any

    def _connect(self) -> Any:
        from .dbapi import aiosqlite

        conn = aiosqlite.connect(
            self.database, timeout=self._timeout, isolation_level=None, **self.connect_params
        )
        try:
            self._add_conn_hooks(conn)
        except BaseException:
            conn.close()
            raise
        return conn


class PooledPostgresqlDatabase(
    _PooledTasks,
    pool._PooledPostgresqlDatabase,
    PostgresqlDatabase,
):
    """`playhouse.pool.PooledPostgresqlDatabase` for tasks. `timeout` waits without blocking the loop."""


class PooledSqliteDatabase(
    _PooledTasks,
    pool._PooledSqliteDatabase,
    SqliteDatabase,
):
    """`playhouse.pool.PooledSqliteDatabase` for tasks. `timeout` waits without blocking the loop."""
