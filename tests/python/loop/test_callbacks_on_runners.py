"""What a runner does with a handle is what `Handle._run` does, whoever looks, and whatever goes wrong."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import gc
import selectors
import sys
import traceback
import weakref

import pytest
from support import only_fiberback

pytestmark = only_fiberback


async def beside_a_parked_caller(fb, main):
    """`await main()` while somebody is parked on the loop's own stack: all callbacks run on runners."""
    gate = asyncio.Event()
    result = []

    async def parked():
        fb.await_(gate.wait())

    async def others():
        try:
            result.append(await main())
        finally:
            gate.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(parked())
        group.create_task(others())
    return result[0]


async def natively(fb, main):
    return await main()


@pytest.fixture(params=[natively, beside_a_parked_caller])
def beside(request):
    return request.param


def failing(number):
    raise ValueError(number)


async def turns(count=3):
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_a_callback_raises_is_told_as_natively(fb, beside):
    async def main():
        loop = asyncio.get_running_loop()
        told = []
        loop.set_exception_handler(lambda loop, context: told.append(context))
        context = contextvars.copy_context()
        handle = loop.call_soon(failing, 7, context=context)
        await turns()
        (said,) = told
        assert set(said) == {"message", "exception", "handle"}
        assert said["message"].startswith("Exception in callback failing(")
        assert said["handle"] is handle
        assert handle._context is context
        assert handle._args == (7,)
        error = said["exception"]
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names == ["_run", "failing"]
        assert error.__context__ is None

    asyncio.run(beside(fb, main))


def test_a_callback_that_cancels_its_handle_and_raises(fb, beside):
    async def main():
        loop = asyncio.get_running_loop()
        told = []
        loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
        handles = []

        def callback(number):
            handles[0].cancel()
            raise ValueError(number)

        handles.append(loop.call_soon(callback, 3))
        await turns()
        assert [str(error) for error in told] == ["3"]
        assert handles[0].cancelled() and handles[0]._args is None

    asyncio.run(beside(fb, main))


def test_a_context_that_somebody_is_in(fb, beside):
    async def main():
        loop = asyncio.get_running_loop()
        told = []

        def handler(loop, context):
            told.append(context["exception"])

        # From 3.12 on the handler is called in the handle's context, too.
        stock = loop.call_exception_handler
        loop.call_exception_handler = lambda context: handler(loop, context)
        loop.call_soon(called.append, 1, context=outer)
        await turns()
        loop.call_exception_handler = stock
        (error,) = told
        assert type(error) is RuntimeError
        assert "cannot enter context" in str(error) and "is already entered" in str(error)
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names == ["_run"]
        loop.call_soon(called.append, 2)
        await turns()

    called = []
    outer = contextvars.copy_context()
    outer.run(asyncio.run, beside(fb, main))
    assert called == [2]


def test_a_callback_runs_in_its_context(fb, beside):
    variable = contextvars.ContextVar("variable", default=0)

    async def main():
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        seen = []

        def callback():
            seen.append(variable.get())
            token = variable.set(variable.get() + 1)
            fb.await_(turns(2))
            assert variable.get() == token.old_value + 1 if seen[-1] else 1
            seen.append(variable.get())
            if len(seen) > 2:
                variable.reset(token)

        loop.call_soon(callback, context=context)
        await turns(12)
        loop.call_soon(callback, context=context)
        await turns(12)
        assert seen == [0, 1, 1, 2]
        assert context[variable] == 1 and variable.get() == 0

    asyncio.run(beside(fb, main))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_leaves_the_loop_leaves_it(fb, beside, error):
    async def main():
        def leave():
            raise error("out")

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: told.append(context))
        loop.call_soon(leave)
        await asyncio.Event().wait()

    told = []
    with pytest.raises(error, match="out") as caught:
        asyncio.run(beside(fb, main))
    assert "_run" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not told


