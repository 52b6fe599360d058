"""Sync views of Django that await, under Django's own ASGI handler and ours."""

from __future__ import annotations

import json
import pathlib

import pytest
from support import import_or_skip, only_fiberback, printed_by

pytestmark = [only_fiberback, pytest.mark.sampled]


FOLDER = pathlib.Path(__file__).parent


@pytest.mark.parametrize("how", ["django", "static files", "PortalMiddleware"])
def test_a_sync_view_awaits_the_orm(fb, how):
    import_or_skip("django")
    names = "a0!,a1!,a2!,s0!,s1!,s2!,z0!,z1!,z2!,z3!"
    assert printed_by(FOLDER / "django_sync_views.py", how).strip() == names


@pytest.mark.parametrize("how", ["get_asgi_application", "PortalMiddleware"])
def test_where_every_database_blocks_it_is_said_what_to_type(fb, how):
    """Django's own advice, `sync_to_async`, has been followed already for a view in the task."""
    import_or_skip("django")
    answers = json.loads(printed_by(FOLDER / "django_blocking_database.py", how))
    assert [answer["in thread"] for answer in answers.values()] == [0, 0]
    refused = [answers["/async/"]["plain"]]
    if how == "PortalMiddleware":
        assert answers["/sync/"]["plain"] == 0  # in asgiref's thread
    else:
        refused.append(answers["/sync/"]["plain"])
    for text in refused:
        assert "ENGINE" in text and "'fiberback.django.in_thread(fn, *args)'" in text
