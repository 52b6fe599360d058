"""pytest: synchronous tests and fixtures use async code, without a plugin; the thread has a loop for it.

    pytest examples/pytest_fixtures.py
    python examples/pytest_fixtures.py

What a fixture opens belongs to the thread's own event loop, which goes on living from one `await_` to
the next: connections stay usable until the fixture closes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import fiberback
import pytest


class Client:
    """An async client with a connection."""

    @classmethod
    async def connect(cls, port: int) -> Client:
        self = cls()
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def ask(self, question: str) -> str:
        self._writer.write(question.encode() + b"\n")
        return (await self._reader.readline()).decode().strip()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line.upper())
    writer.close()


@pytest.fixture
def client() -> Iterator[Client]:
    with fiberback.thread_runner():  # its loop ends with this block, and the server with it
        server = fiberback.await_(asyncio.start_server(serve, "127.0.0.1", 0))
        client = fiberback.await_(Client.connect(server.sockets[0].getsockname()[1]))
        yield client
        fiberback.await_(client.close())
        server.close()


def test_asks(client: Client) -> None:
    assert fiberback.await_(client.ask("ready?")) == "READY?"
    assert fiberback.await_(client.ask("again?")) == "AGAIN?"


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
