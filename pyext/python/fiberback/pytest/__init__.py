"""Serves pytest: async fixtures in synchronous code, with pytest-asyncio, AnyIO's plugin and pytest-trio.

`pytest -p fiberback`, or in the configuration `addopts = "-p fiberback"`. Then

- synchronous code in an async test may call `request.getfixturevalue("an_async_fixture")`;
- synchronous tests and fixtures call `fiberback.await_` with what async fixtures have made: it runs on the
  loop of these (with pytest-trio if they are marked `trio`);
- every task has a portal: sync code in tests waits on uvloop and on Trio, too.

A fixture is set up on the loop that its scope says, by the plugin that owns it. Where that is another than the
one that runs, that one stands still for the time.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
from asyncio import Runner, _get_running_loop
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import Context
from typing import Any

import pytest

from .._fiberback import await_
from .._loop.library import is_trio_running
from .._modules import is_loaded
from .._portal.call_portal import as_coroutine
from .._portal.task_tree import with_portal_run_tree
from .._run.enable import enable
from .._run.in_running_loop import in_place, suspend
from .._thread.contexts import set_all
from .._thread.runner import lent_loop, lent_run
from . import _trio

_STACK = pytest.StashKey[contextlib.ExitStack]()
# The fixtures of pytest-asyncio that are runners, one for each scope.
_RUNNER = re.compile(r"_[a-z]+_scoped_runner")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STACK] = stack = contextlib.ExitStack()
    stack.enter_context(enable(everywhere=True))


def pytest_unconfigure(config: pytest.Config) -> None:
    stack = config.stash.get(_STACK, None)
    if stack is not None:
        stack.close()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Every plugin is there by now."""
    if is_loaded("pytest_trio.plugin"):
        _serve("pytest_trio", _trio.serve, session.config.stash[_STACK])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    if "pytest_trio" in _served:
        _trio.prepare(item)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    value = yield
    if isinstance(value, Runner) and _RUNNER.fullmatch(fixturedef.argname):
        value.run = functools.partial(_run, value)  # type: ignore[method-assign]
        lent = contextlib.ExitStack()
        lent.enter_context(lent_loop(value.get_loop))
        fixturedef.addfinalizer(lent.close)
    elif fixturedef.argname == "anyio_backend":
        name = value if isinstance(value, str) else value[0]
        serve = functools.partial(_serve_anyio, name)
        _serve(f"anyio on {name}", serve, request.config.stash[_STACK])
    return value


# What of other plugins' has been replaced.
_served: set[str] = set()
_Replace = Callable[[Any, str, Any], None]


def _serve(name: str, serve: Callable[[_Replace], None], stack: contextlib.ExitStack) -> None:
    """Have `serve` replace attributes, once, until the session ends."""
    if name in _served:
        return
    _served.add(name)
    stack.callback(_served.discard, name)

    def replace(place: Any, attribute: str, value: Any) -> None:
        before = vars(place).get(attribute)
        setattr(place, attribute, value)
        stack.callback(_put_back, place, attribute, before)

    serve(replace)


def _put_back(place: Any, name: str, before: Any) -> None:
    if before is None:
        delattr(place, name)
    else:
        setattr(place, name, before)


# --- pytest-asyncio ------------------------------------------------------------------------------------


def _run(runner: Runner, coro: Coroutine[Any, Any, Any], *, context: Context | None = None) -> Any:
    """`runner.run`, by which pytest-asyncio sets fixtures up, wherever it is called."""
    running = _get_running_loop()
    if running is None:
        return Runner.run(runner, coro, context=context)
    if running is runner.get_loop():
        result = suspend(running, coro, context)
    else:
        result = in_place(running, Runner.run, runner, coro, context=context)
    # What a fixture has set is set in the test that asks for it. pytest-asyncio would do so, too, and reset it at
    # the fixture's end: in a context in which that cannot be done, for the test's task has ended by then.
    if context is not None:
        set_all(context)
    return result


# --- AnyIO ---------------------------------------------------------------------------------------------


def _serve_anyio(backend: str, replace: _Replace) -> None:
    """Replace methods of the class that runs tests and fixtures on a backend."""
    cls: Any = importlib.import_module(f"anyio._backends._{backend}").TestRunner
    for name, ours in _METHODS.items():
        if hasattr(cls, name):  # not of every version
            replace(cls, name, _method(ours, getattr(cls, name)))


def _method(ours: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(*args: Any) -> Any:
        return ours(original, *args)

    return method


def _enter(original: Callable[..., Any], runner: Any) -> Any:
    runner._fiberback = contextlib.ExitStack()
    runner._fiberback.enter_context(lent_run(functools.partial(_run_in, runner)))
    return original(runner)


def _exit(original: Callable[..., Any], runner: Any, *exc: Any) -> Any:
    runner._fiberback.close()
    return original(runner, *exc)


def _run_in(runner: Any, awaitable: Awaitable[Any]) -> Any:
    return runner.run_fixture(as_coroutine, {"awaitable": awaitable})


def _is_running(original: Callable[..., bool], runner: Any) -> bool:
    return False  # it may be asked for more


def _run_test(original: Callable[..., Any], runner: Any, test: Any, kwds: dict[str, Any]) -> Any:
    return original(runner, functools.partial(with_portal_run_tree, test), kwds)


def _run_fixture(
    original: Callable[..., Any], runner: Any, fixture: Any, kwds: dict[str, Any]
) -> Any:
    """In the runner's task; called in it, or in one that a test has begun, in that one."""
    if _get_running_loop() is not None or is_trio_running():
        return await_(fixture(**kwds))
    return original(runner, functools.partial(with_portal_run_tree, fixture), kwds)


def _run_asyncgen_fixture(
    original: Callable[..., Any],
    runner: Any,
    fixture: Callable[..., AsyncGenerator[Any, Any]],
    kwds: dict[str, Any],
) -> Iterator[Any]:
    generator = fixture(**kwds)

    async def begin() -> Any:
        return await generator.asend(None)

    async def has_ended() -> bool:
        try:
            await generator.asend(None)
        except StopAsyncIteration:
            return True
        await generator.aclose()
        return False

    yield runner.run_fixture(begin, {})
    if not runner.run_fixture(has_ended, {}):
        pytest.fail("Async generator fixture did not stop")  # in AnyIO's words


_METHODS: dict[str, Callable[..., Any]] = {
    "__enter__": _enter,
    "__exit__": _exit,
    "is_running": _is_running,
    "run_test": _run_test,
    "run_fixture": _run_fixture,
    "run_asyncgen_fixture": _run_asyncgen_fixture,
}
