"""What the wheel without the native module does in an empty environment.

usage: fallback-smoke.py VERSION
"""

import asyncio
import contextvars
import importlib.metadata
import sys

import fiberback

variable = contextvars.ContextVar("variable", default=0)


async def answer():
    await asyncio.sleep(0)
    variable.set(variable.get() + 1)
    return 42


def ask():
    before = variable.get()
    result = fiberback.await_(answer())
    assert variable.get() == before + 1
    return result


async def in_tasks():
    calls = (fiberback.with_portal_run_sync(ask) for _ in range(3))
    return [ask(), *await asyncio.gather(*calls), await fiberback.to_thread(ask)]


async def without_a_portal():
    try:
        ask()
    except RuntimeError as error:
        assert "[fiberback:pure-no-parking]" in str(error), error
    await fiberback.ensure_portal()
    return ask()


version = importlib.metadata.version("fiberback")
assert fiberback.__version__ == version == sys.argv[1], (fiberback.__version__, version)
assert fiberback.__file__.startswith(sys.prefix), fiberback.__file__
assert fiberback.implementation == "pure"
assert fiberback.run(in_tasks()) == [42] * 5
assert asyncio.run(without_a_portal()) == 42
assert ask() == 42
print("imported fiberback", version, "from", fiberback.__file__)
