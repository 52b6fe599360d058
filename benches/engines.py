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
from collections.abc import Callable
from typing import Any, NamedTuple

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


def processor(pid: int) -> float:
    """Seconds of processor time of a process and its children."""
    used = 0.0
    for each in (pid, *children(pid)):
        fields = pathlib.Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def children(pid: int) -> list[int]:
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


class Run(NamedTuple):
    wall: float  # seconds until all results are there
    processor: float  # seconds of the worker's processes meanwhile
    grown: float  # bytes for each task that could wait at once


def celery(pool: str, concurrency: int, task: Any, args: tuple[Any, ...], count: int) -> Run:
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
                begin, used = time.perf_counter(), processor(worker.pid)
                sender.control.add_consumer("all")
                while len(db.keys("celery-task-meta-*")) < count:
                    most = max(most, rss(worker.pid))
                    time.sleep(0.02)
                return Run(
                    time.perf_counter() - begin,
                    processor(worker.pid) - used,
                    (most - before) / min(concurrency, count),
                )
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


def dask_tasks(client: Any, executor: str, function: Any, seconds: float, count: int) -> float:
    import dask

    begin = time.perf_counter()
    with dask.annotate(executor=executor):
        futures = client.map(function, [seconds] * count, range(count), pure=False)
    client.gather(futures)
    return time.perf_counter() - begin


def interleaved(
    rounds: int, workers: tuple[tuple[str, int], ...], task: Any, args: tuple[Any, ...], count: int
) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {}
    for _ in range(rounds):
        for pool, concurrency in workers:
            runs.setdefault(pool, []).append(celery(pool, concurrency, task, args, count))
    return runs


def per_task(count: int) -> Callable[[Run], float]:
    return lambda run: run.processor / count * 1000


def show(name: str, runs: dict[str, list[Any]], figure: Callable[[Any], float], unit: str) -> None:
    """The median of each, and the first one's ratio to the others'."""
    first, *others = {
        who: statistics.median(map(figure, found)) for who, found in runs.items()
    }.items()
    ours = first[0].partition(".")[0]  # as the report reads it
    print(f"{name}: {ours} {first[1]:.2f} {unit}", flush=True)
    for who, other in others:
        print(f"    {who}: {other:.2f} {unit}, ratio {first[1] / other:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--only", choices=["celery", "empty", "dask"])
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    pool = "fiberback.celery:Pool"
    if options.only in (None, "celery"):
        workers = ((pool, 1000), ("gevent", 1000), ("prefork", 8))
        runs = interleaved(options.rounds, workers, wait, (WAIT,), options.tasks)
        name = f"{options.tasks} Celery tasks that wait {WAIT * 1000:.0f} ms"
        show(name, runs, lambda run: run.wall, "s")
        show("  the worker's processor time for each of them", runs, per_task(options.tasks), "ms")
        runs.pop("prefork")
        name = "  the worker grew, for each of 1000 at once, by"
        show(name, runs, lambda run: run.grown / 1024, "KiB")
    if options.only in (None, "empty"):
        count = options.tasks // 2
        runs = interleaved(options.rounds, ((pool, 1000), ("solo", 1)), empty, (), count)
        show("an empty Celery task", runs, lambda run: run.wall / count * 1000, "ms")
        show("  the worker's processor time for it", runs, per_task(count), "ms")
    if options.only in (None, "dask"):
        import fiberback.dask
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            client.register_plugin(fiberback.dask.Plugin())
            count = options.tasks // 2
            kinds = {
                "fiberback": ("fiberback", dask_await, 0.1),
                "default executor": ("default", dask_wait, 0.1),
                "tasks that do nothing, default executor": ("default", dask_wait, 0.0),
            }
            walls: dict[str, list[float]] = {who: [] for who in kinds}
            for kind in kinds.values():
                dask_tasks(client, *kind, 20)
            for _ in range(options.rounds):
                for who, kind in kinds.items():
                    walls[who].append(dask_tasks(client, *kind, count))
        name = f"{count} Dask tasks that wait 100 ms, 2 workers x 2 threads"
        show(name, walls, float, "s")


if __name__ == "__main__":
    main()
