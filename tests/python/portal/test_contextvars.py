"""Context variables: one task, one context, also while `Context.run` calls are open."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import functools

import pytest

var: contextvars.ContextVar = contextvars.ContextVar("var", default="unset")


def in_portal(backend, fb, sync_fn, *args):
    return backend.run(functools.partial(fb.with_portal_run_sync, sync_fn, *args))


def test_shared_between_sync_and_async_parts(backend, fb):
    async def inner():
        assert var.get() == "from sync"
        await backend.sleep(0)
        var.set("from async")

    def sync():
        var.set("from sync")
        fb.await_(inner())
        assert var.get() == "from async"
        fb.await_(backend.sleep(0))
        assert var.get() == "from async"
        var.set("left")

    async def main():
        await fb.with_portal_run_sync(sync)
        assert var.get() == "left"
        await backend.sleep(0)
        assert var.get() == "left"

    backend.run(main)


def test_tasks_do_not_mix(backend, fb):
    def sync(n):
        for i in range(5):
            var.set((n, i))
            fb.await_(backend.sleep(0))
            assert var.get() == (n, i)

    async def main():
        var.set("main")
        async with backend.group() as group:
            for n in range(50):
                group.spawn(fb.with_portal_run_sync, sync, n)
            for _ in range(10):
                await backend.sleep(0)
                assert var.get() == "main"

    backend.run(main)


def test_open_context_run_survives_suspension(backend, fb):
    """`ctx.run(f)` with an `await_` in `f`: the context is entered for f's parts only."""

    def inside(n, ctx):
        for i in range(4):
            assert var.get() == ("ctx", n, i)
            fb.await_(backend.sleep(0))
            var.set(("ctx", n, i + 1))
            with pytest.raises(RuntimeError, match="already entered"):
                ctx.run(int)
        return "ran"

    def sync(n):
        var.set(("task", n))
        ctx = contextvars.copy_context()
        ctx.run(var.set, ("ctx", n, 0))
        assert ctx.run(inside, n, ctx) == "ran"
        assert var.get() == ("task", n)
        assert ctx[var] == ("ctx", n, 4)
        fb.await_(backend.sleep(0))
        assert var.get() == ("task", n)

    async def main():
        var.set("main")
        async with backend.group() as group:
            for n in range(20):
                group.spawn(fb.with_portal_run_sync, sync, n)
            for _ in range(10):
                await backend.sleep(0)
                assert var.get() == "main"

    backend.run(main)


def test_nested_context_runs(backend, fb):
    def level(depth):
        fb.await_(backend.sleep(0))
        var.set(depth)
        if depth:
            contextvars.copy_context().run(level, depth - 1)
        fb.await_(backend.sleep(0))
        assert var.get() == depth

    in_portal(backend, fb, level, 20)


def test_context_run_of_await_itself(backend, fb):
    async def inner():
        assert var.get() == "set"
        await backend.sleep(0)
        var.set("changed")
        return "result"

    def sync():
        ctx = contextvars.copy_context()
        ctx.run(var.set, "set")
        assert ctx.run(fb.await_, inner()) == "result"
        assert ctx[var] == "changed"
        assert var.get() == "unset"

    in_portal(backend, fb, sync)


def test_exception_leaves_an_open_context_run(backend, fb):
    async def failing():
        await backend.sleep(0)
        raise ValueError("through")

    def sync():
        ctx = contextvars.copy_context()
        with pytest.raises(ValueError, match="through"):
            ctx.run(lambda: fb.await_(failing()))
        ctx.run(int)  # it was left
        fb.await_(backend.sleep(0))

    in_portal(backend, fb, sync)


def test_cancelled_inside_an_open_context_run(backend, fb):
    contexts = []

    def sync():
        ctx = contextvars.copy_context()
        contexts.append(ctx)
        ctx.run(var.set, "inside")

        def body():
            try:
                fb.await_(backend.sleep(60))
            finally:
                assert var.get() == "inside"

        ctx.run(body)

    async def main():
        async with backend.group() as group:
            handle = group.spawn(fb.with_portal_run_sync, sync)
            await backend.sleep(0.01)
            handle.cancel()
        contexts[0].run(int)

    backend.run(main)


def test_tokens_reset_across_suspension(backend, fb):
    def sync():
        token = var.set("temporary")
        fb.await_(backend.sleep(0))
        var.reset(token)
        assert var.get() == "unset"

    in_portal(backend, fb, sync)


def test_decimal_context_is_per_task(backend, fb):
    def sync(n):
        with decimal.localcontext() as ctx:
            ctx.prec = n
            for _ in range(3):
                fb.await_(backend.sleep(0))
                assert decimal.getcontext().prec == n
                assert len(str(decimal.Decimal(1) / 3)) == n + 2

    async def main():
        async with backend.group() as group:
            for n in range(1, 30):
                group.spawn(fb.with_portal_run_sync, sync, n)

    backend.run(main)


def test_task_with_explicit_context(aio, fb):
    def sync():
        assert var.get() == "explicit"
        fb.await_(asyncio.sleep(0))
        var.set("written")

    async def main():
        ctx = contextvars.copy_context()
        ctx.run(var.set, "explicit")
        task = asyncio.get_running_loop().create_task(fb.with_portal_run_sync(sync), context=ctx)
        await task
        assert ctx[var] == "written"
        assert var.get() == "unset"

    aio.run(main)


def test_child_tasks_inherit_from_sync_code(backend, fb):
    seen = []

    async def child():
        seen.append(var.get())

    def sync(group):
        var.set("parent's")
        fb.await_(backend.sleep(0))
        group.spawn(child)
        fb.await_(backend.sleep(0))

    async def main():
        async with backend.group() as group:
            await fb.with_portal_run_sync(sync, group)

    backend.run(main)
    assert seen == ["parent's"]
