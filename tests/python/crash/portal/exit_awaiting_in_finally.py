# expect-stdout: tried
"""A finally block that awaits again during interpreter exit is refused, not obeyed for ever."""

import types

import fiberback
from fiberback._fiberback import Portal


@types.coroutine
def trap():
    yield 1


async def body():
    while True:
        try:
            fiberback.await_(trap())
        finally:
            print("tried", flush=True)
            fiberback.await_(trap())


portal = Portal(body())
portal.send(None)