def test_a_handler_that_raises(fb, beside, caplog):
    async def main():
        def handler(loop, context):
            raise LookupError("handler")

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(handler)
        loop.call_soon(failing, 1)
        await turns()
        return "went on"

    assert asyncio.run(beside(fb, main)) == "went on"
    assert "Unhandled error in exception handler" in caplog.text


def test_handles_that_are_replaced_while_the_loop_runs(fb, beside, monkeypatch):
    """Tools that measure callbacks put a `_run` of their own in place of asyncio's."""

    async def main():
        stock = asyncio.Handle._run
        calls = []

        def measured(self):
            calls.append(self._callback)
            return stock(self)

        with monkeypatch.context() as patch:
            patch.setattr(asyncio.Handle, "_run", measured)
            asyncio.get_running_loop().call_soon(done.append, 1)
            await turns()

            def waits():
                fb.await_(asyncio.sleep(0))

            for _ in range(2):
                asyncio.get_running_loop().call_soon(waits)
            await turns(9)
        count = len(calls)
        asyncio.get_running_loop().call_soon(done.append, 2)
        await turns()
        assert len(calls) == count > 8
        assert done == [1, 2] and done.append in calls

    done = []
    asyncio.run(beside(fb, main))


def test_a_class_of_handles_of_ones_own(fb, beside):
    class Counted(asyncio.Handle):
        __slots__ = ()

        def _run(self):
            runs.append(self._args)
            super()._run()

    async def main():
        loop = asyncio.get_running_loop()
        loop._ready.append(Counted(done.append, (1,), loop, None))
        loop._ready.append(asyncio.Handle(done.append, [2], loop, None))  # no tuple
        await turns()

    runs, done = [], []
    asyncio.run(beside(fb, main))
    assert runs == [(1,)] and done == [1, 2]


def test_a_tracer_sees_what_it_sees_natively(fb, beside):
    async def main():
        seen = collections.Counter()

        def tracer(frame, event, argument):
            if event == "call":
                seen[frame.f_code.co_qualname] += 1

        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            asyncio.get_running_loop().call_soon(int)
            await turns()
        finally:
            sys.settrace(before)
        assert seen["Handle._run"] >= 3

    asyncio.run(beside(fb, main))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring")
def test_a_tool_that_asks_about_this_one_function(fb, beside):
    code = asyncio.Handle._run.__code__
    monitoring = sys.monitoring
    tool = next(tool for tool in (3, 4) if monitoring.get_tool(tool) is None)

    async def main():
        begun = []
        monitoring.use_tool_id(tool, "test")
        try:
            monitoring.register_callback(
                tool, monitoring.events.PY_START, lambda code, _: begun.append(code)
            )
            monitoring.set_local_events(tool, code, monitoring.events.PY_START)
            for _ in range(3):
                asyncio.get_running_loop().call_soon(int)
                await asyncio.sleep(0)
        finally:
            monitoring.set_local_events(tool, code, 0)
            monitoring.register_callback(tool, monitoring.events.PY_START, None)
            monitoring.free_tool_id(tool)
        assert begun.count(code) >= 6

    asyncio.run(beside(fb, main))


def test_who_is_woken_goes_on_in_the_loops_order(fb):
    """Wakers, callbacks, cancelled handles and others between them."""

    async def order(wait):
        loop = asyncio.get_running_loop()
        seen = []

        async def caller(name):
            for turn in range(4):
                wait(asyncio.sleep(0)) if wait else await asyncio.sleep(0)
                seen.append((name, turn))
                if turn == 1:
                    loop.call_soon(seen.append, name)
                    loop.call_soon(seen.append, "never").cancel()

        async with asyncio.TaskGroup() as group:
            for name in "abcde":
                group.create_task(caller(name))
        return seen

    native = asyncio.run(order(None))
    parked = asyncio.run(order(fb.await_))
    assert native == parked
    assert len(native) == 25


def test_nothing_keeps_the_handle_that_woke(fb):
    async def main():
        handles = []

        async def caller(last):
            for _ in range(3):
                fb.await_(asyncio.sleep(0))
                handles.extend(weakref.ref(h) for h in asyncio.get_running_loop()._ready)

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(caller(number))
        await turns()
        gc.collect()
        assert handles and not [ref for ref in handles if ref() is not None]

    asyncio.run(main())


