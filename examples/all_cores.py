"""All cores: one event loop per process, in each of which synchronous code waits and computes.

python examples/all_cores.py
python examples/all_cores.py 400                   # more requests, and medians of three
taskset -c 0 python examples/all_cores.py 400      # on one of them

The processes listen on one port, among which the system deals out the connections (SO_REUSEPORT).
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import socket
import statistics
import sys
import time
from typing import Any

import fiberback

CONNECTIONS = 40


def answer(line: bytes, rounds: int) -> bytes:
    """Synchronous: waits for a database, say, and then computes."""
    fiberback.await_(asyncio.sleep(0.005))
    digest = line
    for _ in range(rounds):
        digest = hashlib.sha256(digest).digest()
    return digest.hex().encode()


async def serve(port: int, rounds: int, is_there: Any) -> None:
    async def requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(answer(line, rounds) + b"\n")
        writer.close()

    server = await asyncio.start_server(requests, "127.0.0.1", port, reuse_port=True)
    is_there.release()
    await server.serve_forever()


def worker(port: int, rounds: int, is_there: Any) -> None:
    """In each process: `fiberback.run` gives every task a portal, those of connections too."""
    fiberback.run(serve(port, rounds, is_there))


async def ask(port: int, requests: int) -> list[bytes]:
    """Over so many connections, each of which has its share of the requests."""

    async def connection(numbers: range) -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answers = []
        for number in numbers:
            writer.write(b"%d\n" % number)
            answers.append((await reader.readline()).rstrip())
        writer.close()
        return answers

    shares = [range(first, requests, CONNECTIONS) for first in range(min(CONNECTIONS, requests))]
    return [answer for each in await asyncio.gather(*map(connection, shares)) for answer in each]


def measure(processes: int, requests: int, rounds: int) -> tuple[list[bytes], float]:
    """The answers, and the seconds that they took once each process was there."""
    spawn = multiprocessing.get_context("spawn")
    is_there = spawn.Semaphore(0)
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        workers = [
            spawn.Process(target=worker, args=(port, rounds, is_there), daemon=True)
            for _ in range(processes)
        ]
        for each in workers:
            each.start()
        try:
            for _ in workers:
                assert is_there.acquire(timeout=60), "a process did not start"
            begin = time.perf_counter()
            return asyncio.run(ask(port, requests)), time.perf_counter() - begin
        finally:
            for each in workers:
                each.terminate()
                each.join()


def test_two_processes_answer() -> None:
    answers, _ = measure(processes=2, requests=100, rounds=1)
    assert sorted(answers) == sorted(
        hashlib.sha256(b"%d\n" % n).hexdigest().encode() for n in range(100)
    )


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    count = processors()
    print(f"{count} processors")
    requests, turns = (int(sys.argv[1]), 3) if sys.argv[1:] else (40, 1)
    for name, rounds in [("that wait", 1), ("that compute for some milliseconds, too", 3000)]:
        took: dict[int, list[float]] = {1: [], count: []}
        for _ in range(turns):
            for each, figures in took.items():
                figures.append(measure(each, requests, rounds)[1])
        rates = {each: requests / statistics.median(figures) for each, figures in took.items()}
        print(f"requests {name}: {rates[1]:.0f}/s by one process", end="")
        print(f", {rates[count]:.0f}/s by {count}: {rates[count] / rates[1]:.2f} times as many")
