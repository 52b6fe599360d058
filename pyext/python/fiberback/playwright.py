"""Serves Playwright: its sync API inside of a running asyncio loop.

Playwright refuses its sync API where an event loop runs ("Please use the Async API instead"). Once, before it is
used::

    import fiberback.playwright

    fiberback.playwright.install()

and a task, or a callback, can say what a script would::

    def title(url):                                      # plain sync code
        with sync_playwright() as playwright:
            page = playwright.chromium.launch().new_page()
            page.goto(url)
            return page.title()

    async def main():
        await asyncio.gather(*(task(url) for url in urls))   # each calls title()

Each call waits by `fiberback.await_`: the loop goes on meanwhile, and what other tasks do in pages of their own
overlaps with it. Handlers (`page.on`, `page.route`) may call the sync API, too. Where no loop runs, Playwright does
as before. It works with the greenlet package as with `fiberback.greenlet`.
"""

# The package may be missing or untyped where the types are checked; and parts of it are replaced.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,assignment,method-assign"
# mypy: warn-unused-ignores=False
# ruff: noqa: E402

from __future__ import annotations

from . import _extras

_extras.need(__name__, "playwright", "playwright")

import asyncio
from typing import Any

import greenlet
from playwright.sync_api import Playwright

from . import _messages, await_

try:
    from playwright._impl import _greenlets, _sync_base
    from playwright._impl._greenlets import connection_closed_error
    from playwright._impl._greenlets import wait_for_future as _wait_for_future
    from playwright._impl.out_of_process import PlaywrightClient
    from playwright.sync_api._context_manager import PlaywrightContextManager
except ImportError as _error:
    raise ImportError(_messages.PLAYWRIGHT_VERSION.format(error=_error)) from _error

__all__ = ["install"]

_enter = PlaywrightContextManager.__enter__

# What Playwright runs handlers in, so that who calls them goes on when they wait.
_HANDLERS = tuple(
    kind
    for kind in vars(_greenlets).values()
    if isinstance(kind, type) and issubclass(kind, greenlet.greenlet)
)


class _Dispatcher:
    """What Playwright's objects have for the greenlet that runs their loop, where that runs already."""

    client: PlaywrightClient | None = None

    @property
    def dead(self) -> bool:
        """Whether the connection to the browsers' driver has ended."""
        return self.client is not None and self.client._close_promise.done()

    def switch(self) -> None:
        """Lets the loop go on: a handler's greenlet goes back to who has called it; others wait for the end."""
        current = greenlet.getcurrent()
        if isinstance(current, _HANDLERS):
            parent = current.parent
            assert parent is not None  # only main greenlets have none
            parent.switch()
        elif self.client is not None:
            await_(asyncio.wait([self.client._close_promise]))


def enter(self: PlaywrightContextManager) -> Playwright:
    """In place of `PlaywrightContextManager.__enter__`."""
    try:
        self._loop = asyncio.get_running_loop()
    except RuntimeError:
        return _enter(self)
    dispatcher = self._dispatcher_fiber = _Dispatcher()
    client = self._client = dispatcher.client = PlaywrightClient(dispatcher)
    try:
        await_(asyncio.wait([client._playwright]))
        self._playwright = Playwright(client._playwright.result())
    except BaseException:
        self.__exit__()
        raise
    self._playwright.stop = self.__exit__
    return self._playwright


def wait_for_future(
    loop: asyncio.AbstractEventLoop, dispatcher_fiber: Any, future: asyncio.Future[Any]
) -> None:
    """In place of Playwright's function of that name, by which every call of the sync API waits."""
    __tracebackhide__ = True
    if not isinstance(dispatcher_fiber, _Dispatcher) or isinstance(
        greenlet.getcurrent(), _HANDLERS
    ):
        _wait_for_future(loop, dispatcher_fiber, future)
        return
    assert dispatcher_fiber.client is not None
    try:
        await_(
            asyncio.wait(
                [future, dispatcher_fiber.client._close_promise],
                return_when=asyncio.FIRST_COMPLETED,
            )
        )
        if not future.done():
            # Nobody is left who could settle it.
            raise connection_closed_error()
    except BaseException:
        future.cancel()
        raise


def install() -> None:
    """Have Playwright's sync API wait by `await_` where an event loop runs. A second call does nothing."""
    PlaywrightContextManager.__enter__ = enter
    _greenlets.wait_for_future = wait_for_future
    _sync_base.wait_for_future = wait_for_future
