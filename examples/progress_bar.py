"""Forty downloads overlap in synchronous code, and a progress bar advances while it waits for them.

`fiberback.TaskGroup` starts them, at most eight at once; tqdm, which knows nothing of event loops, counts
those that are done. The same function runs without any event loop and inside a running one.
Needs: tqdm. Run it: `python examples/progress_bar.py`
"""

from __future__ import annotations

import asyncio
import time

import fiberback
from tqdm import tqdm

PAGES = 40


async def fetch(page: int) -> int:
    await asyncio.sleep(0.05)  # a slow network
    return 1000 + page


def parse(page: int) -> int:
    """Synchronous code that waits: `start` takes both kinds."""
    return fiberback.await_(fetch(page)) // 10


# ---- synchronous code ------------------------------------------------------------------------------


def total_size() -> int:
    with fiberback.TaskGroup(limit=8) as group, tqdm(total=PAGES, unit="page") as bar:

        def one(page: int) -> int:
            size = parse(page)
            bar.update()
            return size

        sizes = [group.start(one, page) for page in range(PAGES)]
    return sum(size.result() for size in sizes)


def test_without_a_loop() -> None:
    assert total_size() == sum((1000 + page) // 10 for page in range(PAGES))


def test_in_a_running_loop() -> None:
    async def main() -> int:
        return total_size()

    assert asyncio.run(main()) == sum((1000 + page) // 10 for page in range(PAGES))


if __name__ == "__main__":
    begin = time.perf_counter()
    print(f"{total_size()} bytes in {time.perf_counter() - begin:.2f} s")
