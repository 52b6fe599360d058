"""Celery workers with fiberback's pool, in processes of their own, for the tests of `fiberback.celery`."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

HERE = pathlib.Path(__file__).parent


def _path() -> str:
    return os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])


class Worker:
    def __init__(self, log: pathlib.Path, app: str, *arguments: str, **environ: str) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", app, "worker"),
                    *("--pool=fiberback.celery:Pool", "--without-gossip", "--without-mingle"),
                    *("-l", "info", *arguments),
                ],
                env={**os.environ, "PYTHONPATH": _path(), **environ},
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return self.log.read_text()

    def until(self, text: str) -> None:
        """Until the worker's log has that text."""
        until(lambda: text in self.said(), self)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)


def until(is_so: Any, worker: Worker) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert worker.process.poll() is None, worker.said()
        assert time.monotonic() < deadline, worker.said()
        time.sleep(0.02)


@contextmanager
def running(
    log: pathlib.Path, *arguments: str, environ: Mapping[str, str], app: str = "celery_tasks"
) -> Iterator[Worker]:
    worker = Worker(log, app, *arguments, **environ)
    try:
        worker.until(" ready.")
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


def client(environ: Mapping[str, str]) -> Any:
    """An app of this process, which sends tasks by their names (`send`) and gets their results."""
    from celery import Celery

    return Celery(
        set_as_current=False,
        broker=environ["CELERY_TEST_BROKER"],
        backend=environ["CELERY_TEST_RESULTS"],
    )


def send(app: Any, task: str, *args: Any, **options: Any) -> Any:
    return app.send_task(f"celery_tasks.{task}", args, **options)
