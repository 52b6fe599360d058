"""What a portal costs, next to native `await`, greenback and SQLAlchemy's `await_only`.

`python benches/portal.py` measures all of them in one process, in turn, round after round, so that
whatever else the machine does hits all alike; each number is the median over the rounds, of CPU
time of the thread, since nothing here waits. What is compared with native `await` is measured twice: with
the peers, whose greenlet package makes a portal keep a stack of its own and look out for greenlets,
and in a process of its own without them. Memory is measured in a fresh process for each contender
and each shape of a wait, all running the same program; "parked" is fiberback without a portal, under
plain `asyncio.run`, "+greenlet" with the greenlet package imported. Each target of issue 3 is printed with its value and PASS or MISS.
Peers that are not installed are left out. `--rounds N`, `--quick`, `--alone`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import platform
import signal
import statistics
import subprocess
import sys
import time

import fiberback

# `--alone` leaves the peers out, and with them the greenlet package, whose mere presence makes a
# portal keep a stack of its own and look at the current greenlet.
PEERS = () if "--alone" in sys.argv else ("greenback", "sqlalchemy")
HAVE = {
    name: name in PEERS and importlib.util.find_spec(name) is not None
    for name in ("greenback", "sqlalchemy")
}
if HAVE["greenback"]:
    import greenback
if HAVE["sqlalchemy"]:
    try:
        from sqlalchemy.util import await_only, greenlet_spawn
    except ImportError:
        HAVE["sqlalchemy"] = False


async def ready():
    return None


def timed(operation, count, await_):
    """Nanoseconds for each of `count` operations in sync code, the empty loop taken off."""
    clock = time.thread_time
    begin = clock()
    for _ in range(count):
        pass
    empty = clock() - begin
    begin = clock()
    for _ in range(count):
        await_(operation())
    return (clock() - begin - empty) / count * 1e9


def yielded():
    return asyncio.sleep(0)


async def native(operation, count):
    clock = time.thread_time
    begin = clock()
    for _ in range(count):
        pass
    empty = clock() - begin
    begin = clock()
    for _ in range(count):
        await operation()
    return (clock() - begin - empty) / count * 1e9


def awaiting(operation):
    """One measurement function for each contender."""
    contenders = {
        "native": lambda count: native(operation, count),
        "fiberback": lambda count: fiberback.with_portal_run_sync(
            timed, operation, count, fiberback.await_
        ),
    }
    if HAVE["greenback"]:
        contenders["greenback"] = lambda count: greenback.with_portal_run_sync(
            timed, operation, count, greenback.await_
        )
    if HAVE["sqlalchemy"]:
        contenders["sqlalchemy"] = lambda count: greenlet_spawn(timed, operation, count, await_only)
    return contenders


def plain_steps():
    """`await asyncio.sleep(0)` in a task, and in one that has a portal which nothing uses."""

    async def inside(ensure_portal, count):
        if ensure_portal is not None:
            await ensure_portal()
        return await native(yielded, count)

    ways = {"native": None, "fiberback": fiberback.ensure_portal}
    if HAVE["greenback"]:
        ways["greenback"] = greenback.ensure_portal
    return {
        name: lambda count, way=way: asyncio.create_task(inside(way, count))
        for name, way in ways.items()
    }


async def coroutine():
    pass


def nothing():
    pass


async def new_tasks(count, prepare=None):
    """Nanoseconds for each task that is created, given a portal and run to its end."""
    loop = asyncio.get_running_loop()
    begin = time.thread_time()
    for _ in range(count // 100):
        tasks = [loop.create_task(coroutine()) for _ in range(100)]
        if prepare is not None:
            for task in tasks:
                prepare(task)
        for task in tasks:
            await task
    return (time.thread_time() - begin) / (count // 100 * 100) * 1e9


def creation(name, *arguments):
    """A call of the function `name`, which makes a portal each time."""
    contenders = {"native": lambda count: native(coroutine, count)}
    for module in (fiberback, *([greenback] if HAVE["greenback"] else [])):
        run = getattr(module, name)
        contenders[module.__name__] = lambda count, run=run: native(lambda: run(*arguments), count)
    return contenders


def bestowal():
    contenders = {"native": new_tasks}
    for module in (fiberback, *([greenback] if HAVE["greenback"] else [])):
        contenders[module.__name__] = lambda count, module=module: new_tasks(
            count, module.bestow_portal
        )
    return contenders


async def measure(title, contenders, count, rounds):
    results = {name: [] for name in contenders}
    slow = {"greenback": 10, "sqlalchemy": 4}
    names = list(contenders)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            gc.collect()
            gc.disable()
            try:
                value = await contenders[name](max(count // slow.get(name, 1), 100))
            finally:
                gc.enable()
            if number:  # the first round warms up
                results[name].append(value)
        progress(f"{title}: round {number} of {rounds}")
    progress("")
    return {name: statistics.median(values) for name, values in results.items()}


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


MEMORY = """
import asyncio, gc, sys

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

