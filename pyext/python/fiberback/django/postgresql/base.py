"""Django's PostgreSQL backend on `fiberback.dbapi.psycopg`.

All options are those of `django.db.backends.postgresql` with psycopg 3. On an event loop
`OPTIONS["pool"]` makes a `psycopg_pool.AsyncConnectionPool` for that loop, with the same parameters;
in threads without one it makes Django's own pool. CONN_MAX_AGE keeps a connection for the life of its
task, never beyond: across requests use the pool.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False
# ruff: noqa: E402

from __future__ import annotations

import asyncio
import itertools
from typing import Any
from weakref import WeakKeyDictionary

from django.core.exceptions import ImproperlyConfigured

from ... import _extras, _messages

# What Django expects here of a backend that cannot work; an ImportError it would explain otherwise.
_missing = _extras.missing("fiberback.django.postgresql", "django", "psycopg", "psycopg_pool")
if _missing is not None:
    raise ImproperlyConfigured(_missing)

from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from ...dbapi import psycopg
from ...dbapi._waiting import running_loop
from .._connections import install
from .._safety import that_waits

if not is_psycopg3:  # Django prefers psycopg 3, so this is an old one
    raise ImproperlyConfigured(
        _messages.NEEDS_EXTRA.format(
            module="fiberback.django.postgresql", needs="psycopg 3.1.8 or later", extra="django"
        )
    )


_cursor_numbers = itertools.count()
_Waiting = that_waits(base.DatabaseWrapper)


class DatabaseWrapper(_Waiting):  # type: ignore[valid-type]
    """What `django.db.connections[alias]` is with this engine."""

    Database = psycopg
    # The pools of event loops; those of threads are the parent's.
    _loop_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Any]] = WeakKeyDictionary()

    @property
    def pool(self) -> Any:
        """The running loop's pool for this alias, made on first use; None without the option."""
        loop = running_loop()
        options = self.settings_dict["OPTIONS"].get("pool")
        if loop is None or self.alias == NO_DB_ALIAS or not options:
            return super().pool
        pools = self._loop_pools.setdefault(loop, {})
        if self.alias not in pools:
            if self.settings_dict.get("CONN_MAX_AGE", 0) != 0:
                raise ImproperlyConfigured("Pooling doesn't support persistent connections.")
            try:
                from ...dbapi.psycopg_pool import ConnectionPool
            except ImportError as error:
                raise ImproperlyConfigured(
                    "Error loading psycopg_pool module.\nDid you install psycopg[pool]?"
                ) from error
            # Autocommit at first, as Django's own pool: Django sets what it wants later on.
            params = {**self.get_connection_params(), "autocommit": True}
            options = {} if options is True else dict(options)
            if self.settings_dict["CONN_HEALTH_CHECKS"]:
                options.setdefault("check", ConnectionPool.check_connection)
            pools[self.alias] = ConnectionPool(
                kwargs=params, configure=self._configure_pooled, **options
            )
        return pools[self.alias]

    def chunked_cursor(self) -> Any:
        """A server-side cursor, of a name that no other has that this connection may have seen."""
        self._named_cursor_idx = next(_cursor_numbers)
        return super().chunked_cursor()

    def _configure_pooled(self, connection: Any) -> None:
        self._configure_connection(connection)

    def close_pool(self) -> None:
        """Close this alias's pool: that of the running loop, or that of threads where none runs."""
        loop = running_loop()
        if loop is None:
            super().close_pool()
            return
        pool = self._loop_pools.get(loop, {}).pop(self.alias, None)
        if pool is not None:
            pool.close()


install()
