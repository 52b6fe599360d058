"""Every task has a portal under `enable` and `run`, whatever is set as the loop's task factory."""

from __future__ import annotations

import asyncio
import sys

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


def eager(custom=None):
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks are new in Python 3.12")
    return asyncio.create_eager_task_factory(custom) if custom else asyncio.eager_task_factory


class Theirs(asyncio.Task):
    pass


def custom_factory(loop, coro, **kwds):
    if kwds.get("name", "") is None:
        del kwds["name"]  # 3.13.0
    return Theirs(coro, loop=loop, **kwds)


FACTORIES = {
    "none": lambda: None,
    "eager": eager,
    "eager with a class": lambda: eager(Theirs),
    "theirs": lambda: custom_factory,
}


@pytest.fixture(params=FACTORIES)
def factory(request):
    return FACTORIES[request.param]()


class _Sealed(asyncio.SelectorEventLoop):
    """As loops written in C are: attributes cannot be set from outside."""

    def __setattr__(self, name, value):
        if name in ("set_task_factory", "get_task_factory"):
            raise AttributeError(name)
        super().__setattr__(name, value)


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request):
    if request.param == "uvloop":
        loop = import_or_skip("uvloop").new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    factory = request.getfixturevalue("factory") if "factory" in request.fixturenames else None
    if factory is not None and not works_natively(loop, factory):
        loop.close()
        pytest.skip(
            "uvloop 0.23 passes eager_start, which asyncio's eager factory takes since 3.13.4"
        )
    yield loop
    loop.close()


def works_natively(loop, factory):
    coro = asyncio.sleep(0)
    loop.set_task_factory(factory)
    try:
        loop.run_until_complete(coro)
    except TypeError as error:
        assert "eager_start" in str(error)
        coro.close()
        return False
    finally:
        loop.set_task_factory(None)
    return True


async def check(fb):
    """A child begins in create_task() or later; both ways it has a portal that waits."""

    async def child(n):
        assert fb.has_portal()
        assert fb.await_(asyncio.sleep(0, n)) == n
        await asyncio.sleep(0)
        return fb.await_(asyncio.sleep(0.001, n))

    assert await asyncio.create_task(child(1)) == 1
    async with asyncio.TaskGroup() as group:
        task = group.create_task(child(2))
    assert task.result() == 2
    assert await asyncio.gather(child(3), child(4)) == [3, 4]
    assert await asyncio.wait_for(child(5), 5) == 5
    return task


def test_set_before(fb, loop, factory, request):
    name = request.node.callspec.params["factory"]
    loop.set_task_factory(factory)
    before = dict(vars(loop))
    with fb.enable(loop):
        assert loop.get_task_factory() is factory
        task = loop.run_until_complete(check(fb))
        assert isinstance(task, Theirs) == (name in ("theirs", "eager with a class"))
    assert loop.get_task_factory() is factory
    assert {k: v for k, v in vars(loop).items() if k in ("set_task_factory", "_run_once")} == {}
    assert set(vars(loop)) == set(before)


def test_set_meanwhile(fb, loop, factory):
    async def main():
        running = asyncio.get_running_loop()
        running.set_task_factory(factory)
        assert running.get_task_factory() is factory
        return await check(fb)

    with fb.enable(loop):
        loop.run_until_complete(main())
        loop.run_until_complete(check(fb))
    assert loop.get_task_factory() is factory  # what the user has set stays
    assert "set_task_factory" not in vars(loop) and "get_task_factory" not in vars(loop)


def test_set_in_run(fb, factory):
    async def main():
        asyncio.get_running_loop().set_task_factory(factory)
        await check(fb)
        asyncio.get_running_loop().set_task_factory(None)
        await check(fb)
        return "done"

    assert fb.run(main()) == "done"


