"""Serves Django: its ordinary, sync ORM in async code, without a thread hop.

Two settings do it::

    DATABASES = {"default": {"ENGINE": "fiberback.django.postgresql", ...}}    # settings.py

    from fiberback.django import get_asgi_application                          # asgi.py
    application = get_asgi_application()

    async def view(request):                     # views.py
        with transaction.atomic():               # plain sync code, called as such
            order = Order.objects.select_for_update().get(pk=request.GET["id"])
            order.lines.create(text=render(order))
        return JsonResponse({"lines": order.lines.count()})

`fiberback.django.postgresql` is Django's own PostgreSQL backend on `fiberback.dbapi.psycopg`: every
query waits on the event loop. Connections belong to tasks: each task has its own, closed or given back
to the pool (`OPTIONS["pool"]`) at the end of the request and, at the latest, of the task. In threads
without a loop (`manage.py migrate`, a shell, WSGI) the backend blocks as Django's own does.

`SynchronousOnlyOperation` is raised where a query would have to block an event loop: in a task that
has no portal. `get_asgi_application` and `fiberback.run` give portals; under another ASGI application
put "fiberback.django.PortalMiddleware" first in MIDDLEWARE.

Other databases of the project (SQLite, MySQL) block, so it is raised there, too, in tasks that have
portals, and `sync_to_async` is no help under this module's ASGI application, which runs what it is given
in the task. Call such code by `fiberback.django.in_thread(fn, *args)`: each task has a thread for that.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False
# ruff: noqa: E402

from __future__ import annotations

from .. import _extras

_extras.need(__name__, "django", "django")

from ._asgi import ASGIHandler as ASGIHandler
from ._asgi import get_asgi_application as get_asgi_application
from ._in_thread import in_thread as in_thread
from ._middleware import PortalMiddleware as PortalMiddleware

__all__ = ["ASGIHandler", "PortalMiddleware", "get_asgi_application", "in_thread"]
