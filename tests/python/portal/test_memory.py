"""Resident memory: portals come and go without growth, and many fit."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import UNDER_TEST, only_fiberback

PRELUDE = f"""
import asyncio, gc, sys
import {UNDER_TEST} as fb

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")


def measure(body):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + body], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return float(done.stdout)


def test_100_000_portals_leave_nothing():
    grown = measure("""
def sync():
    fb.await_(asyncio.sleep(0))

async def main():
    async def batch(n):
        for _ in range(n // 100):
            await asyncio.gather(*(fb.with_portal_run_sync(sync) for _ in range(100)))
    await batch(10_000)
    gc.collect()
    before = rss()
    await batch(100_000)
    gc.collect()
    print(rss() - before)

asyncio.run(main())
""")
    assert grown < 4 << 20, f"{grown / 2**20:.1f} MiB more after 100,000 portals"


def test_100_000_portals_with_deep_frames_leave_nothing():
    """Deep frames make the interpreter chain data-stack chunks; all go back."""
    grown = measure("""
def deep(n):
    a = b = c = d = e = f = g = h = n
    if n:
        return deep(n - 1)
    fb.await_(asyncio.sleep(0))

async def main():
    async def batch(n):
        for _ in range(n // 100):
            await asyncio.gather(*(fb.with_portal_run_sync(deep, 150) for _ in range(100)))
    await batch(1_000)
    gc.collect()
    before = rss()
    await batch(10_000)
    gc.collect()
    print(rss() - before)

asyncio.run(main())
""")
    assert grown < 8 << 20, f"{grown / 2**20:.1f} MiB more after 10,000 deep portals"


CHUNKS = """
def mapped():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * 4096

def deep(n, wait):
    a = b = c = d = e = f = g = h = n
    if n:
        result = deep(n - 1, wait)
    else:
        result = wait()
    return result + (a == b == c == d == e == f == g == h == n)

def cycles(n):
    yield n
    if n:
        yield from cycles(n - 1)
"""


@only_fiberback
def test_data_stacks_grow_beyond_the_fibers_memory_and_shrink_again():
    """Hundreds of frames need further chunks; the value comes back right through all of them, also
    if generators and other portals run in between, and no chunk stays mapped."""
    grown = measure(
        CHUNKS
        + """
sys.setrecursionlimit(20_000)

async def main():
    def wait():
        fb.await_(asyncio.sleep(0))
        assert list(cycles(40)) == list(range(40, -1, -1))
        assert fb.await_(fb.with_portal_run_sync(deep, 100, lambda: 0)) == 101
        return 0
    def climb():
        # Up and down over the ends of several chunks, suspending at each depth.
        for n in (0, 50, 120, 150, 160, 170, 400, 10, 800, 1):
            assert deep(n, wait) == n + 1, n
        generator = cycles(3)
        for n in (160, 1, 400):
            assert deep(n, lambda: next(generator) and wait()) == n + 1
    async def round():
        await asyncio.gather(*(fb.with_portal_run_sync(climb) for _ in range(20)))
    await round()
    before = mapped()
    for _ in range(30):
        await round()
    print(mapped() - before)

asyncio.run(main())
"""
    )
    # One chunk of 16 KiB that stays for each of these 600 portals would be 9.4 MiB. The interpreter
    # may map an arena or two of 1 MiB for small objects meanwhile, which is none of ours.
    assert grown < 4 << 20, f"{grown / 2**20:.1f} MiB more mapped"


STACK_PAGES = """
def stack_pages():
    # Slabs of stacks are by far the largest mappings (64 stacks of 16 MiB and more).
    pages, large = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name == "Size":
                large = int(rest.split()[0]) >= 1 << 19
            elif name == "Rss" and large:
                pages += int(rest.split()[0]) // 4
    return pages

events = []

def future(one, two):
    return fb.await_(asyncio.get_running_loop().create_future())

def coroutine(one, two):
    event = asyncio.Event()
    events.append(event)
    return fb.await_(event.wait())

def sleep(one, two):
    return fb.await_(asyncio.sleep(1000))

async def within(seconds, event):
    async with asyncio.timeout(seconds):
        await event.wait()

def timeout(one, two):
    event = asyncio.Event()
    events.append(event)
    return fb.await_(within(1000, event))

def f4(one, two): three = one; result = globals()[one](three, two); return result
def f3(one, two): three = one; result = f4(three, two); return result
def f2(one, two): three = one; result = f3(three, two); return result
def f1(one, two): three = one; result = f2(three, two); return result

async def job(kind):
    return f1(kind, None)

async def pages_per_task(kind, run, count):
    before = stack_pages()
    tasks = [asyncio.create_task(run(kind)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    pages = (stack_pages() - before) / count
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return pages

async def main(kind, run):
    await pages_per_task(kind, run, 20)  # warms the interpreter up, which then needs less
    print(await pages_per_task(kind, run, 3000))
"""


