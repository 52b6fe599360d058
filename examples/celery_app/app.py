"""A Celery app that runs with nothing installed beside it: messages in a folder, results in SQLite.

pip install 'fiberback[celery]' sqlalchemy
celery -A app worker --pool=fiberback.celery:Pool -c 100        # in this folder
python send.py                                                  # in another terminal
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import time

import fiberback
from celery import Celery

FOLDER = pathlib.Path(os.environ.get("CELERY_APP_FOLDER", "/tmp/fiberback-celery-app"))
(FOLDER / "messages").mkdir(parents=True, exist_ok=True)

app = Celery(
    "app",
    broker="filesystem://",
    backend=f"db+sqlite:///{FOLDER}/results.db",
    broker_transport_options={
        "data_folder_in": str(FOLDER / "messages"),
        "data_folder_out": str(FOLDER / "messages"),
        "control_folder": str(FOLDER / "messages"),
    },
)


async def fetch(name: str) -> str:
    """Stands for a request of an async client's."""
    await asyncio.sleep(0.2)
    return f"the page of {name}"


@app.task
def page(name: str) -> str:
    """An ordinary function: what it calls may wait, however deep."""
    return render(name)


def render(name: str) -> str:
    return fiberback.await_(fetch(name)).upper()


@app.task
async def pages(names: list[str]) -> list[str]:
    return list(await asyncio.gather(*map(fetch, names)))


@app.task(in_thread=True)
def thumbnail(name: str) -> str:
    """Blocks, and has a thread for that."""
    time.sleep(0.2)
    return f"a picture of {name}"
