"""Every hook, by the name of its switch."""

from __future__ import annotations

from .._replacements import Replacement
from . import (
    dns,
    files,
    locks,
    processes,
    queues,
    readiness,
    signals,
    sleep,
    sockets,
    threads,
    tls,
    turns,
)

# Not on unless they are named.
OPTIONAL = frozenset({"files"})
# In this order they are put in their places.
REPLACEMENTS: dict[str, list[Replacement]] = {
    "sleep": sleep.REPLACEMENTS,
    "sockets": sockets.REPLACEMENTS,
    "ssl": tls.REPLACEMENTS,
    "select": readiness.REPLACEMENTS,
    "dns": dns.REPLACEMENTS,
    "locks": locks.REPLACEMENTS,
    "queues": queues.REPLACEMENTS,
    "threads": threads.REPLACEMENTS,
    "subprocess": processes.REPLACEMENTS,
    "signals": signals.REPLACEMENTS,
    "turns": turns.REPLACEMENTS,
    "files": files.REPLACEMENTS,
}
