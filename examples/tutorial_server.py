"""Tutorial, 0: a server to talk to. A line asks for a key, a line answers, and each answer takes 20 ms.

`python examples/tutorial_server.py` asks it once. The other files of the tutorial start it themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while key := (await reader.readline()).decode().strip():
        await asyncio.sleep(0.02)
        writer.write(f"the value of {key}\n".encode())
        await writer.drain()
    writer.close()


@contextlib.contextmanager
def running() -> Iterator[int]:
    """A server in a thread of its own, as it would be on another machine; gives its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.start_server(answer, sock=listening))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        listening.close()


def ask(key: str) -> str:
    with running() as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{key}\n".encode())
        return connection.makefile().readline().strip()


def test_it_answers() -> None:
    assert ask("x") == "the value of x"


if __name__ == "__main__":
    print(ask("x"))
