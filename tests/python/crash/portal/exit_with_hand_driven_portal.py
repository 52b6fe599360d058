# expect-stdout: finally
"""A portal suspended by hand, kept in a module global until the interpreter is gone."""

import types

import fiberback
from fiberback._fiberback import Portal


@types.coroutine
def trap():
    yield 1


async def body():
    try:
        fiberback.await_(trap())
    finally:
        print("finally", flush=True)


portal = Portal(body())
portal.send(None)