who, kind, frames, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if who.startswith(("fiberback", "parked")):
    import fiberback
    if who.endswith("+greenlet"):
        import greenlet
    start, wait = fiberback.with_portal_run_sync, fiberback.await_
    if who.startswith("parked"):
        async def start(function, *arguments):
            return function(*arguments)
elif who == "greenback":
    import greenback
    start, wait = greenback.with_portal_run_sync, greenback.await_
elif who == "sqlalchemy":
    from sqlalchemy.util import await_only as wait, greenlet_spawn as start

waited_for = []

def begin():
    # In the innermost function, as user code does: each task waits for something of its own.
    if kind == "future":
        waited_for.append(asyncio.get_running_loop().create_future())
        return waited_for[-1]
    event = asyncio.Event()
    waited_for.append(event)
    return event.wait() if kind == "coroutine" else within(1000, event)

async def within(seconds, event):
    async with asyncio.timeout(seconds):
        await event.wait()

def sync(frames, total):
    below = frames - 1
    if frames:
        result = sync(below, total + below)
        return result
    return wait(begin())

async def native(frames, total):
    below = frames - 1
    if frames:
        result = await native(below, total + below)
        return result
    return await begin()

async def main():
    async def batch(count):
        before = rss()
        if who == "native":
            tasks = [asyncio.create_task(native(frames, 0)) for _ in range(count)]
        else:
            tasks = [asyncio.create_task(start(sync, frames, 0)) for _ in range(count)]
        while len(waited_for) < count:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        used = (rss() - before) / count
        for one in waited_for:
            one.set_result(None) if kind == "future" else one.set()
        waited_for.clear()
        await asyncio.gather(*tasks)
        return used
    await batch(20)
    gc.collect()
    print(await batch(count))

