"""`await_` without a portal under the pytest plugins that run loops of their own."""

from __future__ import annotations

from inner_pytest import pytest_on
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


PLAIN = """
    import asyncio
    import pytest
    import fiberback

    def sync(value):
        return fiberback.await_(asyncio.sleep(0.001, value))
"""


def test_pytest_asyncio(tmp_path):
    import_or_skip("pytest_asyncio")
    printed = pytest_on(
        tmp_path / "test_inner.py",
        PLAIN
        + """
    import pytest_asyncio

    @pytest_asyncio.fixture(loop_scope="module", scope="module")
    async def background():
        seen = []

        async def work():
            for n in range(1000):
                seen.append(sync(n))
                await asyncio.sleep(0)

        task = asyncio.create_task(work())
        yield seen
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @pytest_asyncio.fixture
    async def fixture():
        yield sync("fixture")
        assert sync(1) == 1

    @pytest.mark.asyncio
    async def test_one(fixture):
        assert fixture == "fixture"
        assert await asyncio.gather(*(asyncio.to_thread(int), asyncio.sleep(0, sync(2)))) == [0, 2]

    @pytest.mark.asyncio
    @pytest.mark.parametrize("n", range(5))
    async def test_cancel(n):
        async def parked():
            sync(await asyncio.sleep(0, n))
            fiberback.await_(asyncio.sleep(1000))

        task = asyncio.create_task(parked())
        await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.mark.asyncio(loop_scope="module")
    async def test_with_background(background):
        sync(0)
        await asyncio.sleep(0.01)
        assert background

    @pytest.mark.asyncio(loop_scope="module")
    async def test_with_background_again(background):
        before = len(background)
        for _ in range(1000):
            sync(0)
            if len(background) > before + 3:
                break
        assert len(background) > before + 3
    """,
        "-p",
        "pytest_asyncio",
        "-o",
        "asyncio_mode=strict",
    )
    assert "8 passed" in printed, printed


def test_anyio_plugin(tmp_path):
    import_or_skip("anyio")
    printed = pytest_on(
        tmp_path / "test_inner.py",
        PLAIN
        + """
    import anyio

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.fixture
    async def fixture():
        yield sync("fixture")

    @pytest.mark.anyio
    async def test_one(fixture):
        assert fixture == "fixture" and sync(2) == 2

    @pytest.mark.anyio
    async def test_groups_and_scopes():
        done = []

        async def one(n):
            done.append(sync(n))

        async with anyio.create_task_group() as group:
            for n in range(10):
                group.start_soon(one, n)
        assert sorted(done) == list(range(10))
        with anyio.move_on_after(0.005) as scope:
            fiberback.await_(anyio.sleep(1000))
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.005):
                fiberback.await_(anyio.sleep(1000))
        assert await anyio.to_thread.run_sync(int) == 0
        assert fiberback.await_(anyio.to_thread.run_sync(int)) == 0
    """,
        "-p",
        "anyio",
    )
    assert "2 passed" in printed, printed
