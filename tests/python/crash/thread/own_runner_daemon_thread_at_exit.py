# expect-stdout: main left
"""The interpreter exits while daemon threads use, or keep, runners of their own."""

import asyncio
import threading
import time

import fiberback


def busy():
    fiberback.await_(asyncio.sleep(60))


def idle():
    fiberback.await_(asyncio.sleep(0))
    time.sleep(60)


def spinning():
    while True:
        fiberback.await_(asyncio.sleep(0))


for target in (busy, idle, spinning) * 5:
    threading.Thread(target=target, daemon=True).start()
time.sleep(0.3)
print("main left", flush=True)
