# expect-stdout: alive
"""Objects whose __del__ awaits die with the interpreter."""

import asyncio

import fiberback


class Resource:
    def __del__(self):
        fiberback.await_(asyncio.sleep(0))


async def main():
    global kept
    await fiberback.ensure_portal()
    kept = Resource()
    fiberback.await_(asyncio.sleep(0))


asyncio.run(main())
print("alive")
