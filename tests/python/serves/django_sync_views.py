"""A Django site whose sync views await, asked over ASGI; `test_django_sync_views.py` runs it.

Its argument: how the application is made.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading

import django
import fiberback
from asgi_request import request
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.http import JsonResponse
from django.urls import path

HOW = sys.argv[1]
FOLDER = tempfile.TemporaryDirectory()  # removed at exit

settings.configure(
    DEBUG=False,
    SECRET_KEY="secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(FOLDER.name, "db"),
        }
    },
    STATIC_URL="/static/",
    MIDDLEWARE=["fiberback.django.PortalMiddleware"] if HOW == "PortalMiddleware" else [],
)
django.setup()

from django.contrib.auth.models import Group  # noqa: E402
from django.db import transaction  # noqa: E402


async def names():
    return [group.name async for group in Group.objects.order_by("name")]


def view(request):
    """One thread, and so one connection and one transaction, for all of it."""
    with transaction.atomic():
        Group.objects.create(name=request.GET["name"])
        found = fiberback.await_(Group.objects.aget(name=request.GET["name"]))
        first = fiberback.await_(sync_to_async(threading.get_ident)())
        second = async_to_sync(sync_to_async(threading.get_ident))()
        assert first == second == threading.get_ident()
        found.name += "!"
        fiberback.await_(found.asave())
    return JsonResponse({"names": fiberback.await_(names())})


async def async_view(request):
    await sync_to_async(view)(request)
    return JsonResponse({"names": await names()})


urlpatterns = [path("sync/", view), path("async/", async_view)]


def application():
    if HOW == "fiberback.django":
        from fiberback.django import get_asgi_application
    else:
        from django.core.asgi import get_asgi_application
    app = get_asgi_application()
    if HOW == "static files":
        from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

        return ASGIStaticFilesHandler(app)
    return app


async def ask(app, where, name):
    status, _, _ = await request(app, f"{where}?name={name}")
    return status


async def main():
    app = application()
    for where in ("/sync/", "/async/"):
        for at in range(3):
            assert await ask(app, where, f"{where[1]}{at}") == 200
    # SQLite lets one writer in at a time; the threads are different ones all the same.
    statuses = await asyncio.gather(*(ask(app, "/sync/", f"z{at}") for at in range(4)))
    assert statuses == [200] * 4, statuses
    print(",".join(await names()))


if __name__ == "__main__":
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    asyncio.run(main())
