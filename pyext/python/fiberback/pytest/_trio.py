"""pytest-trio: one Trio run for each test, in which its fixtures are set up, in tasks of their own.

For pytest a Trio fixture is a placeholder, which pytest-trio replaces when the run begins. So one that is asked
for later stays a placeholder. Here it is set up then, in the nursery of the others, and it ends as they do: after
what has asked for it, and before what it needs itself.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any, NoReturn

import pytest

from .. import _messages
from .._fiberback import await_
from .._loop.library import is_trio_running
from .._portal.task_tree import with_portal_run_tree

# What a fixture may raise that is for who asks for it.
_ERRORS = (Exception, pytest.skip.Exception, pytest.fail.Exception, pytest.xfail.Exception)


def serve(replace: Callable[[Any, str, Any], None]) -> None:
    """Have pytest-trio, which is loaded, do so until what `replace` has replaced is put back."""
    plugin, enable_trio_mode = _module("plugin"), _module("enable_trio_mode")
    fixture = plugin.TrioFixture
    requests = pytest.FixtureRequest
    handle = _handle_fixture(plugin.handle_fixture, requests.getfixturevalue)
    for module in (plugin, enable_trio_mode):  # the second has its own reference
        replace(module, "handle_fixture", handle)
    replace(plugin, "_trio_test", _trio_test(plugin._trio_test))
    replace(fixture, "register_and_collect_dependencies", _register(fixture))
    replace(fixture, "run", _run(fixture.run))
    replace(fixture, "__getattr__", _is_a_placeholder)
    replace(requests, "getfixturevalue", _getfixturevalue(fixture, requests.getfixturevalue))


def _module(name: str) -> Any:
    return importlib.import_module(f"pytest_trio.{name}")  # which has no types


def prepare(item: pytest.Item) -> None:
    """Before pytest-trio has a test: one that is synchronous runs in a task, too."""
    test: Any = getattr(item, "obj", None)
    if item.get_closest_marker("trio") is None or not inspect.isroutine(test):
        return
    is_known = hasattr(test, "hypothesis") or hasattr(test, "_trio_test_runner_wrapped")
    if is_known or inspect.iscoroutinefunction(test) or inspect.isasyncgenfunction(test):
        return

    @functools.wraps(test)
    async def in_a_task(**kwds: Any) -> Any:
        return test(**kwds)

    item.obj = in_a_task  # type: ignore[attr-defined]


# --- portals -------------------------------------------------------------------------------------------


def _trio_test(original: Callable[..., Any]) -> Callable[..., Any]:
    def trio_test(run: Callable[..., Any]) -> Any:
        """`run` is `trio.run`, or what the test's marker names."""
        return original(functools.partial(run, with_portal_run_tree))

    return trio_test


# --- while pytest collects what a fixture takes ----------------------------------------------------------


