"""Celery's command line takes `--pool=fiberback.celery:Pool`, which is not in the list of names that it accepts.

It loads this as a plugin, before it reads the arguments of `celery worker`. What it gets for that is a command that says
how to choose the pool.
"""

# Celery has no types.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import celery.bin.worker
import click
from celery import concurrency

_NAME = "fiberback.celery:Pool"


def _accept() -> None:
    concurrency.ALIASES[_NAME] = _NAME
    for parameter in celery.bin.worker.worker.params:
        names = getattr(parameter.type, "choices", ())
        if "prefork" in names and _NAME not in names:
            parameter.type.choices = type(names)((*names, _NAME))


_accept()


@click.command("fiberback", hidden=True)
def command() -> None:
    """Say how to run a worker with fiberback's pool."""
    click.echo(f"celery -A app worker --pool={_NAME} -c 1000")