def test_a_wrapper_around_what_was_there_keeps_nothing_of_ours(fb, loop):
    """As aiodebug and others do: take the factory, set one that calls it."""

    def wrap(inner):
        def factory(loop, coro, **kwds):
            if kwds.get("name", "") is None:
                del kwds["name"]
            made.append(coro)
            if inner is None:
                return asyncio.Task(coro, loop=loop, **kwds)
            return inner(loop, coro, **kwds)

        return factory

    async def has():
        return fb.has_portal()

    made = []
    with fb.enable(loop):
        loop.set_task_factory(wrap(loop.get_task_factory()))
        loop.run_until_complete(check(fb))
    assert made
    assert loop.run_until_complete(has()) is False
    with pytest.raises(TypeError, match="callable"):
        loop.set_task_factory(1)
    with fb.enable(loop), pytest.raises(TypeError, match="callable"):
        loop.set_task_factory(1)


def test_scopes_end_in_any_order(fb, loop):
    async def main(order):
        running = asyncio.get_running_loop()
        scopes = {"all": fb.enable(running), "children": fb.portals_for_children()}
        scopes["all"].__enter__()
        scopes["children"].__enter__()
        running.set_task_factory(custom_factory)
        await asyncio.sleep(0)
        await check(fb)
        for name in order:
            scopes[name].__exit__(None, None, None)
            if name != order[-1]:
                await check(fb)
        assert running.get_task_factory() is custom_factory
        running.set_task_factory(None)

        async def child():
            return fb.has_portal()

        assert await asyncio.create_task(child()) is False

    for order in (["all", "children"], ["children", "all"]):
        loop.run_until_complete(main(order))
        assert "set_task_factory" not in vars(loop) and loop.get_task_factory() is None


def test_children_keep_portals_when_a_factory_is_set(fb, loop, factory):
    async def main():
        asyncio.get_running_loop().set_task_factory(factory)
        await check(fb)

    loop.run_until_complete(fb.with_portal_run_tree(main))
    assert loop.get_task_factory() is factory


def test_anyio_makes_its_tasks_by_what_is_in_an_eager_factory(fb, loop):
    anyio = import_or_skip("anyio")
    log = []

    if not works_natively(loop, eager()):
        pytest.skip(
            "uvloop 0.23 passes eager_start, which asyncio's eager factory takes since 3.13.4"
        )

    async def child(n, *, task_status=anyio.TASK_STATUS_IGNORED):
        assert fb.has_portal()
        fb.await_(asyncio.sleep(0.001))
        task_status.started(n)
        log.append(n)

    async def main():
        asyncio.get_running_loop().set_task_factory(eager())
        async with anyio.create_task_group() as group:
            group.start_soon(child, 1)
            assert await group.start(child, 2) == 2
        assert asyncio.get_running_loop().get_task_factory() is eager()

    with fb.enable(loop):
        loop.run_until_complete(main())
    loop.set_task_factory(None)
    loop.run_until_complete(fb.with_portal_run_tree(main))
    assert sorted(log) == [1, 1, 2, 2]


def test_a_loop_that_takes_no_attributes(fb):
    loop = _Sealed()
    with fb.enable(loop):
        loop.run_until_complete(check(fb))
        loop.set_task_factory(fb.create_task_factory(custom_factory))  # as the docs say
        loop.run_until_complete(check(fb))
        loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    loop.close()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
@pytest.mark.parametrize("eager_start", [True, False])
def test_eager_start(fb, loop, eager_start):
    async def child():
        log.append("child")
        assert fb.has_portal()
        return fb.await_(asyncio.sleep(0, 1))

    async def main():
        task = asyncio.create_task(child(), eager_start=eager_start)
        log.append("created")
        return await task

    log = []
    if not isinstance(loop, asyncio.BaseEventLoop):
        pytest.skip("uvloop's create_task takes no eager_start")
    with fb.enable(loop):
        assert loop.run_until_complete(main()) == 1
    assert log == (["child", "created"] if eager_start else ["created", "child"])
