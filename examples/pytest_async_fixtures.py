"""pytest-asyncio: synchronous code in tests gets async fixtures, and waits for what they have made.

pytest -p fiberback examples/pytest_async_fixtures.py
python examples/pytest_async_fixtures.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import fiberback
import pytest
import pytest_asyncio

pytest_plugins = [
    "fiberback.pytest"
]  # what `-p fiberback` does; in a project, a line of its configuration


class Database:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    async def query(self, key: str) -> str:
        await asyncio.sleep(0.001)
        assert asyncio.get_running_loop() is self.loop
        return key.upper()


@pytest_asyncio.fixture
async def database() -> AsyncIterator[Database]:
    await asyncio.sleep(0.001)
    yield Database()
    await asyncio.sleep(0.001)


def look_up(request: pytest.FixtureRequest, key: str) -> str:
    """A helper of many tests, deep in synchronous code."""
    return fiberback.await_(request.getfixturevalue("database").query(key))


@pytest.mark.asyncio
async def test_async(request: pytest.FixtureRequest) -> None:
    assert look_up(request, "one") == "ONE"


def test_sync(database: Database, request: pytest.FixtureRequest) -> None:
    assert fiberback.await_(database.query("two")) == "TWO"
    assert look_up(request, "three") == "THREE"


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