# What each shape may cost where the interpreter's frames are as small as before 3.14, and since.
SHAPES = {"future": (1, 2), "coroutine": (1, 2), "sleep": (1, 2), "timeout": (1, 2)}


@only_fiberback
@pytest.mark.parametrize("greenlet", ["", "import greenlet"], ids=["alone", "greenlet"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_task_that_waits_five_frames_deep_costs_few_pages(shape, greenlet):
    """The C stack, the frames and what we keep of the fiber share pages, nearly always one.

    Resident pages of the stacks are counted. The first 16 tasks take more (`FEW` in thread.rs), and some
    while the interpreter is not warm.
    """
    if greenlet:
        pytest.importorskip("greenlet")
    most = SHAPES[shape][sys.version_info >= (3, 14)]
    run = f"asyncio.run(main({shape!r}, lambda kind: fb.with_portal_run(job, kind)))"
    pages = measure(f"{greenlet}\n{STACK_PAGES}\n{run}")
    assert pages <= most + 0.1, f"{pages:.2f} pages of stack for each waiting task"


@only_fiberback
@pytest.mark.parametrize("shape", SHAPES)
def test_a_parked_caller_costs_few_pages(shape):
    most = 2 if sys.version_info < (3, 14) else 3
    pages = measure(STACK_PAGES + f"asyncio.run(main({shape!r}, job))")
    assert pages <= most + 0.1, f"{pages:.2f} pages of stack for each parked caller"


@only_fiberback
def test_a_task_that_waits_for_an_event_five_frames_deep_takes_seven_kilobytes():
    """All of it: stack, task, event and what else they are made of."""
    pages = 1 if sys.version_info < (3, 14) else 2
    per_task = measure(
        STACK_PAGES
        + """
async def memory():
    await pages_per_task("coroutine", lambda kind: fb.with_portal_run_sync(f1, kind, None), 20)
    gc.collect()
    before = rss()
    tasks = [
        asyncio.create_task(fb.with_portal_run_sync(f1, "coroutine", None)) for _ in range(5000)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    print((rss() - before) / len(tasks))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

asyncio.run(memory())
"""
    )
    assert per_task <= 7168 + (pages - 1) * 4096, f"{per_task:.0f} bytes for each waiting task"


@only_fiberback
def test_a_waiting_task_costs_its_stack_and_few_objects():
    pages = 1 if sys.version_info < (3, 14) else 2
    per_task = measure("""
def sync(future):
    fb.await_(future)

async def main():
    future = asyncio.get_running_loop().create_future()
    def start(n):
        return [asyncio.create_task(fb.with_portal_run_sync(sync, future)) for _ in range(n)]
    warm = start(10)
    await asyncio.sleep(0)
    gc.collect()
    before = rss()
    tasks = start(10_000)
    await asyncio.sleep(0)
    per_task = (rss() - before) / len(tasks)
    future.set_result(None)
    await asyncio.gather(*tasks, *warm)
    print(per_task)

asyncio.run(main())
""")
    assert per_task < pages * 4096 + 2600, f"{per_task:.0f} bytes for each waiting task"


def test_greenlets_in_deep_frames_leave_nothing():
    """greenlets have data stacks of their own, between frames on a fiber's."""
    pytest.importorskip("greenlet")
    grown = measure(
        CHUNKS
        + """
import greenlet

async def main():
    def wait():
        fb.await_(asyncio.sleep(0))
        inner = greenlet.greenlet(lambda: deep(300, lambda: greenlet.getcurrent().parent.switch(0)))
        assert inner.switch() == 0
        fb.await_(asyncio.sleep(0))
        assert inner.switch(0) == 301
        return 0
    async def round():
        await asyncio.gather(
            *(fb.with_portal_run_sync(deep, n, wait) for n in (0, 5, 150, 160, 300) * 4)
        )
    for _ in range(3):
        await round()
    gc.collect()
    before = mapped()
    for _ in range(20):
        await round()
    gc.collect()
    print(mapped() - before)

asyncio.run(main())
"""
    )
    # An arena of CPython's objects takes 1 MiB; a chunk left by each greenlet would be 6.
    assert grown < 3 << 20, f"{grown / 2**20:.1f} MiB more mapped"


def test_exceptions_and_cancellations_leave_nothing():
    grown = measure("""
def failing():
    fb.await_(asyncio.sleep(0))
    raise ValueError

def waiting():
    fb.await_(asyncio.get_running_loop().create_future())

async def main():
    async def batch(n):
        for _ in range(n // 100):
            await asyncio.gather(
                *(fb.with_portal_run_sync(failing) for _ in range(100)), return_exceptions=True
            )
            tasks = [asyncio.create_task(fb.with_portal_run_sync(waiting)) for _ in range(100)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    await batch(2_000)
    gc.collect()
    before = rss()
    await batch(20_000)
    gc.collect()
    print(rss() - before)

asyncio.run(main())
""")
    assert grown < 4 << 20, f"{grown / 2**20:.1f} MiB more"


@only_fiberback
def test_200_000_suspended_tasks():
    per_task = measure("""
def sync(future):
    fb.await_(future)

async def main():
    future = asyncio.get_running_loop().create_future()
    before = rss()
    tasks = [asyncio.create_task(fb.with_portal_run_sync(sync, future)) for _ in range(200_000)]
    await asyncio.sleep(0)
    per_task = (rss() - before) / len(tasks)
    future.set_result(None)
    await asyncio.gather(*tasks)
    print(per_task)

asyncio.run(main())
""")
    assert per_task < 20_000, f"{per_task:.0f} bytes for each suspended task"


def test_stack_size_can_be_set_and_read():
    print_of = """
async def main():
    fb.await_(asyncio.sleep(0))
    seen.append(fb.stats()["stack_size"])

seen = []
for size in (fb.get_stack_size(), 1 << 20, (2 << 20) + 1):
    fb.set_stack_size(size)
    fb.run(main())
assert seen == [16 << 20, 1 << 20, (2 << 20) + 4096] == [*seen[:2], fb.get_stack_size()], seen
for wrong, error in ((0, ValueError), (4096, ValueError), (1 << 40, ValueError),
                     (-1, OverflowError), (1 << 80, OverflowError), ("1", TypeError)):
    try:
        fb.set_stack_size(wrong)
    except error as raised:
        text = f"a stack of {wrong} bytes is too small for CPython: type 'fiberback.set_stack_size("
        assert wrong not in (0, 4096) or text in str(raised), raised
        assert wrong not in (0, 4096) or "[fiberback:small-stack]" in str(raised), raised
        continue
    raise AssertionError(wrong)
assert fb.get_stack_size() == seen[-1]
print(0)
"""
    assert measure(print_of) == 0


def test_stats_count_and_trim_gives_back():
    assert (
        measure("""
def deep(n):  # leaves C frames behind: 200 levels of sorted()
    return sorted([n], key=lambda n: deep(n - 1) and 0) if n else [0]

def sync(future):
    try:
        deep(100)
    except RecursionError:
        pass
    fb.await_(future)

async def main():
    future = asyncio.get_running_loop().create_future()
    tasks = [asyncio.create_task(fb.with_portal_run_sync(sync, future)) for _ in range(200)]
    await asyncio.sleep(0)
    waiting = fb.stats()
    assert waiting["fibers_suspended"] == 200, waiting
    assert waiting["stacks_in_use"] >= 200, waiting
    assert waiting["reserved_bytes"] >= 200 * waiting["stack_size"], waiting
    at_most = rss()
    future.set_result(None)
    await asyncio.gather(*tasks)
    return at_most

at_most = asyncio.run(main())
idle = fb.stats()
assert idle["fibers_suspended"] == 0 and idle["fibers_idle"] > 0, idle
given_back = fb.trim()
trimmed = fb.stats()
assert trimmed["fibers_idle"] == trimmed["stacks_in_use"] == trimmed["stacks_warm"] == 0, trimmed
assert trimmed["stacks_high_water"] == idle["stacks_high_water"], (idle, trimmed)
# What is beyond some 32 MiB was given back when the tasks ended.
assert given_back >= idle["stack_size"], given_back
assert at_most - rss() > 200 * 8192, (at_most, rss())
asyncio.run(main())
print(0)
""")
        == 0
    )


@pytest.mark.leaks
@pytest.mark.parametrize("limited", ["before", "after"])
def test_little_address_space_makes_do_with_small_stacks(limited):
    """1000 tasks fit where 1000 default stacks would not."""
    size = measure(f"""
import resource

def sync(future):
    fb.await_(future)

async def main(count):
    future = asyncio.get_running_loop().create_future()
    tasks = [asyncio.create_task(fb.with_portal_run_sync(sync, future)) for _ in range(count)]
    await asyncio.sleep(0)
    future.set_result(None)
    await asyncio.gather(*tasks)

def limit():
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 30), resource.RLIM_INFINITY))

if {limited == "after"}:
    asyncio.run(main(1))
limit()
asyncio.run(main(1000))
stats = fb.stats()
assert (stats["stacks_small"] > 0) == {limited == "after"}, stats
print(fb.get_stack_size() >> 20)
""")
    small = 4 if sys.version_info < (3, 12) else 1
    assert size == (16 if limited == "after" else small)
