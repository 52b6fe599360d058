"""Fixtures: `fb` is the module under test, `backend` runs a test once per event loop."""

from __future__ import annotations

import asyncio
import builtins
import gc
import importlib.util
import os
import pathlib
import random
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import leaks
import support
from postgres import database as database
from postgres import postgres as postgres
from redis_server import redis_server as redis_server

TIME_LIMIT = int(os.environ.get("FIBERBACK_TIME_LIMIT", "120"))


def pytest_configure(config: pytest.Config) -> None:
    # `await_` of a bad awaitable closes it or not, as `await` does; some tests make such things.
    config.addinivalue_line("filterwarnings", "ignore:coroutine '_never' was never awaited")
    config.addinivalue_line("markers", "time_limit(seconds): for a test that runs whole suites")
    config.addinivalue_line("markers", "leaks: for a test that has stacks given up, or has none")
    config.addinivalue_line("markers", "slow: runs only if FIBERBACK_SLOW is set")
    config.addinivalue_line("markers", "sampled: see FIBERBACK_SAMPLE")
    leaks.watch_subprocesses()


def pytest_unconfigure() -> None:
    leaks.stop_watching()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`FIBERBACK_SLOW` runs the slow tests, too; `FIBERBACK_SHUFFLE` is the seed of a random order.

    `FIBERBACK_SAMPLE`, `K/N`: of the files that are marked `sampled`, for they take long and hardly depend on
    the CPython, the K-th share of N only. Whoever sets it runs the others elsewhere.
    """
    if not os.environ.get("FIBERBACK_SLOW"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: `make test-all` runs it"))
    sample = os.environ.get("FIBERBACK_SAMPLE")
    if sample:
        share, shares = map(int, sample.split("/"))
        elsewhere = pytest.mark.skip(reason="sampled: runs on another CPython this time")
        for item in items:
            # By the name: not every version collects every file.
            own = zlib.crc32(item.path.name.encode()) % shares == share
            if item.get_closest_marker("sampled") and not own:
                item.add_marker(elsewhere)
    seed = os.environ.get("FIBERBACK_SHUFFLE")
    if seed:
        random.Random(seed).shuffle(items)


def pytest_collection_finish() -> None:
    """What there is by now is left out of collections: each test makes some, most of the time once."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> list[str]:
    optional = ["trio", "uvloop", "anyio", "greenlet", "sqlalchemy", "greenback", "mypy"]
    absent = [name for name in optional if importlib.util.find_spec(name) is None]
    module = support.module_under_test()
    return [
        f"under test: {support.UNDER_TEST} {getattr(module, '__version__', '?')}"
        f" from {module.__file__}",
        f"event loops: {', '.join(support.BACKENDS)}; not installed: {', '.join(absent) or '-'}",
    ]


@pytest.fixture(scope="session")
def fb() -> Any:
    return support.module_under_test()


@pytest.fixture(params=support.BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return support.make_backend(request.param)


@pytest.fixture(params=[name for name in support.BACKENDS if name != "trio"])
def aio(request: pytest.FixtureRequest) -> Any:
    """Only the loops that speak asyncio."""
    return support.make_backend(request.param)


@pytest.fixture
def is_imported_late(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Whether a module that is in `sys.modules`, but is to be imported when it is first used, has been."""
    mark = "_was_imported_late"
    file = tmp_path / "imported_late.py"
    file.write_text(f"import builtins\nbuiltins.{mark} = True\n")
    monkeypatch.delattr(builtins, mark, raising=False)
    spec = importlib.util.spec_from_file_location("imported_late", file)
    assert spec is not None and spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "imported_late", module)
    spec.loader.exec_module(module)
    return lambda: hasattr(builtins, mark)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that hangs fails, with the stack where it hung, instead of stopping the whole run."""
    if not hasattr(signal, "SIGALRM"):
        return (yield)

    marker = item.get_closest_marker("time_limit")
    limit = marker.args[0] if marker else TIME_LIMIT

    def expired(signum: int, frame: Any) -> None:
        raise TimeoutError(f"this test did not end in {limit} seconds")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, limit, 5)  # and again, if cleaning up hangs too
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.fixture(autouse=True)
def no_stray_state() -> Iterator[None]:
    """A test must not leave a trace function or a loop."""
    trace, profile = sys.gettrace(), sys.getprofile()
    limit = sys.getrecursionlimit()
    yield
    assert sys.gettrace() is trace
    assert sys.getprofile() is profile
    assert sys.getrecursionlimit() == limit
    assert asyncio._get_running_loop() is None


@pytest.fixture(autouse=True)
def no_stack_is_given_up(request: pytest.FixtureRequest) -> Iterator[None]:
    """Neither in this process nor in those that the test starts; see leaks.py."""
    before = leaks.in_this_process()
    leaks.in_subprocesses()
    yield
    gc.collect()
    here, elsewhere = leaks.in_this_process() - before, leaks.in_subprocesses()
    if request.node.get_closest_marker("leaks") is None:
        assert (here, elsewhere) == (Counter(), []), "stacks were given up, or not to be had"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What was given up between the tests, or by who ended late."""
    late = leaks.in_subprocesses()
    if late and session.exitstatus == 0:
        session.exitstatus = 1
        print("stacks were given up:", *late, sep="\n", file=sys.stderr)
