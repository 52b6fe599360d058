# expect-stdout: finally 0
# expect-stdout: finally 4
# expect-stdout: main left
"""The interpreter exits with tasks suspended on fibers: their finally blocks run."""

import asyncio

import fiberback


def sync(n):
    try:
        fiberback.await_(asyncio.get_running_loop().create_future())
    finally:
        print("finally", n, flush=True)


async def main():
    global keep
    keep = [asyncio.ensure_future(fiberback.with_portal_run_sync(sync, n)) for n in range(5)]
    await asyncio.sleep(0.01)


loop = asyncio.new_event_loop()
loop.set_exception_handler(lambda *_: None)
loop.run_until_complete(main())
print("main left", flush=True)
