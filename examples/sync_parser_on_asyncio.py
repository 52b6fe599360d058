"""Unchanged synchronous code waits for a socket inside a running event loop, which goes on ticking.

`json.load`-style code reads from a file object through several frames of its own: here it is the
standard library's `csv` module and a small record parser, neither of which knows asyncio. The file
object's `readinto` is the only place that awaits. A ticker on the same loop shows that nothing
blocks. Run it: `python examples/sync_parser_on_asyncio.py`
"""

from __future__ import annotations

import asyncio
import csv
import io
import sys
import time

import fiberback

ROWS = 2000


class SocketFile(io.RawIOBase):
    """A plain binary file over an asyncio stream: the one place that knows of the event loop."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = fiberback.await_(self._reader.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)


# ---- synchronous code, written without a thought of async -------------------------------------


def totals_by_city(file, progress):
    totals = {}
    for row in records(csv.reader(file)):
        totals[row["city"]] = totals.get(row["city"], 0) + int(row["amount"])
        progress(1)
    return totals


def records(rows):
    header = next(rows)
    for row in rows:
        yield dict(zip(header, row, strict=True))


# ---- the asynchronous program around it ----------------------------------------------------------


async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"city,amount\n")
    for n in range(ROWS):
        writer.write(f"{('Rome', 'Oslo', 'Lima')[n % 3]},{n}\n".encode())
        if n % 100 == 0:
            await writer.drain()
            await asyncio.sleep(0.02)  # a slow network
    writer.close()


async def ticker(done: list[int], ticks: list[float]) -> None:
    while True:
        ticks.append(time.perf_counter())
        bar = "#" * (done[0] * 40 // ROWS)
        if sys.stderr.isatty():
            print(f"\r[{bar:<40}] {done[0]}/{ROWS} rows", end="", file=sys.stderr)
        await asyncio.sleep(0.01)


async def main() -> dict[str, int]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    done, ticks = [0], []
    ticking = asyncio.create_task(ticker(done, ticks))

    def progress(rows: int) -> None:
        done[0] += rows

    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with io.TextIOWrapper(io.BufferedReader(SocketFile(reader)), newline="") as file:
        totals = totals_by_city(file, progress)  # a plain call: no `await` in sight
    ticking.cancel()
    writer.close()
    server.close()
    if sys.stderr.isatty():
        print(file=sys.stderr)

    longest = max(after - before for before, after in zip(ticks, ticks[1:], strict=False))
    print(f"rows         {done[0]}, with the csv module: {totals}")
    print(f"time         {time.perf_counter() - begin:.2f} s")
    print(f"ticks        {len(ticks)}, one every 10 ms if nobody holds up the event loop")
    print(f"longest gap  {1000 * longest:.1f} ms between two ticks")
    return totals


def test_main() -> None:
    assert fiberback.run(main()) == {"Rome": 666333, "Oslo": 667000, "Lima": 665667}


if __name__ == "__main__":
    fiberback.run(main())
