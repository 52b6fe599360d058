"""A cluster of Dask's on this machine, with our plugin."""

from __future__ import annotations

import contextlib

import distributed
import fiberback.dask


@contextlib.contextmanager
def running(workers=1, processes=False):
    """The cluster, whose workers have two threads each and hear of the plugin, and a client of it."""
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=2, processes=processes, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.register_plugin(fiberback.dask.Plugin())
        yield cluster, client
