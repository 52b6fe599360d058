"""The quickstart: synchronous code waits in tasks of a program, and in one that nobody has prepared."""

from __future__ import annotations

import asyncio

import fiberback


async def request(n: int) -> int:
    await asyncio.sleep(0.01)
    return n * 10


def fetch(n: int) -> int:  # synchronous, and called by synchronous code
    return fiberback.await_(request(n))


def report() -> list[int]:
    return [fetch(n) for n in range(3)]


async def main() -> list[list[int]]:
    async def one() -> list[int]:
        return report()

    return await asyncio.gather(*(one() for _ in range(3)))  # three reports, side by side


def test_main() -> None:
    assert fiberback.run(main()) == asyncio.run(main()) == [[0, 10, 20]] * 3
    assert report() == [0, 10, 20]


if __name__ == "__main__":
    print("prepared:", fiberback.run(main()))
    print("unprepared:", asyncio.run(main()))
    print("without a loop:", report())
