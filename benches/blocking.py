"""What unmodified blocking code costs on the loop, within `fiberback.blocking()`.

`python benches/blocking.py` runs each of ours and its peers in turn, round after round, in one process:

1. 200 `requests.get` at one time, in one thread, to a server (a process of its own) that answers after 50 ms; against
   httpx.AsyncClient, and against `requests` in a pool of 20 and of 200 threads. With what memory each takes (in processes
   of their own), and the largest gap of a ticker on the same loop; also without the switch "turns", where all that the
   tasks do before they first wait is done in one turn of the loop.
2. redis-py's GETs of 50 tasks, against redis.asyncio's, with a redis-server of its own.
3. An echo over a pair of sockets whose data is ready, in a loop, against the same without hooks; processor time.
4. `time.sleep(0)`, and `recv` of what is ready, outside a loop; processor time.

What is not installed is left out, and said. `--rounds N`, `--quick`.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import importlib.util
import pathlib
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

import fiberback

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "python"))

import redis_server

DOWNLOADS, DELAY, TASKS, GETS = 200, 0.05, 50, 100
SHORT = 200  # operations that are timed together

SERVER = """
import asyncio
async def handle(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\\r\\n\\r\\n")
            await asyncio.sleep(0.05)
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello")
    except asyncio.IncompleteReadError:
        writer.close()
async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextlib.contextmanager
def server():
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
        finally:
            process.kill()


# --- downloads: each returns the seconds it took, and the largest gap of a ticker on the loop -------------


class Ticker:
    async def __aenter__(self):
        self.gap = 0.0
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()

    async def _tick(self):
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.gap, last = max(self.gap, now - last), now


async def all_at_once(download):
    """Seconds until `DOWNLOADS` of what `download()` makes are done, and the largest gap between the ticks meanwhile."""
    async with Ticker() as ticker:
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(DOWNLOADS):
                group.create_task(download())
        return time.perf_counter() - begin, ticker.gap


def by_blocking(without=()):
    async def run(url):
        import requests

        with fiberback.blocking(without=without):
            return await all_at_once(lambda: fiberback.with_portal_run_sync(requests.get, url))

    return run


async def by_session(url):
    """As httpx's client, one pool of connections for all."""
    import requests
    import requests.adapters

    with fiberback.blocking(), requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=DOWNLOADS))
        return await all_at_once(lambda: fiberback.with_portal_run_sync(session.get, url))


async def by_httpx(url):
    import httpx

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        return await all_at_once(lambda: client.get(url))


def by_pool(threads):
    async def run(url):
        import requests

        loop = asyncio.get_running_loop()

        async def download():
            await loop.run_in_executor(pool, requests.get, url)

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            return await all_at_once(download)

    return run


DOWNLOADERS = {
    "requests, blocking()": by_blocking(),
    "requests, blocking() without turns": by_blocking(without=["turns"]),
    "requests.Session, blocking()": by_session,
    "httpx.AsyncClient": by_httpx,
    "requests, 20 threads": by_pool(20),
    "requests, 200 threads": by_pool(200),
}


