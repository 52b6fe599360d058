"""Fixtures: each backend with and without a portal where that can wait, and what shows that a loop goes on."""

from __future__ import annotations

import contextlib

import mariadb
import pytest
from support import import_or_skip


class Going:
    """How often the loop has had a turn."""

    def __init__(self):
        self.turns = 0


@pytest.fixture
def going(backend):
    """`async with going() as turns:` counts the turns of the loop in `turns.turns`."""

    @contextlib.asynccontextmanager
    async def manager():
        counted = Going()

        async def count():
            while True:
                counted.turns += 1
                await backend.sleep(0)

        async with backend.group() as group:
            handle = group.spawn(count)
            try:
                yield counted
            finally:
                handle.cancel()

    return manager


@pytest.fixture(scope="session")
def mariadb_socket():
    """Of the process's one server."""
    import_or_skip("pymysql")
    with mariadb.running() as path:
        yield path
