"""A Django site all of whose databases block, asked over ASGI; `test_django_sync_views.py` runs it.

Its argument: what gives the requests their portals.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile

import django
import fiberback.django
from asgi_request import request
from django.conf import settings
from django.core.exceptions import SynchronousOnlyOperation
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
    MIDDLEWARE=["fiberback.django.PortalMiddleware"] if HOW == "PortalMiddleware" else [],
)
django.setup()

from django.contrib.auth.models import Group  # noqa: E402


def count():
    try:
        return Group.objects.count()
    except SynchronousOnlyOperation as error:
        return str(error)


def answer():
    return JsonResponse({"plain": count(), "in thread": fiberback.django.in_thread(count)})


def sync_view(request):
    return answer()


async def async_view(request):
    return answer()


urlpatterns = [path("sync/", sync_view), path("async/", async_view)]


def application():
    if HOW == "PortalMiddleware":
        from django.core.asgi import get_asgi_application
    else:
        from fiberback.django import get_asgi_application
    return get_asgi_application()


async def main():
    app = application()
    async with asyncio.timeout(60):
        return {url: json.loads((await request(app, url))[2]) for url in ("/sync/", "/async/")}


if __name__ == "__main__":
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    print(json.dumps(asyncio.run(main())))
