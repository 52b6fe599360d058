"""A program written for greenback, with its import changed and nothing else."""

from __future__ import annotations

import asyncio

import fiberback.greenback as greenback


class Account:
    """A synchronous interface whose property is loaded by a coroutine."""

    async def _load(self) -> int:
        await asyncio.sleep(0.01)
        return 42

    @property
    def balance(self) -> int:
        return greenback.await_(self._load())


async def main() -> int:
    await greenback.ensure_portal()
    return Account().balance


def test_main() -> None:
    assert asyncio.run(main()) == 42


if __name__ == "__main__":
    print("balance:", asyncio.run(main()))
