"""Files, whose switch is to be named: in the loop's executor."""

from __future__ import annotations

import io
import os
import pathlib
import shutil

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
