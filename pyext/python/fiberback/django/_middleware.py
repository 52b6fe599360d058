"""A portal for each request, under an ASGI application that gives none."""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from .. import with_portal_run_tree
from ._safety import say_what_to_type


class PortalMiddleware:
    """Lets async views, and the tasks they start, wait in sync code. Put it first in MIDDLEWARE."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        say_what_to_type()
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __repr__(self) -> str:
        return f"<fiberback.django.PortalMiddleware get_response={self.get_response!r}>"

    def __call__(self, request: Any) -> Any:
        if self._is_async:
            return self._acall(request)
        return self.get_response(request)

    async def _acall(self, request: Any) -> Any:
        respond: Callable[[Any], Awaitable[Any]] = self.get_response
        return await with_portal_run_tree(respond, request)
