"""Celery and Dask: tasks that wait, on fiberback's pool and executor and on the engines' own, in turns.

    pip install 'fiberback[celery,dask]' redis gevent; apt-get install redis-server
    python benches/engines.py [--rounds 2] [--tasks 2000] [--only celery|empty|dask]

Each measurement of Celery is a worker process of its own with a fresh Redis; the clock runs from the moment that the worker is
told to consume a queue with all tasks in it until all results are there. Memory is what the worker's resident set grew by
while the tasks waited.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import fiberback
from celery import Celery

WAIT = 0.05
app = Celery(
    "engines",
    broker=os.environ.get("ENGINES_REDIS"),
    backend=os.environ.get("ENGINES_REDIS"),
    set_as_current=False,
)
app.conf.update(worker_hijack_root_logger=False, task_default_queue="none")


@app.task(name="empty")
def empty() -> None:
    pass


@app.task(name="wait")
def wait(seconds: float) -> None:
    if os.environ["ENGINES_POOL"].startswith("fiberback"):
        fiberback.await_(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def rss(pid: int) -> int:
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(text.split("VmRSS:")[1].split()[0])


def celery(
    pool: str, concurrency: int, task: Any, args: tuple[Any, ...], count: int
) -> tuple[float, float]:
    """Seconds for all of them, and bytes for each that could wait at once."""
    import redis

    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [
                "redis-server",
                "--port",
                "0",
                "--unixsocket",
                f"{folder}/socket",
                "--save",
                "",
                "--dir",
                folder,
            ],
            stdout=subprocess.DEVNULL,
        )
        url = f"redis+socket://{folder}/socket"
        db = redis.Redis(unix_socket_path=f"{folder}/socket")
        while not os.path.exists(f"{folder}/socket"):
            time.sleep(0.01)
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "engines", "worker", "-P", pool),
                *("-c", str(concurrency), "-l", "error", "--without-gossip", "--without-mingle"),
            ],
            cwd=pathlib.Path(__file__).parent,
            env={**os.environ, "ENGINES_REDIS": url, "ENGINES_POOL": pool},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with Celery(set_as_current=False, broker=url, backend=url) as sender:
                while not sender.control.ping(timeout=0.5):
                    pass
                with sender.connection_for_write() as connection:
                    producer = sender.amqp.Producer(connection)
                    for _ in range(count):
                        sender.send_task(task.name, args, producer=producer, queue="all")
                before, most = rss(worker.pid), 0
                begin = time.perf_counter()
                sender.control.add_consumer("all")
                while len(db.keys("celery-task-meta-*")) < count:
                    most = max(most, rss(worker.pid))
                    time.sleep(0.02)
                return time.perf_counter() - begin, (most - before) / min(concurrency, count)
        finally:
            worker.terminate()
            worker.wait(60)
            server.terminate()
            server.wait()


def dask_wait(seconds: float, n: int) -> int:
    time.sleep(seconds)
    return n


def dask_await(seconds: float, n: int) -> int:
    fiberback.await_(asyncio.sleep(seconds))
    return n


def dask_tasks(client: Any, ours: bool, count: int) -> float:
    import dask

    begin = time.perf_counter()
    with dask.annotate(executor="fiberback" if ours else "default"):
        function = dask_await if ours else dask_wait
        futures = client.map(function, [0.1] * count, range(count), pure=False)
    client.gather(futures)
    return time.perf_counter() - begin


def show(name: str, ours: list[float], theirs: dict[str, list[float]], unit: str) -> None:
    mine = statistics.median(ours)
    print(f"{name}: fiberback {mine:.2f} {unit}")
    for peer, figures in theirs.items():
        other = statistics.median(figures)
        print(f"    {peer}: {other:.2f} {unit}, ratio {mine / other:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--only", choices=["celery", "empty", "dask"])
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    pool = "fiberback.celery:Pool"
    if options.only in (None, "celery"):
        waits: dict[str, list[tuple[float, float]]] = {}
        for _ in range(options.rounds):
            for each, concurrency in ((pool, 1000), ("gevent", 1000), ("prefork", 8)):
                found = celery(each, concurrency, wait, (WAIT,), options.tasks)
                waits.setdefault(each, []).append(found)
        mine = waits.pop(pool)
        name = f"{options.tasks} Celery tasks that wait {WAIT * 1000:.0f} ms"
        others = {each: [wall for wall, _ in found] for each, found in waits.items()}
        show(name, [wall for wall, _ in mine], others, "s")
        grown = {each: [size / 1024 for _, size in found] for each, found in waits.items()}
        grown.pop("prefork", None)
        show(
            "  the worker grew, for each of 1000 at once, by",
            [s / 1024 for _, s in mine],
            grown,
            "KiB",
        )
    if options.only in (None, "empty"):
        runs: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for each, concurrency in ((pool, 1000), ("solo", 1)):
                wall, _ = celery(each, concurrency, empty, (), options.tasks // 2)
                runs.setdefault(each, []).append(wall / (options.tasks // 2) * 1000)
        show("an empty Celery task", runs.pop(pool), runs, "ms")
    if options.only in (None, "dask"):
        import fiberback.dask
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            client.register_plugin(fiberback.dask.Plugin())
            walls: dict[bool, list[float]] = {True: [], False: []}
            for ours in (True, False):
                dask_tasks(client, ours, 20)
            for _ in range(options.rounds):
                for ours in (True, False):
                    walls[ours].append(dask_tasks(client, ours, options.tasks // 2))
        name = f"{options.tasks // 2} Dask tasks that wait 100 ms, 2 workers x 2 threads"
        show(name, walls[True], {"default executor": walls[False]}, "s")


if __name__ == "__main__":
    main()
