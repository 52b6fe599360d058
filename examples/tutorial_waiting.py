"""Tutorial, 2: the same client, with a transport whose calls wait on the event loop. Nothing else is changed."""

from __future__ import annotations

import asyncio

import fiberback
from tutorial_blocking import Client
from tutorial_server import running


class WaitingTransport:
    """In place of `Transport`: the same methods, as synchronous. What touches asyncio's objects is in coroutines, which
    `await_` runs where the loop is, so that threads can call them, too."""

    def __init__(self, port: int) -> None:
        self._reader, self._writer = fiberback.await_(asyncio.open_connection("127.0.0.1", port))

    def ask(self, line: str) -> str:
        return fiberback.await_(self._ask(line))

    async def _ask(self, line: str) -> str:
        self._writer.write(f"{line}\n".encode())
        return (await self._reader.readline()).decode().strip()

    def close(self) -> None:
        fiberback.await_(self._close())

    async def _close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def main(port: int) -> tuple[dict[str, str], int]:
    ticks = 0

    async def ticker() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(ticker())
    await asyncio.sleep(0)
    transport = WaitingTransport(port)
    values = Client(transport).many(["a", "b", "c"])  # the task waits; the loop goes on
    ticking.cancel()
    transport.close()
    return values, ticks


def test_the_loop_goes_on() -> None:
    with running() as port:
        values, ticks = asyncio.run(main(port))
    assert values == {key: f"the value of {key}" for key in "abc"}
    assert ticks > 3


if __name__ == "__main__":
    with running() as port:
        values, ticks = asyncio.run(main(port))
    print(f"{values}; meanwhile the event loop has gone on {ticks} times")
