"""asgiref's `async_to_sync` and `sync_to_async`, with their import changed: in the loop's own thread, too.

A sync function below an async one calls async code, where asgiref's `async_to_sync` raises RuntimeError; and
sync code is called from async code without a thread.
Needs: asgiref. Run it: `python examples/asgiref_functions.py`
"""

from __future__ import annotations

import asyncio
import threading

from fiberback.asgiref import async_to_sync, sync_to_async  # before: from asgiref.sync


@async_to_sync
async def price(item: str) -> int:
    await asyncio.sleep(0.05)  # a slow network
    return 10 * len(item)


def total(items: list[str]) -> int:
    """Plain synchronous code."""
    return sum(price(item) for item in items)


def total_and_thread(items: list[str]) -> tuple[int, int]:
    return total(items), threading.get_ident()


async def view() -> list[int]:
    ticks = 0

    async def ticker() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    background = asyncio.create_task(ticker())
    items = ["tea", "coffee"]
    direct = total(items)  # asgiref's own raises here
    in_a_thread, other = await sync_to_async(total_and_thread)(items)
    on_a_fiber, same = await sync_to_async(total_and_thread, on_fiber=True)(items)
    background.cancel()
    assert same == threading.get_ident() != other
    assert ticks > 3, "the loop went on meanwhile"
    return [direct, in_a_thread, on_a_fiber]


def test_all_ways_give_the_same() -> None:
    assert asyncio.run(view()) == [90, 90, 90]


if __name__ == "__main__":
    print("the total, called directly, in a thread, on a fiber:", *asyncio.run(view()))
    print("and without any event loop:", total(["tea", "coffee"]))
