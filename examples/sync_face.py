"""One async client, and its sync face: in a script without a loop, and by sync code inside one.

Run it: `python examples/sync_face.py`. Test it: `pytest examples/sync_face.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import fiberback


class AsyncStore:
    """A client as a library would write it, once."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __aenter__(self) -> AsyncStore:
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)

    async def get(self, key: int) -> str:
        """The value of a key."""
        await asyncio.sleep(0.01)
        return f"{self.name} {key}"

    async def keys(self) -> AsyncIterator[int]:
        for key in range(3):
            await asyncio.sleep(0)
            yield key


Store = fiberback.syncify(AsyncStore)


def report() -> list[str]:
    """Sync code, which knows nothing of loops."""
    with Store("value") as store:
        return [store.get(key) for key in store.keys()]


async def main() -> list[list[str]]:
    """Three reports overlap: each waits, and the loop goes on."""
    return await asyncio.gather(*(fiberback.with_portal_run_sync(report) for _ in range(3)))


def test_both_sides() -> None:
    expected = ["value 0", "value 1", "value 2"]
    assert report() == expected
    assert fiberback.run(main()) == [expected] * 3
    assert isinstance(Store("x"), AsyncStore)
    assert Store.get.__doc__ == "The value of a key."


if __name__ == "__main__":
    print("without a loop:", report())
    print("in a loop:", fiberback.run(main()))
