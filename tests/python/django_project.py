"""A small Django project for test_django.py: settings, models, URLs. Configured once per process."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from typing import Any

import django
from django.apps import AppConfig
from django.conf import settings

APP = "shop"
FOLDER = tempfile.TemporaryDirectory()  # removed at exit


class ShopConfig(AppConfig):
    name = "django_project"
    label = APP
    path = os.path.dirname(__file__)
    default_auto_field = "django.db.models.BigAutoField"


def configure(host: str, name: str) -> None:
    def database(**more: Any) -> dict[str, Any]:
        return {
            "ENGINE": "fiberback.django.postgresql",
            "NAME": name,
            "USER": "postgres",
            "HOST": host,
            **more,
        }

    settings.configure(
        DATABASES={
            "default": database(),
            "pooled": database(OPTIONS={"pool": {"min_size": 1, "max_size": 8, "timeout": 20}}),
            "aged": database(CONN_MAX_AGE=600),
            "lite": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": os.path.join(FOLDER.name, "lite.sqlite3"),
            },
        },
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django_project.ShopConfig",
        ],
        MIDDLEWARE=["django_project.sync_middleware", "django_project.both_middleware"],
        ROOT_URLCONF="django_project",
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="only for tests",
        USE_TZ=True,
    )
    django.setup()
    define()


def define() -> None:
    global Item, Line, urlpatterns
    from django.db import models
    from django.urls import path

    class Item(models.Model):
        name = models.CharField(max_length=100, unique=True)
        stock = models.IntegerField(default=0)

        class Meta:
            app_label = APP

    class Line(models.Model):
        item = models.ForeignKey(Item, models.CASCADE, related_name="lines")
        count = models.IntegerField()

        class Meta:
            app_label = APP

    globals().update(Item=Item, Line=Line)
    urlpatterns = [
        path("slow/", slow),
        path("sync/", sync_view),
        path("boom/", boom),
        path("children/", children),
        path("stream/", stream),
        path("async_orm/", async_orm),
        path("two/", two_databases),
    ]


threads: set[int] = set()
finished: list[str] = []


def sync_middleware(get_response: Any) -> Any:
    """Only sync, so that Django has to adapt what is around it."""

    def middleware(request: Any) -> Any:
        threads.add(threading.get_ident())
        request.items_before = Item.objects.count()  # queries, too
        response = get_response(request)
        response["X-Sync-Middleware"] = "yes"
        return response

    return middleware


class both_middleware:
    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction

        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
            self.is_async = True
        else:
            self.is_async = False

    def __call__(self, request: Any) -> Any:
        return self.acall(request) if self.is_async else self.get_response(request)

    async def acall(self, request: Any) -> Any:
        return await self.get_response(request)


async def slow(request: Any) -> Any:
    from django.db import connections, transaction
    from django.http import JsonResponse

    using = request.GET.get("using", "default")
    threads.add(threading.get_ident())
    with transaction.atomic(using):
        item = Item.objects.using(using).create(name=request.GET["name"])
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.1), pg_backend_pid()")
            pid = cursor.fetchone()[1]
    assert Item.objects.using(using).get(pk=item.pk).name == request.GET["name"]
    return JsonResponse({"pid": pid, "threads": threading.active_count()})


def sync_view(request: Any) -> Any:
    from asgiref.sync import async_to_sync, sync_to_async
    from django.http import JsonResponse

    threads.add(threading.get_ident())

    def again() -> int:
        return int(Item.objects.count())

    async def through_async() -> int:
        await asyncio.sleep(0)
        return await sync_to_async(again)() + await Item.objects.acount()

    count = Item.objects.count()
    assert async_to_sync(through_async)() == 2 * count
    return JsonResponse({"count": count, "threads": threading.active_count()})


async def boom(request: Any) -> Any:
    from django.db import transaction

    with transaction.atomic():
        Item.objects.create(name="never")
        raise ZeroDivisionError


async def children(request: Any) -> Any:
    from django.db import transaction
    from django.http import JsonResponse

    async def child() -> int:
        return int(Item.objects.filter(name="uncommitted").count())

    with transaction.atomic():
        Item.objects.create(name="uncommitted")
        counts = await asyncio.gather(child(), child())
        transaction.set_rollback(True)
    return JsonResponse({"counts": counts})


async def stream(request: Any) -> Any:
    from django.http import StreamingHttpResponse

    async def parts() -> Any:
        for item in Item.objects.order_by("name").iterator(chunk_size=2):
            yield item.name + ","
            await asyncio.sleep(0)

    return StreamingHttpResponse(parts())


async def async_orm(request: Any) -> Any:
    """The ORM's own async methods see the transaction of the sync ones."""
    from django.db import transaction
    from django.http import JsonResponse

    with transaction.atomic():
        Item.objects.create(name="by sync")
        seen = await Item.objects.filter(name="by sync").acount()
        await Item.objects.acreate(name="by async")
        also = Item.objects.filter(name="by async").count()
        transaction.set_rollback(True)
    return JsonResponse({"counts": [seen, also], "threads": threading.active_count()})


async def two_databases(request: Any) -> Any:
    """One database waits, the other blocks, in a thread."""
    import fiberback.django
    from asgiref.sync import sync_to_async
    from django.core.exceptions import SynchronousOnlyOperation
    from django.db import transaction
    from django.http import JsonResponse

    def lite() -> list[int]:
        with transaction.atomic("lite"):
            Item.objects.using("lite").create(name=request.GET["name"])
            return [Item.objects.using("lite").count(), threading.get_ident()]

    def both() -> list[int]:
        with transaction.atomic():
            Item.objects.create(name=request.GET["name"])
            return fiberback.django.in_thread(lite)

    refused = []
    for use in (lite, sync_to_async(lite)):
        try:
            result = use()
            if asyncio.iscoroutine(result):
                await result
        except SynchronousOnlyOperation as error:
            refused.append(str(error))
    found = both()
    again = await sync_to_async(fiberback.django.in_thread)(threading.get_ident)
    found.append(again)
    return JsonResponse({"found": found, "refused": refused})
