"""The app of the worker that test_celery_django.py starts, and the settings of its Django."""

from __future__ import annotations

import os
import threading
from typing import Any

import fiberback
from celery import Celery
from meeting import meet

SECRET_KEY = "only for tests"
DATABASES = {
    "default": {
        "ENGINE": "fiberback.django.postgresql",
        "HOST": os.environ.get("CELERY_TEST_POSTGRES"),
        "NAME": os.environ.get("CELERY_TEST_DATABASE"),
        "USER": "postgres",
        "CONN_MAX_AGE": int(os.environ.get("CELERY_TEST_MAX_AGE", 0)),
    },
    "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}

app = Celery(
    "celery_django",
    broker=os.environ.get("CELERY_TEST_BROKER"),
    backend=os.environ.get("CELERY_TEST_RESULTS"),
)


def query(sql: str, *parameters: Any, using: str = "default") -> Any:
    from django.db import connections

    with connections[using].cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()[0]


@app.task
def writes(key: str, count: int, n: int) -> list[Any]:
    """In a transaction, while others are in theirs. The server's process, before and after it has waited for them."""
    from django.db import transaction

    with transaction.atomic():
        before = query("SELECT pg_backend_pid()")
        query("INSERT INTO noted VALUES (%s) RETURNING n", n)
        fiberback.await_(meet(key, count))
        # What the others have written is not committed yet.
        visible = query("SELECT count(*) FROM noted WHERE n >= 0")
        fiberback.await_(meet(key + " again", count))
    return [before, query("SELECT pg_backend_pid()"), visible]


@app.task(in_thread=True)
def writes_in_a_thread(n: int) -> int:
    return int(query("INSERT INTO noted VALUES (%s) RETURNING n", n))


@app.task
def fails_in_a_transaction(n: int) -> None:
    from django.db import transaction

    with transaction.atomic():
        query("INSERT INTO noted VALUES (%s) RETURNING n", n)
        raise LookupError("rolled back")


def where() -> list[Any]:
    return [query("SELECT 3", using="lite"), threading.current_thread().name]


@app.task
def blocks_on_the_loop() -> list[Any]:
    return where()


@app.task(in_thread=True)
def blocks_in_a_thread() -> list[Any]:
    return where()
