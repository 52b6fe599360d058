# expect-stdout: fine
# python: 3.12
"""The process's first tracer, profiler or tool comes while a caller is suspended; what it waits for
fails, and an exception is raised in the middle of code that nobody has instrumented."""

import asyncio
import subprocess
import sys
import threading  # noqa: F401 - the switches name it

import fiberback

SWITCHES = """
sys.settrace(lambda *args: None)
sys.setprofile(lambda *args: None)
threading.settrace_all_threads(lambda *args: None)
monitor(E.RAISE)
monitor(E.PY_UNWIND | E.RERAISE | E.EXCEPTION_HANDLED)
monitor(E.LINE | E.PY_RETURN)
monitor(E.CALL | E.C_RETURN | E.C_RAISE)
monitor(E.INSTRUCTION)
"""


def monitor(events):
    sys.monitoring.use_tool_id(0, "ours")
    sys.monitoring.set_events(0, events)


async def fails():
    for _ in range(4):
        await asyncio.sleep(0)
    raise KeyError


def handles():
    try:
        fiberback.await_(fails())
    except KeyError:
        return "handled"
    return None


def unwinds():
    try:
        fiberback.await_(fails())
    finally:
        unwound.append(True)


def through_c():
    try:
        max([1], key=lambda n: unwinds())
    except KeyError:
        return "handled"
    return None


async def waits(function, with_portal):
    if with_portal:
        await fiberback.ensure_portal()
    assert function() == "handled"


async def main(switch, function, with_portal):
    # One alone: if its function were called again, that would instrument the code.
    task = asyncio.create_task(waits(function, with_portal))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    exec(switch, dict(globals()))
    await task


if len(sys.argv) > 1:
    unwound = []
    _, switch, name, kind = sys.argv
    asyncio.run(main(switch, globals()[name], kind == "portal"))
    assert unwound == [True] * (name == "through_c")
else:
    for switch in SWITCHES.strip().splitlines():
        switch = switch.replace("E.", "sys.monitoring.events.")
        for name in ("handles", "through_c"):
            for kind in ("portal", "parked"):
                child = subprocess.run([sys.executable, __file__, switch, name, kind])
                assert child.returncode == 0, (switch, name, kind, child)
    print("fine")
