# expect-stdout: fine
"""Signal handlers of signal.signal(), which run between any two instructions, also inside the loop's
own code, call await_, are parked there, raise, and start again what they have interrupted."""

import asyncio
import itertools
import os
import signal
import threading
import time

import fiberback

handled = refused = nested = 0


def on_signal(number, frame):
    global handled, refused, nested
    nested += 1
    try:
        if nested < 20:
            fiberback.await_(asyncio.sleep(0.0005))
            fiberback.await_(asyncio.sleep(0))
        handled += 1
    except (RuntimeError, asyncio.CancelledError):
        refused += 1
    finally:
        nested -= 1


def on_other(number, frame):
    raise TimeoutError("by a signal")


def act(rounds):
    interrupted = 0
    for _ in range(rounds):
        try:
            fiberback.await_(asyncio.sleep(0.0003))
            sum(range(2000))
        except TimeoutError:
            interrupted += 1
    return interrupted


async def task(n):
    if n % 2:
        await fiberback.ensure_portal()
    act(25)


async def main():
    await asyncio.gather(*(task(n) for n in range(6)), return_exceptions=True)


def bombard(numbers):
    while not stop.wait(0.001):
        for number in numbers:
            os.kill(os.getpid(), number)


def under_fire(run, *numbers):
    thread = threading.Thread(target=bombard, args=(numbers,))
    stop.clear()
    try:
        thread.start()
        run(main())
    except TimeoutError:  # in asyncio's code, or ours: as in any program whose handlers raise
        pass
    except RuntimeError as error:
        # asyncio's own: on_other() raised in the selector while the callback that stops the loop was
        # ready to run: it stops the next run of the loop, in which asyncio.run() ends its tasks.
        if not (
            isinstance(error.__context__, TimeoutError)
            and "Event loop stopped before" in str(error)
        ):
            raise
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        stop.set()
        thread.join()
        time.sleep(0.002)


def all_combinations(run):
    for numbers in ((signal.SIGUSR1,), (signal.SIGUSR1, signal.SIGUSR2), (signal.SIGUSR2,)):
        signal.signal(signal.SIGUSR2, on_other)
        under_fire(run, *numbers)


stop = threading.Event()
signal.signal(signal.SIGUSR1, on_signal)
# How many handlers run to their end within one round is up to the machine: the faster, the fewer.
tired = time.monotonic() + 60
for run in itertools.cycle((asyncio.run, fiberback.run)):
    all_combinations(run)
    if run is fiberback.run and handled > 5:
        break
    assert time.monotonic() < tired, (handled, refused)
print("fine")
