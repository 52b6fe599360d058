"""Dask: 100 tasks wait at once on a worker with two threads, and a sync client in a running loop suspends.

pip install 'fiberback[dask]'
python examples/dask_job.py
"""

from __future__ import annotations

import asyncio
import time

import dask
import fiberback
import fiberback.dask
from distributed import Client, LocalCluster


async def fetch(number: int) -> str:
    """Stands for a request of an async client's."""
    await asyncio.sleep(0.2)
    return f"page {number}"


def page(number: int) -> str:
    """An ordinary function: what it calls may wait, however deep."""
    return fiberback.await_(fetch(number)).upper()


def job(client: Client) -> list[str]:
    """Synchronous code with Dask's synchronous client."""
    with dask.annotate(executor="fiberback"):
        return client.gather(client.map(page, range(100)))


async def main() -> list[str]:
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
        fiberback.dask.install(),
    ):
        client.register_plugin(fiberback.dask.Plugin())
        begin = time.monotonic()
        pages = job(client)  # in a running loop, which goes on
        print(f"{len(pages)} tasks of 0.2 s each in {time.monotonic() - begin:.1f} s")
        return pages


def test_job() -> None:
    assert fiberback.run(main()) == [f"PAGE {number}" for number in range(100)]


if __name__ == "__main__":
    fiberback.run(main())