class _Collecting:
    """A request whose fixtures stay placeholders: those that a Trio fixture takes, which it waits for itself."""

    def __init__(self, request: Any, getfixturevalue: Callable[[Any, str], Any]) -> None:
        self._request = request
        self.getfixturevalue = functools.partial(getfixturevalue, request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def _handle_fixture(
    original: Callable[..., Any], getfixturevalue: Callable[[Any, str], Any]
) -> Callable[..., Any]:
    @functools.wraps(original)
    def handle_fixture(fixturedef: Any, request: Any, force_trio_mode: bool) -> Any:
        collecting = _Collecting(request, getfixturevalue)
        try:
            return original(fixturedef, collecting, force_trio_mode)
        except RuntimeError as error:
            if str(error) != "Trio fixtures can only be used by Trio tests":
                raise
            said = _messages.TRIO_FIXTURE_IN_SYNC_TEST.format(name=fixturedef.argname)
            raise RuntimeError(said) from None

    return handle_fixture


# --- fixtures that are asked for in the middle of the run ------------------------------------------------


class _Users(set[Any]):
    """The events for which a fixture waits before it ends; more may come while it does."""

    def __iter__(self) -> Iterator[Any]:
        seen: set[Any] = set()
        while len(seen) < len(self):
            event = next(each for each in set.__iter__(self) if each not in seen)
            seen.add(event)
            yield event


class _Late:
    """In the place of pytest-trio's context, for what one call has begun: what goes wrong while a fixture is set
    up is for who asks for it, and not the end of the test."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.active_cancel_scopes = context.active_cancel_scopes
        self.error: BaseException | None = None

    @property
    def crashed(self) -> bool:
        return self._context.crashed or self.error is not None

    def crash(self, fixture: Any, error: BaseException | None) -> None:
        told = error
        if isinstance(told, BaseExceptionGroup) and len(told.exceptions) == 1:
            told = told.exceptions[0]  # by the nursery in which pytest-trio calls the fixture
        if isinstance(told, _ERRORS) and not fixture.setup_done.is_set():
            self.error = self.error or told
        else:
            self._context.crash(fixture, error)


class _Test:
    """A test that runs, and its fixtures."""

    def __init__(self, fixture: Any, fixtures: set[Any]) -> None:
        self.fixture = fixture  # which the test is for pytest-trio, too
        self.begun: dict[Any, _Late | None] = dict.fromkeys(fixtures)
        self.tasks: dict[Any, Any] = {}
        self._context: Any = None
        self._variables: Context | None = None
        self._nursery: Any = None

    def runs(self, fixture: Any, context: Any, variables: Context) -> None:
        """Called in the fixture's own task."""
        import trio

        task = self.tasks[fixture] = trio.lowlevel.current_task()
        if self._nursery is None:
            self._context, self._variables, self._nursery = context, variables, task.parent_nursery

    def _begin(self, fixture: Any, late: _Late) -> None:
        # It finds the context of all fixtures itself, and that it has begun in another one.
        outside = self._nursery.parent_task.context.copy()
        run = functools.partial(fixture.run, late, self._variables)
        outside.run(functools.partial(self._nursery.start_soon, run, name=fixture.name))

    async def value_of(self, fixture: Any, user: Any) -> Any:
        fixture.user_done_events.add(user._teardown_done)
        if fixture not in self.begun:
            late = _Late(self._context)
            for each in fixture.register_and_collect_dependencies():
                if each not in self.begun:
                    self.begun[each] = late
                    self._begin(each, late)
        await fixture.setup_done.wait()
        if fixture._teardown_done.is_set():  # while we use it: it has failed
            asked = self.begun[fixture]
            if asked is not None and asked.error is not None:
                raise asked.error
            raise RuntimeError(_messages.TRIO_FIXTURE_CANCELLED.format(name=fixture.name))
        if fixture.fixture_value is _module("plugin").NURSERY_FIXTURE_PLACEHOLDER:
            return self.tasks[user].child_nurseries[0]  # each user has one of its own
        return fixture.fixture_value


_of_runs: Any = None


def _test() -> Any:
    """The test of a Trio run."""
    global _of_runs
    if _of_runs is None:
        import trio

        _of_runs = trio.lowlevel.RunVar[_Test | None]("fiberback.pytest", None)
    return _of_runs


def _register(fixture_class: Any) -> Callable[..., Any]:
    original = fixture_class.register_and_collect_dependencies

    @functools.wraps(original)
    def register_and_collect_dependencies(self: Any) -> set[Any]:
        found: set[Any] = original(self)
        if self._is_test:
            _test().set(_Test(self, found))
        for each in found:
            if not isinstance(each.user_done_events, _Users):
                each.user_done_events = _Users(each.user_done_events)
        return found

    return register_and_collect_dependencies


def _run(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def run(self: Any, context: Any, variables: Context) -> None:
        _test().get().runs(self, context, variables)
        await original(self, context, variables)

    return run


def _getfixturevalue(
    fixture_class: type, original: Callable[[Any, str], Any]
) -> Callable[[Any, str], Any]:
    @functools.wraps(original)
    def getfixturevalue(self: Any, argname: str) -> Any:
        value = original(self, argname)
        if not isinstance(value, fixture_class) or not is_trio_running():
            return value
        test = _test().get()
        if test is None:
            return value
        asks: Any = getattr(getattr(self, "_fixturedef", None), "cached_result", None)
        is_fixture = asks is not None and isinstance(asks[0], fixture_class)
        return await_(test.value_of(value, asks[0] if is_fixture else test.fixture))

    return getfixturevalue


def _is_a_placeholder(self: Any, name: str) -> NoReturn:
    raise AttributeError(_messages.TRIO_FIXTURE_NOT_YET.format(name=self.name, attribute=name))
