# expect: 0
# expect-stdout: done
"""Tasks and gevent's greenlets wait for each other at random, time out, are cancelled and killed; with collections.

First in a loop that drives gevent's hub, then in one that runs in a greenlet of gevent's.
"""

import asyncio
import gc
import random
import sys

import fiberback.greenlet

try:
    import greenlet  # noqa: F401, the real one
except ImportError:
    pass
else:
    for name in [name for name in sys.modules if name.partition(".")[0] == "greenlet"]:
        del sys.modules[name]
    fiberback.greenlet.install()

try:
    import gevent
except ImportError:  # there is none for this Python
    print("done")
    sys.exit()

import gevent.queue
from fiberback import await_
from fiberback.gevent import (
    EventLoop,
    async_to_sync,
    future_to_greenlet,
    greenlet_to_future,
    run,
)

random.seed(int(sys.argv[1]) if sys.argv[1:] else 1)
queue = gevent.queue.Queue()


def some():
    return random.random() * 0.003


def green():
    choice = random.randrange(4)
    if choice == 0:
        gevent.sleep(some())
    elif choice == 1:
        async_to_sync(asyncio.sleep)(some())
    elif choice == 2 and not isinstance(asyncio.get_running_loop(), EventLoop):
        await_(asyncio.sleep(some()))
    else:
        queue.put(1)
    return choice


async def task():
    for _ in range(60):
        choice = random.randrange(8)
        if choice == 0:
            gevent.sleep(some())
        elif choice == 1:
            await asyncio.sleep(some())
        elif choice == 2:
            await greenlet_to_future(gevent.spawn_later(some(), green))
        elif choice == 3:
            try:
                with gevent.Timeout(some()):
                    queue.get()
            except gevent.Timeout:
                pass
        elif choice == 4:
            await_(asyncio.sleep(some()))
        elif choice == 5:
            other = asyncio.ensure_future(asyncio.to_thread(int))
            greenlet = future_to_greenlet(other)
            greenlet.start()
            gevent.joinall([greenlet], timeout=some())
            greenlet.kill(block=False)
        elif choice == 6:
            waits = asyncio.ensure_future(asyncio.wait_for(sleeps(), some()))
            await asyncio.wait([waits])
            waits.exception()
        else:
            gevent.spawn(gevent.sleep, 60).kill()
            if random.random() < 0.1:
                gc.collect()


async def sleeps():
    gevent.sleep(60)


async def main():
    await asyncio.gather(*(task() for _ in range(20)))


run(main())
with asyncio.Runner(loop_factory=EventLoop) as runner:
    runner.run(main())
print("done")
