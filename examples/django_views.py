"""Django: an async view calls synchronous code that waits; the ASGI application prepares each request.

    python examples/django_views.py

A project of its own in one file. With a database, `"ENGINE": "fiberback.django.postgresql"` makes the
ORM's queries wait the same way. Needs `pip install 'fiberback[django]' httpx`.
"""

from __future__ import annotations

import asyncio

import django
import fiberback
import httpx
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path
from fiberback.django import get_asgi_application


async def rate(currency: str) -> float:  # another service, say
    await asyncio.sleep(0.02)
    return {"EUR": 1.0, "USD": 1.25}[currency]


def convert(amount: float, currency: str) -> float:  # synchronous, called by synchronous code
    return amount * fiberback.await_(rate(currency))


async def view(request: HttpRequest, amount: int) -> JsonResponse:
    return JsonResponse({each: convert(amount, each) for each in ("EUR", "USD")})


settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=(path("convert/<int:amount>", view),),
    SECRET_KEY="an example",
    USE_TZ=True,
)
django.setup()
application = get_asgi_application()  # in a project: asgi.py


async def main() -> list[dict[str, float]]:
    transport = httpx.ASGITransport(app=application)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answers = await asyncio.gather(*(client.get(f"/convert/{n}") for n in (4, 8)))
    results = [answer.json() for answer in answers]
    print(f"two requests at once: {results}")
    return results


def test_main() -> None:
    assert asyncio.run(main()) == [{"EUR": 4, "USD": 5}, {"EUR": 8, "USD": 10}]


if __name__ == "__main__":
    asyncio.run(main())