asyncio.run(main())
"""


def memory(kind, frames, count, rounds):
    """Bytes of resident memory for each of `count` tasks that wait, whatever they wait for included."""
    names = ["native", "fiberback", "parked"]
    if HAVE["greenback"]:
        names += ["fiberback+greenlet", "parked+greenlet", "greenback"]
    if HAVE["sqlalchemy"]:
        names.append("sqlalchemy")
    results = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            progress(f"memory: {kind}, {frames} frames, round {number + 1} of {rounds}, {name}")
            done = subprocess.run(
                [sys.executable, "-c", MEMORY, name, kind, str(frames), str(count)],
                capture_output=True,
                text=True,
                check=True,
            )
            results[name].append(float(done.stdout))
    progress("")
    return {name: statistics.median(values) for name, values in results.items()}


def memory_of_waits(count, rounds):
    """A wait on a bare future, on a coroutine, and on one inside `asyncio.timeout`, made in a
    function so many frames below the task."""
    missed = 0
    for kind in ("future", "coroutine", "timeout"):
        for frames in (0, 5, 20):
            medians = memory(kind, frames, count, rounds)
            targets = []
            if (kind, frames) == ("coroutine", 5) and sys.version_info < (3, 14):
                for name in ("fiberback", "fiberback+greenlet"):
                    if name in medians:
                        targets.append((f"bytes, {name}", medians[name], 7168, "at most"))
            if HAVE["greenback"]:
                bound = 0.75 if (kind, frames) == ("future", 0) else 1.0
                for name in ("fiberback", "fiberback+greenlet", "parked"):
                    factor = ratio(medians, name, "greenback")
                    most = bound if name != "parked" else 1.0
                    targets.append((f"× greenback, {name}", factor, most, "at most"))
            title = f"RSS per task, {count:,} wait for a {kind} below {frames} frames"
            missed += report(title, "bytes", medians, targets)
    return missed


def report(title, unit, medians, targets):
    """`targets`: (label, value, bound, "at most" | "at least")."""
    row = "  ".join(f"{name} {value:,.0f}" for name, value in medians.items())
    print(f"\n{title} [{unit}]: {row}")
    missed = 0
    for label, value, bound, sense in targets:
        met = value <= bound if sense == "at most" else value >= bound
        missed += not met
        print(f"  {'PASS' if met else 'MISS'}  {value:7.2f}  {label} (target: {sense} {bound})")
    return missed


def ratio(medians, over, under):
    return medians[over] / medians[under]


async def against_native(rounds, scale):
    where = "" if any(HAVE.values()) else ", no greenlet loaded"
    missed = 0

    medians = await measure("ready", awaiting(ready), 100_000 // scale, rounds)
    ours = medians["fiberback"]
    targets = [("× native await", ratio(medians, "fiberback", "native"), 1.15, "at most")]
    if HAVE["greenback"]:
        targets.append(("× faster than greenback", medians["greenback"] / ours, 15, "at least"))
    if HAVE["sqlalchemy"]:
        targets.append(("× faster than SQLAlchemy", medians["sqlalchemy"] / ours, 5, "at least"))
    missed += report("await_ of a ready coroutine" + where, "ns", medians, targets)

    medians = await measure("sleep(0)", awaiting(yielded), 10_000 // scale, rounds)
    targets = [("× native await", ratio(medians, "fiberback", "native"), 1.1, "at most")]
    missed += report("await_(asyncio.sleep(0))" + where, "ns", medians, targets)

    medians = await measure("plain step", plain_steps(), 10_000 // scale, rounds)
    targets = [("ns more than native", medians["fiberback"] - medians["native"], 100, "at most")]
    missed += report("plain step inside a portal" + where, "ns", medians, targets)
    return missed


def looked_at():
    """The same wait, while what could look at it does not: a watcher, a dump on a signal, a profiler that is gone."""

    def nobody():
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def dump_on():
        end = fiberback.dump_on(signal.SIGUSR1)
        try:
            yield
        finally:
            end()

    @contextlib.contextmanager
    def profiled_before():
        sys.setprofile(lambda *_: None)
        sys.setprofile(None)
        yield

    def wait(looker):
        def contender(count):
            def inside():
                with looker():
                    return timed(yielded, count, fiberback.await_)

            return fiberback.with_portal_run_sync(inside)

        return contender

    ways = {
        "nobody": nobody,
        "again": nobody,
        "watch": fiberback.watch,
        "dump_on": dump_on,
        "setprofile before": profiled_before,
    }
    return {name: wait(looker) for name, looker in ways.items()}


async def when_nothing_is_asked(rounds, scale):
    medians = await measure("nothing is asked", looked_at(), 10_000 // scale, rounds)
    targets = [
        (f"× the same without, {name}", ratio(medians, name, "nobody"), 1.01, "at most")
        for name in medians
        if name != "nobody"
    ]
    return report("await_(asyncio.sleep(0)) that nobody looks at", "ns", medians, targets)


async def against_greenback(rounds, scale):
    missed = 0
    for title, contenders in (
        ("with_portal_run(async_fn)", creation("with_portal_run", coroutine)),
        ("with_portal_run_sync(fn)", creation("with_portal_run_sync", nothing)),
        ("bestow_portal(new task)", bestowal()),
    ):
        medians = await measure(title, contenders, 20_000 // scale, rounds)
        targets = []
        if HAVE["greenback"]:
            # The bare coroutine or task, which each of them runs, is taken off all.
            base = medians["native"]
            factor = (medians["greenback"] - base) / (medians["fiberback"] - base)
            targets.append(("× less added than by greenback", factor, 20, "at least"))
        missed += report(f"creating a portal, {title}", "ns", medians, targets)
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="small counts, few rounds")
    parser.add_argument("--memory", action="store_true", help="memory alone")
    parser.add_argument("--alone", action="store_true", help="no peers, no greenlet loaded")
    options = parser.parse_args()
    rounds, scale = (3, 10) if options.quick else (options.rounds, 1)
    if not options.alone:
        print(f"CPython {platform.python_version()}, {platform.machine()}, fiberback", end=" ")
        print(f"{fiberback.__version__}, medians of {rounds} rounds")
    if options.memory:
        return memory_of_waits(5_000 // min(scale, 5), 1 if options.quick else 3) and 0
    missed = asyncio.run(against_native(rounds, scale))
    if options.alone:
        return missed + asyncio.run(when_nothing_is_asked(rounds, scale))
    # `--alone` says how many it missed by its exit code.
    alone = [sys.executable, __file__, "--alone", "--rounds", str(rounds)]
    sys.stdout.flush()
    missed += subprocess.run(alone + ["--quick"] * options.quick).returncode
    missed += asyncio.run(against_greenback(rounds, scale))

    missed += memory_of_waits(5_000 // min(scale, 5), 1 if options.quick else 3)
    print("\nall targets met" if not missed else f"\n{missed} targets missed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