def memory(name, url):
    """MiB that a process has needed for it at most, beyond what it needs for one download."""

    done = subprocess.run(
        [sys.executable, __file__, "--memory", name, url],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def of_memory(name, url):
    global DOWNLOADS
    count, DOWNLOADS = DOWNLOADS, 1
    asyncio.run(DOWNLOADERS[name](url))
    before = peak()
    DOWNLOADS = count
    asyncio.run(DOWNLOADERS[name](url))
    print((peak() - before) / 1024)


def peak():
    """KiB. (What getrusage says begins with the memory of whoever has started the process.)"""
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\s*(\d+)", file.read())[1])


def downloads(rounds):
    if importlib.util.find_spec("requests") is None or importlib.util.find_spec("httpx") is None:
        print("downloads: left out, for requests or httpx is not installed")
        return
    times, gaps = {name: [] for name in DOWNLOADERS}, {name: [] for name in DOWNLOADERS}
    with server() as url:
        for _ in range(rounds):
            for name, run in DOWNLOADERS.items():
                seconds, gap = asyncio.run(run(url))
                times[name].append(seconds)
                gaps[name].append(gap)
        peer = statistics.median(times["httpx.AsyncClient"])
        print(f"{DOWNLOADS} downloads at one time from a server that takes {DELAY * 1000:.0f} ms")
        for name in DOWNLOADERS:
            middle = statistics.median(times[name])
            print(
                f"  {name:34} {middle * 1000:7.0f} ms  {middle / peer:5.2f} x httpx  "
                f"largest gap {statistics.median(gaps[name]) * 1000:6.1f} ms  "
                f"memory {memory(name, url):6.1f} MiB"
            )


# --- redis ------------------------------------------------------------------------------------------


def of_redis(rounds):
    if importlib.util.find_spec("redis") is None or shutil.which("redis-server") is None:
        print("redis: left out, for redis-py or redis-server is not installed")
        return
    import redis
    import redis.asyncio

    server = redis_server.Server()
    try:
        with redis.Redis(unix_socket_path=server.socket) as client:
            client.set("key", "value")
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(asyncio.run(gets(server.socket)))
            theirs.append(asyncio.run(gets_asyncio(server.socket)))
    finally:
        server.remove()
    mine, peer = statistics.median(ours), statistics.median(theirs)
    print(f"GETs per second of {TASKS} tasks, {GETS} each, over a Unix socket")
    print(f"  redis-py, blocking()  {mine:8.0f}  {mine / peer:5.2f} x redis.asyncio")
    print(f"  redis.asyncio         {peer:8.0f}")


async def gets(path):
    import redis

    def work():
        for _ in range(GETS):
            client.get("key")

    with (
        fiberback.blocking(),
        redis.Redis(unix_socket_path=path, max_connections=TASKS) as client,
    ):
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(fiberback.with_portal_run_sync(work))
        return TASKS * GETS / (time.perf_counter() - begin)


async def gets_asyncio(path):
    import redis.asyncio

    async def work():
        for _ in range(GETS):
            await client.get("key")

    pool = redis.asyncio.BlockingConnectionPool.from_url(f"unix://{path}", max_connections=TASKS)
    async with redis.asyncio.Redis(connection_pool=pool) as client:
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(work())
        took = time.perf_counter() - begin
    await pool.disconnect()
    return TASKS * GETS / took


# --- what is ready, and what no loop serves -----------------------------------------------------------


def nanoseconds(function):
    clock = time.thread_time
    begin = clock()
    for _ in range(SHORT):
        function()
    return (clock() - begin) / SHORT * 1e9


def against(what, function, rounds):
    """The least of many short times each, in turn: what else the machine does only adds."""
    plain, hooked = [], []
    for _ in range(rounds):
        plain.append(nanoseconds(function))
        with fiberback.blocking():
            hooked.append(nanoseconds(function))
    least = min(plain), min(hooked)
    print(
        f"  {what:40} {least[0]:7.0f} ns, hooked {least[1]:7.0f} ns: {least[1] - least[0]:+5.0f} ns"
    )


def ready(rounds):
    ours, theirs = socket.socketpair()

    def echo():
        ours.send(b"x")
        theirs.recv(10)

    def receive():
        theirs.recv(1)

    async def in_loop():
        for timeout in (None, 5):
            ours.settimeout(timeout)
            theirs.settimeout(timeout)
            against(f"send and recv in a loop, timeout {timeout}", echo, rounds)

    with ours, theirs:
        print("what is ready, and what no loop serves, in processor time")
        fiberback.run(in_loop())
        ours.settimeout(None)
        theirs.settimeout(None)
        ours.sendall(bytes(SHORT * rounds * 2))
        against("recv outside a loop", receive, rounds)
    against("time.sleep(0) outside a loop", lambda: time.sleep(0), rounds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", nargs=2)
    chosen = parser.parse_args()
    if chosen.memory:
        of_memory(*chosen.memory)
        return
    rounds = 1 if chosen.quick else chosen.rounds
    print(f"CPython {platform.python_version()}, {rounds} rounds")
    downloads(rounds)
    of_redis(rounds)
    ready(10 * rounds)


if __name__ == "__main__":
    main()
