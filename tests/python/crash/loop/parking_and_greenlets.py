# expect-stdout: done
"""Another library's greenlets in the same tasks as callers that park."""

import asyncio

import fiberback

try:
    import greenlet
except ImportError:
    print("done")
    raise SystemExit from None


def provide(fn, *args):
    """What SQLAlchemy's greenlet_spawn does, in short."""

    async def spawn():
        context = greenlet.greenlet(fn, parent=greenlet.getcurrent())
        context.__dict__["__sqlalchemy_greenlet_provider__"] = True
        result = context.switch(*args)
        while not context.dead:
            try:
                value = await result
            except BaseException as error:
                result = context.throw(error)
            else:
                result = context.switch(value)
        return result

    return spawn()


def awaits(n):
    for _ in range(3):
        greenlet.getcurrent().parent.switch(asyncio.sleep(0.0001 * (n % 5)))
    return n


def parks(n):
    assert fiberback.await_(asyncio.sleep(0.0001 * (n % 7), n)) == n


async def one(n):
    for k in range(6):
        if (n + k) % 3:
            parks(n)
        if (n + k) % 2:
            assert await provide(awaits, n) == n


async def main():
    await asyncio.gather(*(one(n) for n in range(30)))


for _ in range(5):
    asyncio.run(main())
    fiberback.run(main())
print("done")
