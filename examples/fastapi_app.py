"""FastAPI: endpoints call synchronous code that waits, however deep; one line prepares the application.

    uvicorn examples.fastapi_app:app          # any ASGI server, also on uvloop
    python examples/fastapi_app.py            # asks the application itself, without a server

Needs `pip install fastapi httpx`.
"""

from __future__ import annotations

import asyncio

import fiberback
import fiberback.asgi
import httpx
from fastapi import FastAPI

api = FastAPI()


async def price(item: str) -> int:  # a database or another service, say
    await asyncio.sleep(0.02)
    return len(item)


class Basket:
    """A synchronous class, whose property is loaded by a coroutine."""

    def __init__(self, items: list[str]) -> None:
        self.items = items

    @property
    def total(self) -> int:
        return sum(fiberback.await_(price(item)) for item in self.items)


@api.get("/basket/{items}")
async def basket(items: str) -> dict[str, int]:
    return {"total": Basket(items.split("+")).total}  # a plain attribute: no `await` in sight


app = fiberback.asgi.PortalMiddleware(api)  # each request's task can wait


async def main() -> list[int]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        baskets = ["tea+honey", "bread", "tea+tea+tea"]
        answers = await asyncio.gather(*(client.get(f"/basket/{each}") for each in baskets))
    totals = [answer.json()["total"] for answer in answers]
    print(f"three requests at once: {dict(zip(baskets, totals, strict=True))}")
    return totals


def test_main() -> None:
    assert asyncio.run(main()) == [8, 5, 9]


if __name__ == "__main__":
    asyncio.run(main())
