"""Synchronous code waits in Trio tasks: one call prepares the whole program.

    python examples/trio_tasks.py

Needs `pip install 'fiberback[trio]'`.
"""

from __future__ import annotations

import fiberback
import trio


async def request(n: int) -> int:
    await trio.sleep(0.01)
    return n * 10


def fetch(n: int) -> int:  # synchronous, and called by synchronous code
    return fiberback.await_(request(n))


def report() -> list[int]:
    return sorted(range(3), key=fetch, reverse=True)


async def main() -> list[list[int]]:
    reports: list[list[int]] = []

    async def one() -> None:
        reports.append(report())

    async with trio.open_nursery() as nursery:  # the nursery's tasks have portals, too
        for _ in range(3):
            nursery.start_soon(one)
    print(f"three reports, side by side: {reports}")
    return reports


def test_main() -> None:
    assert trio.run(fiberback.with_portal_run_tree, main) == [[2, 1, 0]] * 3


if __name__ == "__main__":
    trio.run(fiberback.with_portal_run_tree, main)
