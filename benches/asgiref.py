"""asgiref's functions and Django's ASGI handler: fiberback.asgiref against asgiref itself.

`python benches/asgiref.py` measures, under plain `asyncio.run`,

- `sync_to_async` of a function that returns at once, and of one that waits five frames deep by `async_to_sync`:
  in asgiref's thread, and on a fiber (`on_fiber=True`),
- `async_to_sync` in the thread of thread-sensitive code: 300 calls in a row, of an async function that returns at
  once, and of one that waits once, in a bare context and in one with twelve variables and four `Local`s, as a
  request's; half of that time is the hand-over between the threads, the same for both,
- Django's ASGI handler, without a server: requests each second of 20 clients at once to an async and to a sync
  view that say hello: as it is, after `fiberback.asgiref.install()`, and with `on_fiber=True`,

in turn, round after round in one process, so that whatever else the machine does hits all alike.
Numbers are medians over the rounds, ratios the medians of each round's ratio: above 1, fiberback is faster.
`--rounds N`, `--quick`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import platform
import statistics
import sys
import time
from contextvars import ContextVar

# This file's folder, where `asgiref` is this file.
sys.path.pop(0)

import asgiref.sync as stock
import django
import fiberback.asgiref as ours
from asgiref.local import Local
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.urls import path

CALLS = 300
REQUESTS = 200
CLIENTS = 20
VARIABLES = [ContextVar(f"variable {n}") for n in range(12)]
LOCALS = [Local() for _ in range(4)]


def returns():
    return 1


async def at_once():
    return 1


async def waits():
    await asyncio.sleep(0)
    return 1


def five_deep(fn, depth=5):
    return fn() if depth == 0 else five_deep(fn, depth - 1)


async def repeated(function):
    """Microseconds of the process for each call of an async function."""
    start = time.process_time()
    for _ in range(CALLS):
        await function()
    return (time.process_time() - start) / CALLS * 1e6


def repeated_in_thread(function):
    start = time.process_time()
    for _ in range(CALLS):
        function()
    return (time.process_time() - start) / CALLS * 1e6


def sync_to_async_pairs():
    theirs, mine = stock.async_to_sync(waits), ours.async_to_sync(waits)
    yield "sync_to_async, returns", stock.sync_to_async(returns), returns
    yield (
        "sync_to_async, waits five frames deep",
        stock.sync_to_async(lambda: five_deep(theirs)),
        lambda: five_deep(mine),
    )


async def calls(rounds):
    table = {}
    for name, theirs, function in sync_to_async_pairs():
        mine = ours.sync_to_async(function, on_fiber=True)
        table[name] = [], []
        for _ in range(rounds):
            for results, each in zip(table[name], (theirs, mine), strict=True):
                results.append(await repeated(each))
    run = stock.sync_to_async(repeated_in_thread)
    for context in ("bare", "full"):
        if context == "full":
            for variable in VARIABLES:
                variable.set(1)
            for local in LOCALS:
                local.value = 1
        for function, what in ((at_once, "returns"), (waits, "waits once")):
            name = f"async_to_sync in a thread, {context} context, {what}"
            table[name] = [], []
            for _ in range(rounds):
                for results, module in zip(table[name], (stock, ours), strict=True):
                    results.append(await run(module.async_to_sync(function)))
    return table


# --- Django ------------------------------------------------------------------------------------------


async def async_view(request):
    return HttpResponse("hello")


def sync_view(request):
    return HttpResponse("hello")


urlpatterns = [path("async", async_view), path("sync", sync_view)]


async def request(application, where):
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": f"/{where}",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    sent = [{"type": "http.request", "body": b"", "more_body": False}]
    bodies = []

    async def receive():
        if sent:
            return sent.pop()
        await asyncio.get_running_loop().create_future()

    async def send(message):
        bodies.append(message.get("body", b""))

    await application(scope, receive, send)
    assert b"".join(bodies) == b"hello"


async def rate(application, where):
    """Requests each second."""

    async def client():
        for _ in range(REQUESTS // CLIENTS):
            await request(application, where)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return REQUESTS / (time.perf_counter() - start)


async def requests(rounds, where):
    application = ASGIHandler()
    table = {"stock": [], "install()": [], "install(on_fiber=True)": []}
    for _ in range(rounds):
        table["stock"].append(await rate(application, where))
        with ours.install():
            table["install()"].append(await rate(application, where))
        with ours.install(on_fiber=True):
            table["install(on_fiber=True)"].append(await rate(application, where))
    return table


def ratio(over, under):
    return statistics.median(one / other for one, other in zip(over, under, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    settings.configure(
        ALLOWED_HOSTS=["localhost"], ROOT_URLCONF=sys.modules[__name__], LOGGING_CONFIG=None
    )
    logging.disable()
    django.setup()
    gc.freeze()

    print(
        f"Python {platform.python_version()}, asgiref {stock_version()}, Django {django.__version__}"
    )
    print(
        f"\n{'microseconds of the process for each call':54}{'asgiref':>10}{'fiberback':>11}{'ratio':>8}"
    )
    for name, (theirs, mine) in asyncio.run(calls(rounds)).items():
        medians = statistics.median(theirs), statistics.median(mine)
        print(f"{name:54}{medians[0]:10.1f}{medians[1]:11.1f}{ratio(theirs, mine):8.2f}")
    for where in ("async", "sync"):
        print(f"\n{f'requests each second, {where} view':54}{'':>10}{'median':>11}{'ratio':>8}")
        table = asyncio.run(requests(rounds, where))
        for name, rates in table.items():
            print(
                f"{name:54}{'':>10}{statistics.median(rates):11.0f}{ratio(rates, table['stock']):8.2f}"
            )


def stock_version():
    import asgiref

    return asgiref.__version__


if __name__ == "__main__":
    main()
