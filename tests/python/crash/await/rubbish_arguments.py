# expect-stdout: fine
"""Every public callable with every kind of wrong argument, on and off a portal."""

import asyncio
import gc
import itertools
import sys
import warnings

import fiberback
from fiberback import _fiberback

warnings.simplefilter("ignore")
sys.unraisablehook = lambda _: None


class Hostile:
    def __getattribute__(self, name):
        raise ZeroDivisionError(name)


class HostileAwait:
    def __await__(self):
        raise ZeroDivisionError


class NotIterator:
    def __await__(self):
        return self


class LyingIterator:
    def __await__(self):
        return self

    def __iter__(self):
        return self

    left = 100

    def __next__(self):
        self.left -= 1
        if not self.left:
            raise StopIteration  # there are functions here that take all there is
        return object()


class Halfway:
    """Has the names of a coroutine's methods, and rubbish behind them."""

    send = throw = close = __await__ = 42


async def coroutine():
    return 1


def generator():
    yield 1


def things():
    return [
        None, 42, "text", b"", (), [], {}, object, object(), Hostile(), HostileAwait(),
        NotIterator(), LyingIterator(), Halfway(), Halfway, coroutine, coroutine(), generator(),
        generator, len, type, Exception, Exception("x"), sys, sys._getframe(), lambda: None,
        asyncio, float("nan"), memoryview(b"x"), range(3), iter([]), NotImplemented, ...,
    ]  # fmt: skip


names = [name for name in dir(fiberback) if not name.startswith("_")]
native = [name for name in dir(_fiberback) if not name.startswith("_")]
calls = [getattr(fiberback, name) for name in names if callable(getattr(fiberback, name))]
skipped = {"set_hooks", "set_stack_size", "close_all"}
calls += [getattr(_fiberback, n) for n in native if n not in skipped]
calls = [call for call in calls if callable(call)]


def exercise():
    for call in calls:
        for arguments in itertools.chain([()], ((t,) for t in things())):
            use(call, arguments)
        for first in things()[::3]:
            for second in things()[::4]:
                use(call, (first, second))


def use(call, arguments):
    try:
        result = call(*arguments)
        if hasattr(result, "close") and hasattr(result, "send"):
            try:
                result.send(None)
            except BaseException:
                pass
            result.close()
    except Exception:
        pass
    except BaseException as error:
        assert isinstance(error, (GeneratorExit, SystemExit)), error


exercise()


async def main():
    try:
        await fiberback.with_portal_run_sync(exercise)
    except RuntimeError:
        pass  # rubbish yielded to the loop comes back as an error of the loop's
    gc.collect()


asyncio.run(main())
gc.collect()
print("fine")