def test_runners_are_given_back(fb):
    def count():
        gc.collect()
        stats = fb.stats()
        return stats["stacks_in_use"] - stats["fibers_idle"] - stats["stacks_shared"]

    async def main():
        async def caller():
            for _ in range(3):
                fb.await_(asyncio.sleep(0))

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(caller())

    before = count()
    asyncio.run(main())
    assert count() == before


async def host():
    await asyncio.sleep(0)
    return asyncio.current_task()


def test_each_call_of_one_handle_has_a_task_of_its_own(fb, beside):
    """As a reader's, whose handle is called again while its earlier call is parked."""

    async def main():
        loop = asyncio.get_running_loop()
        gates = [asyncio.Event() for _ in range(3)]

        def callback():
            number = len(tasks)
            tasks.append([fb.await_(host())])
            fb.await_(gates[number].wait())
            tasks[number].append(fb.await_(host()))

        handle = asyncio.Handle(callback, (), loop, contextvars.Context())
        for _ in range(3):
            # A context can be entered once at a time.
            handle._context = contextvars.Context()
            loop._ready.append(handle)
            await turns(9)
        for gate in gates:
            gate.set()
            await turns(9)

    tasks = []
    asyncio.run(beside(fb, main))
    assert [len(set(each)) for each in tasks] == [1, 1, 1]
    assert len({each[0] for each in tasks}) == 3


def test_a_callback_after_another_has_a_task_of_its_own(fb, beside):
    """Also where objects of the later one lie where those of the earlier one lay."""

    async def main():
        loop = asyncio.get_running_loop()

        def callback():
            tasks.append({fb.await_(host()) for _ in range(2)})

        for _ in range(50):
            loop.call_soon(callback)
            await turns(9)
        assert all(len(each) == 1 for each in tasks)
        assert len(set().union(*tasks)) == 50

    tasks = []
    asyncio.run(beside(fb, main))


@pytest.mark.skipif(
    sys.version_info < (3, 12),
    reason="the loop calls its handler outside of the callback's context",
)
def test_a_handler_waits_in_the_task_of_the_callback_that_raised(fb, beside):
    async def main():
        loop = asyncio.get_running_loop()

        def callback():
            tasks.append(fb.await_(host()))
            raise ValueError

        loop.set_exception_handler(lambda *_: tasks.append(fb.await_(host())))
        loop.call_soon(callback)
        await turns(12)

    tasks = []
    asyncio.run(beside(fb, main))
    assert len(tasks) == 2 and len(set(tasks)) == 1


def test_the_task_of_a_callback_ends_with_it(fb, beside):
    async def main():
        loop = asyncio.get_running_loop()
        others = asyncio.all_tasks()

        def callback():
            fb.await_(asyncio.sleep(0))
            first.append(fb.await_(host()))

        first = []
        loop.call_soon(callback)
        while not first:
            await asyncio.sleep(0)
        while asyncio.all_tasks() - others:
            await asyncio.sleep(0.001)
        assert first.pop().done()

    asyncio.run(beside(fb, main))


def test_what_interrupts_the_loop_between_two_callbacks_is_in_neither(fb):
    """A signal's handler, on a runner that looks for something to do."""
    from fiberback._fiberback import current_turn

    class Selector(selectors.DefaultSelector):
        def select(self, timeout=None):
            turns_seen.append(current_turn())
            return super().select(timeout)

    async def main():
        seen = []
        asyncio.get_running_loop().call_soon(lambda: seen.append(current_turn()))
        turns_seen.clear()
        await turns()
        return seen

    turns_seen = []
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Selector())) as runner:
        (turn,) = runner.run(beside_a_parked_caller(fb, main))
        (none,) = runner.run(natively(fb, main))
    assert turn is not None and turn.is_over and none is None
    assert turns_seen and set(turns_seen) == {None}
    assert current_turn() is None
