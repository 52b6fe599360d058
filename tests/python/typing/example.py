"""Everything public, used as a typed program uses it; `mypy --strict` must have no complaint."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import assert_type

import fiberback
import fiberback.greenback as greenback
import fiberback.sqlalchemy
from fiberback import asgiref, devlib, nest
from fiberback.threads import LoopThread, ThreadRunner, asyncio_run, start_blocking_portal


async def number(text: str, base: int = 10) -> int:
    await asyncio.sleep(0)
    return int(text, base)


@asynccontextmanager
async def resource() -> AsyncIterator[bytes]:
    yield b"resource"


async def letters() -> AsyncIterator[str]:
    yield "a"
    yield "b"


@fiberback.autoawait
async def length(text: str) -> int:
    return len(text)


@fiberback.decorate_as_sync(functools.lru_cache(maxsize=4))
async def cached(n: int) -> int:
    return n


def sync(text: str) -> list[str]:
    assert_type(fiberback.await_(number(text)), int)
    assert_type(fiberback.await_(asyncio.sleep(0, "x")), str)
    assert_type(length(text), int)
    with fiberback.async_context(resource()) as data:
        assert_type(data, bytes)
    found = [letter for letter in fiberback.async_iter(letters())]
    assert_type(found, list[str])
    return found


async def numbers() -> AsyncIterator[int]:
    yield 1


def in_thread(loop: asyncio.AbstractEventLoop) -> int:
    with fiberback.parent_loop(loop):
        return fiberback.await_(number("8"))


@fiberback.no_await
def balanced(amount: int, *, to: int) -> int:
    with fiberback.no_await("inner"):
        return amount + to


@fiberback.no_await("named")
def named() -> None:
    assert_type(balanced(1, to=2), int)


class Session:
    async def get(self) -> int:
        return 1


def faces() -> None:
    assert_type(fiberback.syncify(number)("8", base=8), int)
    assert_type(list(fiberback.syncify(letters)()), list[str])
    assert_type(fiberback.syncify(number, raise_sync_error=False)("8"), int)
    with fiberback.syncify(resource)() as data:
        assert_type(data, bytes)
    session = fiberback.syncify(Session, home=LoopThread())()
    assert session.get() == 1


class Client:
    @fiberback.sync
    async def get(self, url: str, *, retries: int = 0) -> bytes:
        return url.encode()

    @fiberback.sync(fallback="thread")
    async def put(self, url: str) -> int:
        return len(url)


def synchronous(client: Client) -> None:
    assert_type(fiberback.sync(number("1")), int)
    assert_type(fiberback.sync(number("1"), fallback="thread"), int)
    assert_type(fiberback.sync(number, "1", base=8), int)
    assert_type(fiberback.sync(number)("1", base=8), int)
    assert_type(client.get("url"), bytes)
    with LoopThread(loop_factory=asyncio.new_event_loop) as loop_thread:
        assert_type(loop_thread.run(number("1")), int)
        assert_type(loop_thread.submit(number("1")).result(), int)
        assert_type(loop_thread.loop, asyncio.AbstractEventLoop)
        for each in loop_thread.wrap_iter(numbers()):
            assert_type(each, int)


class Device:
    @devlib.asyncf
    async def pull(self, path: str) -> int:
        return len(path)


def helpers() -> None:
    assert_type(Device().pull("a"), int)
    assert_type(devlib.run(Device().pull.asyn("a")), int)
    assert_type(devlib.run(number("1")), int)
    assert_type(asyncio_run(number("1"), True), int)
    with ThreadRunner(debug=False) as runner:
        assert_type(runner.run_as_future(number("1")).result(), int)
    with start_blocking_portal() as portal:
        assert_type(portal.call(number, "1"), int)
        assert_type(portal.start_task_soon(number, "1", name="one").result(), int)


def nested() -> None:
    with nest.apply(run_close_loop=True) as applied:
        assert_type(applied, nest.Applied)
        assert_type(nest.run(number("1"), debug=True), int)
    nest.undo()


def several() -> None:
    assert_type(fiberback.gather(number("1"), lambda: number("2")), list[int])
    assert_type(fiberback.gather(lambda: 1, lambda: 2, limit=1), list[int])
    assert_type(fiberback.gather(number("1"), return_exceptions=True), list[int | BaseException])
    assert_type(fiberback.map(number, ["1", "2"], limit=3), list[int])
    assert_type(fiberback.map(len, ["1", "2"]), list[int])
    with fiberback.TaskGroup(limit=2) as group:
        handle = group.start(number, "1", base=8)
        assert_type(handle, fiberback.TaskHandle[int])
        assert_type(group.start(len, "1").result(), int)
    assert_type(handle.result(), int)


def without_a_loop() -> int:
    with fiberback.thread_runner(debug=False, loop_factory=asyncio.new_event_loop):
        result = fiberback.await_(number("7"))
    fiberback.close_thread_runner()
    return result


async def main() -> int:
    assert_type(await fiberback.with_portal_run(number, "7", base=8), int)
    assert_type(await fiberback.with_portal_run_sync(sync, "7"), list[str])
    assert_type(await fiberback.with_portal_run_tree(number, "7"), int)
    await fiberback.ensure_portal()
    task = asyncio.create_task(number("5"))
    fiberback.bestow_portal(task)
    assert_type(fiberback.has_portal(task), bool)
    assert_type(fiberback.can_await(), bool)
    with fiberback.portals_for_children():
        await asyncio.create_task(number("6"))
    async with fiberback.portals_for_tree():
        sync("9")
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(fiberback.task_factory)
    loop.set_task_factory(fiberback.create_task_factory(None))
    loop.set_task_factory(before)
    assert_type(await greenback.with_portal_run(number, "3"), int)
    assert_type(greenback.await_(number("4")), int)
    assert_type(await fiberback.to_thread(sync, "4"), list[str])
    assert_type(await asyncio.to_thread(in_thread, loop), int)
    assert_type(balanced(1, to=2), int)
    await cached(3)
    return fiberback.await_(task)


@asgiref.async_to_sync
async def from_sync(number: int) -> str:
    return str(number)


async def by_asgiref() -> None:
    assert_type(from_sync(1), str)
    assert_type(asgiref.async_to_sync(force_new_loop=True)(length_of)("x"), int)
    assert_type(await asgiref.sync_to_async(len, on_fiber=True)("x"), int)
    assert_type(await asgiref.sync_to_async(from_sync)(2), str)
    with asgiref.install(on_fiber=True) as installed:
        assert_type(installed, asgiref.Installed)
    asgiref.uninstall()


async def length_of(text: str) -> int:
    return len(text)


def sqlalchemy_adapter() -> None:
    with fiberback.sqlalchemy.install() as nothing:
        assert_type(nothing, None)
    fiberback.sqlalchemy.uninstall()


def what_waits() -> None:
    assert_type(fiberback.stacks(), list[fiberback.Stack])
    for stack in fiberback.stacks():
        assert_type(stack.children, list[fiberback.Stack])
        assert_type(stack.seconds, float | None)
        assert_type([frame.name for frame in stack.frames], list[str])
    assert_type(fiberback.dump(format="json"), str)
    assert_type(fiberback.dump_on(signal.SIGQUIT, file=sys.stderr), Callable[[], None])
    reports: list[fiberback.Blocked] = []
    with fiberback.watch(0.05, report=reports.append) as watching:
        assert_type(watching, fiberback.Watch)
    watching.stop()
    assert_type([(one.seconds, one.task, one.waiting) for one in reports][0][1], str | None)


if __name__ == "__main__":
    assert_type(fiberback.run(main(), debug=False, loop_factory=asyncio.new_event_loop), int)
    asyncio.run(by_asgiref())
    assert_type(without_a_loop(), int)
    named()
    assert_type(fiberback.__version__, str)
