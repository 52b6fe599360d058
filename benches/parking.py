"""What parking costs: `await_` without a portal on a stock asyncio loop, beyond the loop's own turn.

`python benches/parking.py` parks 10, 100, 1,000 and 10,000 callers, and measures one more that
waits again and again, next to a task that awaits the same natively, among as many that natively
wait; both in one process, in turn, round after round. The difference is the price of parking and
resuming one caller; it is to be at most 3 µs, and flat. Then a plot of that, and the memory of a
parked caller, next to a task that waits natively and to one that waits in greenback (each in a
process of its own). Peers that are not installed are left out.

Last the shape of real programs, in a process of its own: greenlet loaded, 1,000,000 objects more on the
heap, nothing prepared, and 1 to 1,000 callers that all loop at once, their starts included. Processor time
of the thread. `--rounds N`, `--quick`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import platform
import statistics
import subprocess
import sys
import time

import fiberback

TARGET = 3.0  # microseconds
FIELD_TARGET = 1.0  # microseconds
READY_TARGET = 1.8  # times a native `await`
SHORT = 50  # waits in a row that are timed together


def wait(gate):
    fiberback.await_(gate.wait())


async def parked(gate):
    wait(gate)


async def waiting(gate):
    await gate.wait()


async def natively(count):
    clock = time.perf_counter
    begin = clock()
    for _ in range(count):
        await asyncio.sleep(0)
    return (clock() - begin) / count * 1e6


async def natively_future(count):
    loop = asyncio.get_running_loop()
    clock = time.perf_counter
    begin = clock()
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
    return (clock() - begin) / count * 1e6


def in_sync_code(count):
    await_ = fiberback.await_
    clock = time.perf_counter
    begin = clock()
    for _ in range(count):
        await_(asyncio.sleep(0))
    return (clock() - begin) / count * 1e6


def in_sync_code_future(count):
    await_ = fiberback.await_
    loop = asyncio.get_running_loop()
    clock = time.perf_counter
    begin = clock()
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await_(future)
    return (clock() - begin) / count * 1e6


async def with_parking(count):
    return in_sync_code(count)


async def with_parking_future(count):
    return in_sync_code_future(count)


async def often(measured, count):
    """The median of short measurements, most of which the system's scheduler leaves alone."""
    return statistics.median([await measured(SHORT) for _ in range(count // SHORT)])


async def among(others, kind, measured, count):
    """`measured(count)` in a task of its own, while `others` tasks of that kind wait."""
    gate = asyncio.Event()
    tasks = [asyncio.create_task(kind(gate)) for _ in range(others)]
    for _ in range(3):
        await asyncio.sleep(0)
    result = await asyncio.create_task(often(measured, count))
    gate.set()
    await asyncio.gather(*tasks)
    return result


def measure(others, rounds, count):
    rows = {}
    cases = {
        "sleep(0), native": (waiting, natively),
        "sleep(0), parked": (parked, with_parking),
        "future, native": (waiting, natively_future),
        "future, parked": (parked, with_parking_future),
    }
    for _ in range(rounds):
        for name, (kind, measured) in cases.items():
            gc.collect()
            gc.disable()
            rows.setdefault(name, []).append(asyncio.run(among(others, kind, measured, count)))
            gc.enable()
    return {name: statistics.median(values) for name, values in rows.items()}


def on_the_host(rounds, count):
    """One caller and nobody else: its stack is the thread's own."""
    costs = []
    for _ in range(rounds):
        parked_, native = (asyncio.run(often(f, count)) for f in (with_parking, natively))
        costs.append(parked_ - native)
    return statistics.median(costs)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def memory(kind):
    """KiB for each of 10,000 tasks that wait."""

    async def greenbacked(gate):
        import greenback

        await greenback.ensure_portal()
        greenback.await_(gate.wait())

    function = {"parked": parked, "native": waiting, "greenback": greenbacked}[kind]
    count = 10_000

    async def main():
        gate = asyncio.Event()
        tasks = [asyncio.create_task(function(gate)) for _ in range(10)]
        await asyncio.sleep(0.01)
        gc.collect()
        before = resident()
        tasks += [asyncio.create_task(function(gate)) for _ in range(count)]
        await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        gc.collect()
        after = resident()
        gate.set()
        await asyncio.gather(*tasks)
        print((after - before) / count / 1024)

    asyncio.run(main())


async def ready():
    return None


async def natively_ready(count):
    for _ in range(count):
        await ready()


async def in_sync_code_ready(count):
    await_ = fiberback.await_
    for _ in range(count):
        await_(ready())


async def sleeps_natively(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def sleeps_in_sync_code(count):
    await_, sleep = fiberback.await_, asyncio.sleep
    for _ in range(count):
        await_(sleep(0))


def spent(function, callers, waits):
    """Microseconds of this thread for each wait of `callers` tasks that share `waits`."""

    async def run():
        each = max(1, waits // callers)
        begin = time.thread_time()
        await asyncio.gather(*(function(each) for _ in range(callers)))
        return (time.thread_time() - begin) / (each * callers) * 1e6

    gc.collect()
    return asyncio.run(run())


def in_the_field(rounds, waits):
    import greenlet  # noqa: F401 - that it is loaded is the point

    objects = [[number] for number in range(1_000_000)]
    print(f"\ngreenlet loaded, {len(objects):,} objects more, all callers loop at once, µs a wait")
    print(f"{'callers':>14} {'native':>8}{'parked':>8}{'cost':>8}")
    for callers in (1, 10, 100, 1000):
        pairs = [
            (spent(sleeps_natively, callers, waits), spent(sleeps_in_sync_code, callers, waits))
            for _ in range(rounds)
        ]
        native, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
        cost = statistics.median([ours - native for native, ours in pairs])
        print(
            f"{callers:>14,} {native:>8.2f}{ours:>8.2f}{cost:>8.2f}"
            f"  {'PASS' if cost <= FIELD_TARGET else 'MISS'} (at most {FIELD_TARGET:g})"
        )
    pairs = [
        (spent(natively_ready, 1, 5 * waits), spent(in_sync_code_ready, 1, 5 * waits))
        for _ in range(rounds)
    ]
    native, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median([ours / native for native, ours in pairs])
    print(
        f"{'ready':>14} {native:>8.3f}{ours:>8.3f}{ratio:>7.2f}x"
        f"  {'PASS' if ratio <= READY_TARGET else 'MISS'} (at most {READY_TARGET:g}x)"
    )


def plot(costs):
    width = 48
    top = max(TARGET, *costs.values())
    print(f"\npark + resume of one caller, µs (the bar {TARGET:g} µs is the target)")
    for others, cost in costs.items():
        bar = "#" * max(1, round(cost / top * width))
        mark = round(TARGET / top * width)
        line = bar.ljust(mark) + "|" if len(bar) <= mark else bar[:mark] + "|" + bar[mark + 1 :]
        print(f"{others:>7,} parked {line} {cost:.2f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", choices=["parked", "native", "greenback"])
    parser.add_argument("--field", action="store_true", help="the shape of real programs only")
    options = parser.parse_args()
    if options.memory:
        return memory(options.memory)
    rounds, count = (3, 1000) if options.quick else (options.rounds, 5000)
    if options.field:
        return in_the_field(rounds, 4 * count)
    print(
        f"CPython {platform.python_version()}, fiberback {fiberback.__version__}, medians of {rounds}"
    )
    print(f"{'':>14} {'sleep(0)':>24} {'a future':>24}")
    print(
        f"{'others':>14} {'native':>8}{'parked':>8}{'cost':>8} {'native':>8}{'parked':>8}{'cost':>8}  µs"
    )
    costs = {}
    for others in (10, 100, 1000, 10_000):
        row = measure(others, rounds, count)
        one = row["sleep(0), parked"] - row["sleep(0), native"]
        two = row["future, parked"] - row["future, native"]
        costs[others] = max(one, two)
        print(
            f"{others:>14,} {row['sleep(0), native']:>8.2f}{row['sleep(0), parked']:>8.2f}{one:>8.2f}"
            f" {row['future, native']:>8.2f}{row['future, parked']:>8.2f}{two:>8.2f}"
        )
    print(f"{'nobody else':>14} {'':>16}{on_the_host(rounds, count):>8.2f}")
    plot(costs)
    print("\nresident memory of a waiting caller, its task included, KiB")
    for kind in ("native", "parked", "greenback"):
        if kind == "greenback" and importlib.util.find_spec("greenback") is None:
            continue
        out = subprocess.run(
            [sys.executable, __file__, "--memory", kind], capture_output=True, text=True, check=True
        )
        print(f"{kind:>14} {float(out.stdout):8.2f}")
    if importlib.util.find_spec("greenlet") is not None:
        sys.stdout.flush()
        own = ["--quick"] if options.quick else ["--rounds", str(options.rounds)]
        subprocess.run([sys.executable, __file__, "--field", *own], check=True)


if __name__ == "__main__":
    main()
