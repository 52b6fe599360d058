"""Tutorial, 0: a server to talk to. A line asks for a key, a line answers, and each answer takes 20 ms.

`python examples/tutorial_server.py` asks it once. The other files of the tutorial start it themselves.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator


class Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # who asks may lose patience
            while key := self.rfile.readline().decode().strip():
                time.sleep(0.02)
                self.wfile.write(f"the value of {key}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 100


@contextlib.contextmanager
def running() -> Iterator[int]:
    """A server in threads of its own, as it would be on another machine; gives its port."""
    with Server(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def ask(key: str) -> str:
    with running() as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{key}\n".encode())
        with connection.makefile() as lines:
            return lines.readline().strip()


def test_it_answers() -> None:
    assert ask("x") == "the value of x"


if __name__ == "__main__":
    print(ask("x"))
