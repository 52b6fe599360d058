"""What `test_in_pyodide` runs there."""

# ruff: noqa: F704, PLE1142 -- Pyodide runs it as one async function

import asyncio
import contextvars

import fiberback

variable = contextvars.ContextVar("variable", default=0)


async def answer(n=42):
    await asyncio.sleep(0.01)
    variable.set(variable.get() + 1)
    return n


def ask(n=42):
    return fiberback.await_(answer(n))


ticks = 0


async def other():
    global ticks
    while True:
        await asyncio.sleep(0.001)
        ticks += 1


print(fiberback.implementation, fiberback.can_await())
if fiberback.can_await():
    task = asyncio.create_task(other())
    before = ticks
    assert sorted([3, 1, 2], key=ask) == [1, 2, 3] and ticks > before
    assert variable.get() == 3, variable.get()
    await fiberback.ensure_portal()
    assert ask() == 42
    assert await fiberback.with_portal_run_sync(ask, 5) == 5
    assert await asyncio.gather(*(fiberback.with_portal_run_sync(ask, n) for n in range(3))) == [
        0,
        1,
        2,
    ]

    async def fails():
        await asyncio.sleep(0)
        raise KeyError("x")

    try:
        fiberback.await_(fails())
    except KeyError as error:
        print("raised", error)

    @fiberback.autoawait
    async def auto():
        return await answer(9)

    assert auto() == 9
    task.cancel()
    print(fiberback.run(answer(8)))
try:
    fiberback.await_(3)
except TypeError as error:
    print(error)
if not fiberback.can_await():
    try:
        ask()
    except RuntimeError as error:
        print(error)
