"""`fiberback.fsspec`: sync methods of fsspec's async filesystems in a running event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import fiberback
import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

fsspec = import_or_skip("fsspec")
asyn = import_or_skip("fsspec.asyn")
from fiberback import fsspec as ours  # noqa: E402

variable = contextvars.ContextVar("variable", default="unset")


class Slow(asyn.AsyncFileSystem):
    """Each read waits until `opened` readers are there, or `let_go` is set."""

    protocol = "slow"
    cachable = False

    def __init__(self, meeting=1, **kwds):
        super().__init__(**kwds)
        self.meeting = meeting
        self.readers = 0
        self.ended = []

    async def _cat_file(self, path, start=None, end=None, **kwds):
        self.readers += 1
        try:
            while self.readers < self.meeting:
                await asyncio.sleep(0.001)
            if path == "missing":
                raise FileNotFoundError(path)
            return path.encode()
        finally:
            self.ended.append(path)

    async def _info(self, path, **kwds):
        await asyncio.sleep(0)
        return {"name": path, "size": len(path), "type": "file", "seen": variable.get()}

    async def _where(self):
        return threading.current_thread(), asyncio.get_running_loop()


@pytest.fixture(autouse=True)
def installed():
    with ours.install():
        yield


def places(function):
    uvloop, trio = import_or_skip("uvloop"), import_or_skip("trio")

    async def main():
        return function()

    yield function()
    yield asyncio.run(main())
    yield fiberback.run(main(), loop_factory=uvloop.new_event_loop)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.run(main())
    yield trio.run(fiberback.with_portal_run_sync, function)
    yield trio.run(main)


def test_everywhere():
    filesystem = Slow()

    def function():
        with pytest.raises(FileNotFoundError):
            filesystem.cat_file("missing")
        thread, loop = asyn.sync(filesystem.loop, filesystem._where)
        assert loop is filesystem.loop and thread is not threading.current_thread()
        variable.set("mine")
        return filesystem.cat_file("a"), filesystem.info("abc")["size"]

    assert list(places(function)) == [(b"a", 3)] * 6


@pytest.mark.parametrize("factory", ["asyncio", "uvloop"])
def test_twenty_tasks_read_at_once_and_the_loop_goes_on(factory):
    """None gets its answer before all have asked."""
    filesystem = Slow(meeting=20)

    async def reads(number):
        return filesystem.cat_file(f"file {number}")

    async def main():
        return await asyncio.gather(*map(reads, range(20)))

    loops = {"asyncio": asyncio.new_event_loop, "uvloop": import_or_skip("uvloop").new_event_loop}
    expected = [f"file {number}".encode() for number in range(20)]
    assert fiberback.run(main(), loop_factory=loops[factory]) == expected
    if factory == "asyncio":
        filesystem.readers = 0
        assert asyncio.run(main()) == expected  # unprepared


def test_contexts_go_along():
    async def main():
        variable.set("mine")
        return Slow().info("a")["seen"]

    assert asyncio.run(main()) == "mine"


def test_cancelling_the_caller_cancels_the_io():
    filesystem = Slow(meeting=2)

    async def reads():
        return filesystem.cat_file("a")

    async def main():
        task = asyncio.create_task(reads())
        while not filesystem.readers:
            await asyncio.sleep(0.001)
        assert not filesystem.ended
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return list(filesystem.ended)

    assert asyncio.run(main()) == ["a"]


def test_timeouts_are_fsspecs():
    filesystem = Slow(meeting=2)

    async def main():
        with pytest.raises(asyn.FSTimeoutError):
            asyn.sync(filesystem.loop, filesystem._cat_file, "a", timeout=0.01)
        return asyn.sync(filesystem.loop, filesystem._info, "a", timeout=0)["size"]

    assert asyncio.run(main()) == 1


def test_in_the_filesystems_own_loop():
    """Where fsspec raises NotImplementedError."""
    filesystem = Slow()

    async def below():
        return filesystem.cat_file("a")

    assert asyn.sync(filesystem.loop, below) == b"a"


def test_a_closed_loop_is_refused_as_by_fsspec():
    loop = asyncio.new_event_loop()
    loop.close()

    async def main():
        for each in (loop, None):
            with pytest.raises(RuntimeError, match="Loop is not running"):
                asyn.sync(each, asyncio.sleep, 0)

    asyncio.run(main())


def test_uninstall_puts_back_what_was_there():
    http = import_or_skip("fsspec.implementations.dirfs")
    ours.uninstall()
    original = asyn.sync
    assert original.__module__ == "fsspec.asyn" and not hasattr(original, "__wrapped__")
    http.sync = original  # as a module that has imported it by name
    try:
        with ours.install():
            assert asyn.sync is http.sync is not original
            with ours.install():  # the outer one stays
                pass
            assert asyn.sync is not original
        assert asyn.sync is http.sync is original
        ours.uninstall()
    finally:
        del http.sync


def test_a_module_that_is_imported_when_it_is_used_is_not(is_imported_late):
    ours.uninstall()
    with ours.install():
        pass
    assert not is_imported_late()


@pytest.mark.slow
def test_a_zarr_store_over_http_read_by_twenty_tasks(tmp_path):
    """The server runs in the readers' own loop, so nobody gets an answer unless that goes on."""
    zarr = import_or_skip("zarr")
    web = import_or_skip("aiohttp.web")
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(20, 50), chunks=(1, 50), dtype="i4")
    array[:] = [[row] * 50 for row in range(20)]
    requests = []

    async def note(request, handler):
        requests.append(request.path)
        return await handler(request)

    async def reads(group, row):
        return group[row].tolist()

    async def main():
        application = web.Application(middlewares=[web.middleware(note)])
        application.router.add_static("/", tmp_path)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        try:
            opened = zarr.open_array(f"http://{host}:{port}/a.zarr", mode="r")
            return await asyncio.gather(*(reads(opened, row) for row in range(20)))
        finally:
            await runner.cleanup()

    with ours.install():  # zarr is loaded by now
        assert asyncio.run(main()) == [[row] * 50 for row in range(20)]
        assert fiberback.run(main()) == [[row] * 50 for row in range(20)]
    assert len(requests) > 40
