"""Files, whose switch is to be named: in the loop's executor."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import pathlib
import shutil
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import fiberback
import pytest
from servers import together
from support import only_fiberback

pytestmark = only_fiberback


def test_one_waits_until_another_opens_the_other_end(backend, tmp_path):
    """As the thread's tasks do by this alone: each end of a FIFO is opened when the other one is."""

    def reader(opened, path):
        opened(path, "rb").close()

    def writer(path):
        os.close(os.open(path, os.O_WRONLY))

    with fiberback.blocking.install("files"):
        for at, opened in enumerate((open, io.open)):
            path = tmp_path / str(at)
            os.mkfifo(path)
            together(backend, lambda o=opened, p=path: reader(o, p), lambda p=path: writer(p))
        path = tmp_path / "path"
        os.mkfifo(path)
        found = together(backend, path.read_text, lambda: path.write_bytes(b"hello"))
        assert found == ["hello", 5]


def test_it_is_off_unless_it_is_named(backend, going, tmp_path):
    """Neither is it for others' tasks and threads."""
    path = tmp_path / "file"

    def use(turns):
        before = turns.turns
        with open(path, "w") as file:
            file.write("text")
            file.flush()
            os.fsync(file.fileno())
        assert pathlib.Path(path).read_text() == "text"
        shutil.copyfile(path, tmp_path / "copy")
        with pytest.raises(FileNotFoundError):
            open(tmp_path / "no file")
        with pytest.raises(TypeError):
            open()
        return turns.turns > before

    async def main():
        async with going() as turns:
            await backend.sleep(0)
            return await fiberback.with_portal_run_sync(use, turns)

    originals = open, io.open, os.open, pathlib.Path.read_text, shutil.copyfile
    with fiberback.blocking.install(without=["turns"]):
        assert (open, io.open, os.open, pathlib.Path.read_text, shutil.copyfile) == originals
        assert not backend.run(main)
    with fiberback.blocking.install("files"):
        assert backend.run(main)
        assert open is not originals[0]
    assert (open, io.open, os.open, pathlib.Path.read_text, shutil.copyfile) == originals


def test_nobody_gets_a_module_that_is_being_imported(backend, tmp_path, monkeypatch):
    """A file is read, or the module's bytecode is written: the thread has its lock, and so all of its tasks."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "imported_in_tasks.py").write_text("text = open(__file__).read()\nlast = 5\n")

    def work():
        from imported_in_tasks import last

        return last

    with fiberback.blocking.install("files"):
        assert together(backend, work, work) == [5, 5]
    sys.modules.pop("imported_in_tasks")


def test_locks_of_tempfile(backend, monkeypatch):
    """It has one in C while it tries its folders."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    with fiberback.blocking.install("files"):
        first, second = together(backend, tempfile.gettempdir, tempfile.gettempdir)
    assert first == second


def test_what_is_open_when_its_caller_is_gone(aio, tmp_path):
    """Nobody else would close it. A descriptor of the caller's is the caller's alone."""
    path = tmp_path / "file"
    path.touch()
    begun, goes_on = threading.Event(), threading.Event()

    class Held(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwds):
            def held():
                begun.set()
                assert goes_on.wait(60)
                return fn(*args, **kwds)

            return super().submit(held)

    def is_open():
        found = []
        for fd in map(int, os.listdir("/dev/fd")):
            with contextlib.suppress(OSError):  # that of the folder
                found.append(os.path.samestat(os.fstat(fd), path.stat()))
        return any(found)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Held(1))
        async with aio.group() as group:
            handle = group.spawn(
                fiberback.with_portal_run_sync, os.open, os.fspath(path), os.O_RDONLY
            )
            while not begun.is_set():
                await aio.sleep(0)
            handle.cancel()
        goes_on.set()
        await loop.shutdown_default_executor()

    with fiberback.blocking.install("files"):
        aio.run(main)
    assert not is_open()


def test_a_descriptor_is_no_file_to_be_opened(backend, going):
    """It would be closed twice where the caller is cancelled meanwhile, and closes it: perhaps somebody else's by then."""
    fd = os.open(os.devnull, os.O_RDONLY)

    def use(turns):
        before = turns.turns
        os.fdopen(fd).close()
        return turns.turns - before

    async def main():
        async with going() as turns:
            await backend.sleep(0)
            return await fiberback.with_portal_run_sync(use, turns)

    with fiberback.blocking.install("files"):
        assert backend.run(main) == 0
