"""Portals that wait all along, as in a busy program: what others await then is stepped on stacks that the
tasks of the thread share (side_stack.rs)."""

from __future__ import annotations

import contextlib

import fiberback

# More than `FEW` in thread.rs.
COUNT = 20


class Once:
    def __await__(self):
        yield


def wait():
    fiberback.await_(Once())


@contextlib.contextmanager
def crowd(count=COUNT):
    """So many portals of this thread wait."""
    portals = [fiberback.with_portal_run_sync(wait) for _ in range(count)]
    for portal in portals:
        portal.send(None)
    yield
    for portal in portals:
        portal.close()
