"""Every hook, by the name of its switch."""

from __future__ import annotations

from . import (
    dns,
    locks,
    processes,
    queues,
    readiness,
    signals,
    sleep,
    sockets,
    threads,
    tls,
)
from .places import Place

# In this order they are put in their places.
PLACES: dict[str, list[Place]] = {
    "sleep": sleep.PLACES,
    "sockets": sockets.PLACES,
    "ssl": tls.PLACES,
    "select": readiness.PLACES,
    "dns": dns.PLACES,
    "locks": locks.PLACES,
    "queues": queues.PLACES,
    "threads": threads.PLACES,
    "subprocess": processes.PLACES,
    "signals": signals.PLACES,
}
