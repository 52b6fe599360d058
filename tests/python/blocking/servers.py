"""Servers in threads of their own, which no hook reaches; and tasks of one thread that talk to each other."""

from __future__ import annotations

import contextlib
import socket
import threading

import fiberback


@contextlib.contextmanager
def serving(handle, family=socket.AF_INET, address=("127.0.0.1", 0)):
    """The address of a server that calls `handle(connection)` in a thread for each connection."""
    listener = socket.create_server(address, family=family, backlog=300)
    threads = []

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            handle(connection)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                thread = threading.Thread(target=serve, args=(connection,), daemon=True)
                threads.append(thread)
                thread.start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(30)
        for thread in threads:
            thread.join(30)


class Meeting:
    """Each who comes waits until `count` are there; that they overlap is the only way."""

    def __init__(self, count):
        self._barrier = threading.Barrier(count)

    def __call__(self):
        self._barrier.wait(60)


@contextlib.contextmanager
def pair(timeout=None, kind=socket.SOCK_STREAM):
    ours, theirs = socket.socketpair(type=kind)
    with ours, theirs:
        ours.settimeout(timeout)
        theirs.settimeout(timeout)
        yield ours, theirs


def together(backend, *functions):
    """What the functions return, each in a task of its own."""

    async def main():
        found = [None] * len(functions)

        async def one(index, function):
            found[index] = await fiberback.with_portal_run_sync(function)

        async with backend.group() as group:
            for index, function in enumerate(functions):
                group.spawn(one, index, function)
        return found

    return backend.run(main)
