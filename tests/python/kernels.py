"""A real Jupyter kernel in a process of its own, driven as a notebook does."""

from __future__ import annotations

import os
import pathlib
import queue
import re
import sys
import sysconfig
import time
import venv

from sdists import install
from support import import_or_skip

PATIENCE = 60.0  # seconds, for one answer on a busy machine


def with_ipykernel(version, folder):
    """The Python of a virtual environment, which has what this one has, but that version of ipykernel.

    Skips the test only when the registry cannot be reached.
    """
    import_or_skip("ipykernel")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    place = {"base": str(folder), "platbase": str(folder)}
    packages = pathlib.Path(sysconfig.get_path("purelib", vars=place))
    # After its own, so that what is installed there comes first.
    above = dict.fromkeys(each for each in sys.path if "site-packages" in each)
    (packages / "above.pth").write_text("".join(f"{each}\n" for each in above))
    install(python, f"ipykernel=={version}")
    return python


class Kernel:
    def __init__(self, folder, *arguments, config="", before="", python=sys.executable):
        """`config` is the kernel's configuration file, `before` what its process runs first."""
        manager = import_or_skip("jupyter_client").KernelManager()
        import_or_skip("ipykernel")
        (folder / "ipython_kernel_config.py").write_text(config)
        (folder / "start.py").write_text(
            before + "\nimport ipykernel.kernelapp as app\napp.main()\n"
        )
        start = [str(python), str(folder / "start.py"), "-f", "{connection_file}"]
        manager.kernel_spec.argv = [
            *start,
            f"--config={folder}/ipython_kernel_config.py",
            *arguments,
        ]
        env = {"IPYTHONDIR": str(folder), "PYDEVD_DISABLE_FILE_VALIDATION": "1", "NO_COLOR": "1"}
        self.log = open(folder / "log", "w+")
        manager.start_kernel(
            env={**os.environ, **env}, cwd=str(folder), stdout=self.log, stderr=self.log
        )
        self.manager = manager
        self.client = manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def begin(self, code, **options):
        """Of a cell that fails, the next ones go on, unless `stop_on_error`."""
        options.setdefault("stop_on_error", False)
        return Cell(self, self.client.execute(code, **options))

    def run(self, code):
        """What the cell has shown; it must not fail."""
        cell = self.begin(code)
        reply = cell.reply()
        assert reply["status"] == "ok", cell.shown()
        return cell.shown()

    def fails(self, code):
        """The name of the error that the cell ends with, and its traceback."""
        return self.begin(code).failed()

    def interrupt(self):
        self.manager.interrupt_kernel()

    def said(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()


class Cell:
    def __init__(self, kernel, message):
        self._kernel = kernel
        self.message = message
        self._shown = ""
        self._is_idle = False

    def reply(self):
        until = time.monotonic() + PATIENCE
        while True:
            answer = self._kernel.client.get_shell_msg(timeout=max(0, until - time.monotonic()))
            if answer["parent_header"].get("msg_id") == self.message:
                return answer["content"]

    def shown(self, until=None):
        """All that the cell shows; with `until`, what it has shown when that is among it."""
        patience = time.monotonic() + PATIENCE
        while not self._is_idle and (until is None or until not in self._shown):
            try:
                answer = self._kernel.client.get_iopub_msg(
                    timeout=max(0, patience - time.monotonic())
                )
            except queue.Empty:
                raise TimeoutError(f"{self._shown!r}; {self._kernel.said()[-2000:]}") from None
            if answer["parent_header"].get("msg_id") != self.message:
                continue
            content = answer["content"]
            if answer["msg_type"] == "stream":
                self._shown += content["text"]
            elif answer["msg_type"] == "execute_result":
                self._shown += content["data"]["text/plain"]
            elif answer["msg_type"] == "error":
                self._shown += "\n".join(content["traceback"])
            elif answer["msg_type"] == "status":
                self._is_idle = content["execution_state"] == "idle"
        return re.sub(r"\x1b\[[0-9;]*m", "", self._shown)

    def failed(self):
        reply = self.reply()
        assert reply["status"] == "error", self.shown()
        return reply["ename"], self.shown()
