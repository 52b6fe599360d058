# expect-stdout: main left
"""The interpreter exits while daemon threads wait for a loop, whose thread is a daemon as well."""

import asyncio
import threading
import time

import fiberback


def work(loop):
    with fiberback.parent_loop(loop):
        while True:
            fiberback.await_(asyncio.sleep(0))


def wait(loop):
    with fiberback.parent_loop(loop):
        fiberback.await_(asyncio.sleep(60))


async def main():
    loop = asyncio.get_running_loop()
    for target in (work, wait) * 5:
        threading.Thread(target=target, args=(loop,), daemon=True).start()
    await fiberback.to_thread(time.sleep, 60)


class Daemons(asyncio.SelectorEventLoop):
    """The default executor's threads would be waited for at exit."""

    def run_in_executor(self, executor, fn, *args):
        threading.Thread(target=fn, args=args, daemon=True).start()
        return self.create_future()


threading.Thread(target=lambda: fiberback.run(main(), loop_factory=Daemons), daemon=True).start()
time.sleep(0.5)
print("main left", flush=True)
