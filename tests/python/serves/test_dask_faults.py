"""Two Dask workers with two threads each, one of which is killed in the middle."""

# ruff: noqa: E402

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from support import import_or_skip, only_fiberback

dask = import_or_skip("dask")
import_or_skip("distributed")

import dask_cluster
import fiberback

pytestmark = [only_fiberback, pytest.mark.slow]


def waits(n, seconds):
    fiberback.await_(asyncio.sleep(seconds))
    return n


@pytest.mark.time_limit(300)
def test_a_worker_that_is_killed():
    """What it had is run by the others, and by the one that comes in its place, which has the plugin, too."""
    with dask_cluster.running(workers=2, processes=True) as (_, client):
        with dask.annotate(executor="fiberback"):
            futures = client.map(waits, range(400), seconds=2.0)
        pids = client.run(os.getpid)
        victim = next(iter(pids))
        deadline = time.monotonic() + 100
        while not client.processing(workers=[victim]).get(victim):
            assert time.monotonic() < deadline
        os.kill(pids[victim], signal.SIGKILL)
        assert client.gather(futures) == list(range(400))
        client.wait_for_workers(2, timeout=100)
        with dask.annotate(executor="fiberback"):
            again = client.map(waits, range(400, 420), seconds=0.0)
        assert client.gather(again) == list(range(400, 420))
        assert len({worker for each in client.who_has(again).values() for worker in each}) == 2
