"""Every hook, by the name of its switch."""

from __future__ import annotations

from . import dns, readiness, sleep, sockets, tls
from .places import Place

# In this order they are put in their places.
PLACES: dict[str, list[Place]] = {
    "sleep": sleep.PLACES,
    "sockets": sockets.PLACES,
    "ssl": tls.PLACES,
    "select": readiness.PLACES,
    "dns": dns.PLACES,
}
