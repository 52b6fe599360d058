"""Tutorial, 1: a synchronous client library, as there are many. In an async program it stops the event loop."""

from __future__ import annotations

import asyncio
import socket

from tutorial_server import running


class Transport:
    """The only part that knows of sockets."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._lines = self._socket.makefile()

    def ask(self, line: str) -> str:
        self._socket.sendall(f"{line}\n".encode())
        return self._lines.readline().strip()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class Client:
    """What users see: plain calls, properties, iteration. In a real library it is thousands of lines."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, key: str) -> str:
        return self._transport.ask(key)

    def __getitem__(self, key: str) -> str:
        return self.get(key)

    def many(self, keys: list[str]) -> dict[str, str]:
        return {key: self.get(key) for key in sorted(keys)}


async def main(port: int) -> tuple[dict[str, str], int]:
    ticks = 0

    async def ticker() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(ticker())
    await asyncio.sleep(0)
    transport = Transport(port)
    values = Client(transport).many(["a", "b", "c"])  # 60 ms, in which nothing else runs
    ticking.cancel()
    transport.close()
    return values, ticks


def test_it_stops_the_loop() -> None:
    with running() as port:
        values, ticks = asyncio.run(main(port))
    assert values == {key: f"the value of {key}" for key in "abc"}
    assert ticks == 0


if __name__ == "__main__":
    with running() as port:
        values, ticks = asyncio.run(main(port))
    print(f"{values}; meanwhile the event loop has gone on {ticks} times")
