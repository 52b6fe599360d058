# expect-stdout: main stack: clean
# expect-stdout: finally task 0
# expect-stdout: finally task 1
# expect-stdout: finally callback
# expect-stdout: again callback
"""The interpreter exits while callers are parked, on a loop that is not even closed."""

import asyncio

import fiberback


def wait(name):
    try:
        fiberback.await_(asyncio.sleep(1000))
    finally:
        print("finally", name)
        if name == "callback":
            try:
                fiberback.await_(asyncio.sleep(0))  # parks once more
            finally:
                print("again", name)


async def task(n):
    wait(f"task {n}")


async def first():
    fiberback.await_(asyncio.sleep(0.001))  # on the thread's own stack; the others are on fibers


loop = asyncio.new_event_loop()
main = loop.create_task(first())
tasks = [loop.create_task(task(n)) for n in range(2)]
loop.call_soon(wait, "callback")
loop.run_until_complete(main)
print("main stack: clean")
