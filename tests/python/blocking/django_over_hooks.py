"""A Django site on a sync driver, asked over ASGI in one thread; `test_sync_stacks.py` runs it.

Its arguments: "psycopg2", the server's folder and a database; or "PyMySQL" and the server's socket. Async views call the
ORM as sync code does: one has a row until all others ask for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time

import fiberback
from asgi_request import request

DRIVER, *WHERE = sys.argv[1:]
COUNT = 10

if DRIVER == "psycopg2":
    sys.modules["psycopg"] = None  # Django would prefer it
    DATABASE = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": WHERE[0],
        "NAME": WHERE[1],
        "USER": "postgres",
    }
else:
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)  # mysqlclient's, for Django asks
    pymysql.install_as_MySQLdb()
    DATABASE = {
        "ENGINE": "django.db.backends.mysql",
        "NAME": "django",
        "USER": "root",
        "OPTIONS": {"unix_socket": WHERE[0]},
    }
# Django refuses sync calls where a loop runs, whatever waits below them.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"

import django  # noqa: E402
from django.conf import settings  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

settings.configure(
    SECRET_KEY="secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={"default": DATABASE},
)
django.setup()

from django.contrib.auth.models import Group  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402

held, asked, threads = [], [], set()


async def hold(request):
    with transaction.atomic():
        group = Group.objects.select_for_update().get()
        held.append(1)
        while len(asked) < COUNT:
            time.sleep(0)
        for _ in range(20):
            time.sleep(0)
        group.name += "h"
        group.save()
    return HttpResponse("held")


async def add(request):
    threads.add(threading.get_ident())
    while not held:
        await asyncio.sleep(0)
    with transaction.atomic():
        asked.append(1)
        group = Group.objects.select_for_update().get()
        group.name += "a"
        group.save()
    return HttpResponse("added")


urlpatterns = [path("hold/", hold), path("add/", add)]


async def main():
    from fiberback.django import get_asgi_application

    app = get_asgi_application()
    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        group.create_task(request(app, "/hold/"))
        for _ in range(COUNT):
            group.create_task(request(app, "/add/"))
    return await fiberback.with_portal_run_sync(lambda: Group.objects.get().name)


with contextlib.ExitStack() as stack:
    if DRIVER == "psycopg2":
        import fiberback.psycopg2

        stack.enter_context(fiberback.psycopg2.install())
    else:
        with pymysql.connect(unix_socket=WHERE[0], user="root") as connection:
            connection.query("CREATE DATABASE django")
    call_command("migrate", verbosity=0)
    Group.objects.create(name="")
    name = fiberback.run(main(), blocking=True)
    assert threads == {threading.get_ident()}
    print(name)
