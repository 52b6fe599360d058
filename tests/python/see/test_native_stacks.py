"""Native stacks: what gdb and faulthandler see of code on a fiber goes on into who has resumed it, down to the program's
first frame; faulthandler may be called at any time for its own thread, and with the GIL for all."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap

import pytest
from support import only_fiberback

pytestmark = only_fiberback

SPINS = textwrap.dedent(
    """\
    import asyncio, sys
    import fiberback


    def spins():
        fiberback.await_(asyncio.sleep(0))
        print("ready", flush=True)
        while True:
            pass


    async def in_task():
        spins()


    async def on_portal():
        await fiberback.with_portal_run_sync(spins)


    async def others():
        fiberback.await_(asyncio.Event().wait())


    async def main(task):
        waits = asyncio.create_task(others())
        await asyncio.create_task(task())


    how = sys.argv[1]
    run = fiberback.run if how == "run" else asyncio.run
    run(main(on_portal if how == "portal" else in_task))
    """
)


@pytest.mark.skipif(sys.platform != "linux", reason="gdb of Linux's")
@pytest.mark.parametrize(
    "how", [*(pytest.param(how, marks=pytest.mark.slow) for how in ("portal", "parked")), "run"]
)
def test_gdb_goes_on_into_the_resumer(tmp_path, how):
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("there is no gdb here")
    (tmp_path / "spins.py").write_text(SPINS)
    command = [sys.executable, "spins.py", how]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            command = [gdb, "-nx", "-batch", "-p", str(process.pid), "-ex", "bt 400"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        finally:
            process.kill()
    if "ptrace: Operation not permitted" in done.stderr:
        pytest.skip("gdb may not attach to processes here")
    frames = [line for line in done.stdout.splitlines() if line.startswith("#")]
    text = "\n".join(frames)
    assert frames, done.stderr
    assert "corrupt stack" not in done.stdout + done.stderr
    # On the fiber, across to who has resumed it, and down to the program's beginning.
    assert "serve" in text and len(frames) < 400
    first_on_fiber = next(n for n, line in enumerate(frames) if "::serve" in line)
    assert any("_PyEval_EvalFrameDefault" in line for line in frames[:first_on_fiber])
    assert any("_PyEval_EvalFrameDefault" in line for line in frames[first_on_fiber:])
    assert "_start" in frames[-1] or "main" in frames[-1]


SWITCHES = textwrap.dedent(
    """\
    import asyncio, faulthandler, os, signal, sys, tempfile, threading, time
    import fiberback


    def deep(n):
        if n:
            return deep(n - 1)
        for _ in range(5):
            fiberback.await_(asyncio.sleep(0))
            for _ in range(3000):  # longer than a thread may hold the GIL, so that it is found here
                pass


    async def in_task():
        while not stop.is_set():
            deep(10)


    async def on_portal():
        await fiberback.with_portal_run_sync(loops)


    def loops():
        while not stop.is_set():
            deep(5)


    async def main():
        async with asyncio.TaskGroup() as group:
            for function in (in_task, in_task, on_portal):
                group.create_task(function())


    def ask():
        for _ in range(300):
            faulthandler.dump_traceback(log)
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.001)
        stop.set()


    sys.setswitchinterval(1e-5)
    log = tempfile.TemporaryFile("w+")
    faulthandler.register(signal.SIGUSR1, log, all_threads=False)
    stop = threading.Event()
    bodies = [lambda: fiberback.run(main()), lambda: asyncio.run(main()), ask]
    threads = [threading.Thread(target=body) for body in bodies]
    for thread in threads:
        thread.start()
    asyncio.run(main())
    for thread in threads:
        thread.join()
    log.seek(0)
    text = log.read()
    print(text.count(" in deep"), text.count(" in ask"), text.count("<module>"))
    """
)


def test_faulthandler_from_every_thread_while_fibers_switch(tmp_path):
    """Of its own stack by a signal, in the middle of anything; of all threads' by a call."""
    (tmp_path / "switches.py").write_text(SWITCHES)
    command = [sys.executable, "switches.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    deep, ask, module = map(int, done.stdout.split())
    assert deep > 10 and ask > 10 and module > 10
