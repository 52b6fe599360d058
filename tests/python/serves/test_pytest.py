"""`pytest -p fiberback`: each test here runs a file of tests, which must pass."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
from inner_pytest import pytest_on
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

ASYNCIO = """
    import asyncio, contextvars
    import fiberback, pytest, pytest_asyncio

    class Client:
        def __init__(self):
            self.loop = asyncio.get_running_loop()
            self.queue = asyncio.Queue()
            self.task = self.loop.create_task(self.serve())
            self.answers = asyncio.Queue()

        async def serve(self):
            while True:
                self.answers.put_nowait((await self.queue.get()) * 2)

        async def ask(self, n):
            assert asyncio.get_running_loop() is self.loop
            self.queue.put_nowait(n)
            return await self.answers.get()

        async def close(self):
            assert asyncio.get_running_loop() is self.loop
            self.task.cancel()
            await asyncio.wait([self.task])

    closed = []
    variable = contextvars.ContextVar("variable", default=None)

    @pytest_asyncio.fixture
    async def client():
        client = Client()
        await asyncio.sleep(0.001)
        yield client
        await client.close()
        closed.append("client")

    @pytest_asyncio.fixture
    async def value():
        variable.set("set by a fixture")
        await asyncio.sleep(0.001)
        return 42

    @pytest_asyncio.fixture
    async def bad():
        await asyncio.sleep(0.001)
        raise LookupError("no such thing")

    @pytest_asyncio.fixture(scope="session", loop_scope="session")
    async def wide():
        client = Client()
        yield client
        await client.close()

    @pytest.fixture
    def asked(client):                      # a sync fixture on an async one
        yield fiberback.await_(client.ask(1))
        assert fiberback.await_(client.ask(2)) == 4
        closed.append("asked")

    def through_sync(request, name):
        return request.getfixturevalue(name)
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_pytest_asyncio(tmp_path, loop):
    import_or_skip("pytest_asyncio")
    if loop == "uvloop":
        import_or_skip("uvloop")
        policy = """
    import uvloop, warnings

    @pytest.fixture(scope="session")
    def event_loop_policy():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return uvloop.EventLoopPolicy()
"""
    else:
        policy = ""
    printed = pytest_on(
        tmp_path / "test_inner.py",
        ASYNCIO
        + policy
        + """
    @pytest.mark.asyncio
    async def test_from_sync_code(request):
        client = through_sync(request, "client")
        assert client.loop is asyncio.get_running_loop()
        assert await client.ask(3) == 6 and fiberback.await_(client.ask(4)) == 8
        assert request.getfixturevalue("client") is client
        assert through_sync(request, "asked") == 2

    def test_it_was_closed():
        assert closed == ["asked", "client"]
        closed.clear()

    @pytest.mark.asyncio
    async def test_the_loop_goes_on(request):
        ticks = []

        async def tick():
            while True:
                ticks.append(1)
                await asyncio.sleep(0)

        task = asyncio.create_task(tick())
        assert through_sync(request, "value") == 42
        assert ticks and variable.get() == "set by a fixture"
        task.cancel()

    @pytest.mark.asyncio
    async def test_an_error(request):
        with pytest.raises(LookupError, match="no such thing"):
            through_sync(request, "bad")

    @pytest.mark.asyncio
    async def test_a_loop_of_its_own(request):
        here, task = asyncio.get_running_loop(), asyncio.current_task()
        wide = through_sync(request, "wide")
        assert wide.loop is not here
        assert asyncio.get_running_loop() is here and asyncio.current_task() is task

    @pytest.mark.asyncio(loop_scope="session")
    async def test_on_that_loop(wide):
        assert wide.loop is asyncio.get_running_loop()
        assert await wide.ask(1) == 2

    def test_sync(client, asked):
        assert asked == 2
        assert [fiberback.await_(client.ask(n)) for n in range(3)] == [0, 2, 4]

    def test_sync_on_a_wide_loop(wide):
        assert fiberback.await_(wide.ask(5)) == 10

    def test_sync_asks_for_it(request):
        assert fiberback.await_(through_sync(request, "client").ask(6)) == 12

    def test_sync_without_fixtures():
        assert fiberback.await_(asyncio.sleep(0.001, 7)) == 7
    """,
        *("-p", "fiberback", "-W", "error::RuntimeWarning"),
        *("-o", "asyncio_mode=strict", "-o", "asyncio_default_fixture_loop_scope=function"),
    )
    assert "10 passed" in printed, printed


def test_anyio(tmp_path):
    import_or_skip("trio")
    import_or_skip("uvloop")
    printed = pytest_on(
        tmp_path / "test_inner.py",
        """
    import anyio, fiberback, pytest

    BACKENDS = ["asyncio", ("asyncio", {"use_uvloop": True}), "trio"]

    @pytest.fixture(scope="module", params=BACKENDS, ids=["asyncio", "uvloop", "trio"])
    def anyio_backend(request):
        return request.param

    closed = []

    async def serve(answers, requests):
        async for n in requests:
            await answers.send(n * 2)

    class Client:
        async def ask(self, n):
            await self.requests.send(n)
            return await self.answers.receive()

    @pytest.fixture
    async def client():
        client = Client()
        client.requests, requests = anyio.create_memory_object_stream(1)
        answers, client.answers = anyio.create_memory_object_stream(1)
        async with anyio.create_task_group() as group:      # entered and left in one task
            group.start_soon(serve, answers, requests)
            yield client
            group.cancel_scope.cancel()
        for stream in (client.requests, requests, answers, client.answers):
            stream.close()
        closed.append("client")

    @pytest.fixture
    async def value():
        await anyio.sleep(0.001)
        return fiberback.await_(nothing())

    @pytest.fixture
    async def bad():
        await anyio.sleep(0.001)
        raise LookupError("no such thing")

    @pytest.fixture
    def asked(client):
        yield fiberback.await_(client.ask(1))
        assert fiberback.await_(client.ask(2)) == 4

    async def nothing():
        await anyio.sleep(0.001)
        return 42

    def through_sync(request, name):
        return request.getfixturevalue(name)

    @pytest.mark.anyio
    async def test_from_sync_code(request):
        client = through_sync(request, "client")
        assert await client.ask(3) == 6 and fiberback.await_(client.ask(4)) == 8
        assert through_sync(request, "asked") == 2
        assert through_sync(request, "value") == 42

    def test_it_was_closed(anyio_backend):
        assert closed == ["client"]
        closed.clear()

    @pytest.mark.anyio
    async def test_children_wait(request):
        done = []

        async def child():
            done.append(fiberback.await_(nothing()))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(child)
        assert done == [42] * 3

    @pytest.mark.anyio
    async def test_an_error(request):
        with pytest.raises(LookupError, match="no such thing"):
            through_sync(request, "bad")

    def test_sync(anyio_backend, client, asked):
        assert asked == 2
        assert [fiberback.await_(client.ask(n)) for n in range(3)] == [0, 2, 4]

    def test_sync_asks_for_it(anyio_backend, client, request):
        assert through_sync(request, "value") == 42
        closed.clear()

    @pytest.fixture(autouse=True)
    def cleared(request):
        yield
        if "closed" not in request.node.name and "code" not in request.node.name:
            closed.clear()
    """,
        *("-p", "fiberback", "-p", "anyio", "-p", "no:asyncio"),
        *("-W", "error::RuntimeWarning"),
    )
    assert "18 passed" in printed, printed


TRIO = """
    import fiberback, pytest, trio

    log = []

    async def serve(answers, requests):
        async for n in requests:
            await answers.send(n * 2)

    class Client:
        def __init__(self):
            self.lock = trio.Lock()             # fixtures end at the same time

        async def ask(self, n):
            async with self.lock:
                await self.requests.send(n)
                return await self.answers.receive()

    @pytest.fixture
    async def client():
        client = Client()
        client.requests, requests = trio.open_memory_channel(1)
        answers, client.answers = trio.open_memory_channel(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, answers, requests)
            yield client
            nursery.cancel_scope.cancel()
        log.append("client")

    @pytest.fixture
    async def on_client(client):            # ends before that
        yield await client.ask(10)
        assert await client.ask(11) == 22
        log.append("on_client")

    @pytest.fixture
    async def value():
        await trio.sleep(0)
        return fiberback.await_(nothing())

    @pytest.fixture
    async def bad():
        await trio.sleep(0)
        raise LookupError("no such thing")

    @pytest.fixture
    async def on_bad(bad):
        raise SystemError("must not run")

    @pytest.fixture
    async def skips():
        await trio.sleep(0)
        pytest.skip("not here")

    @pytest.fixture
    def asked(client):                      # a sync fixture on an async one
        yield fiberback.await_(client.ask(1))
        assert fiberback.await_(client.ask(2)) == 4
        log.append("asked")

    @pytest.fixture
    async def asks(request):                # an async one that asks in sync code
        client = through_sync(request, "client")
        yield await client.ask(12)
        assert await client.ask(13) == 26
        log.append("asks")

    async def nothing():
        await trio.sleep(0)
        return 42

    def through_sync(request, name):
        return request.getfixturevalue(name)
"""


@pytest.mark.slow
def test_pytest_trio(tmp_path):
    import_or_skip("pytest_trio")
    printed = pytest_on(
        tmp_path / "test_inner.py",
        TRIO
        + """
    def ended(*names):
        assert sorted(log) == sorted(names) and (not names or log[-1] == names[-1]), log
        log.clear()

    @pytest.mark.trio
    async def test_from_sync_code(request):
        client = through_sync(request, "client")
        assert await client.ask(3) == 6 and fiberback.await_(client.ask(4)) == 8
        assert request.getfixturevalue("client") is client
        assert through_sync(request, "asked") == 2
        assert through_sync(request, "on_client") == 20
        assert through_sync(request, "value") == 42
        assert not log

    def test_they_ended_before_what_they_need():
        ended("asked", "on_client", "client")

    @pytest.mark.trio
    async def test_beside_arguments(client, asked, request):
        assert through_sync(request, "client") is client
        assert through_sync(request, "on_client") == 20 and asked == 2

    def test_these_ended_before_what_they_need():
        ended("asked", "on_client", "client")

    @pytest.mark.trio
    async def test_by_a_fixture(asks):
        assert asks == 24

    def test_what_it_asked_for_ended_after_it():
        ended("asks", "client")

    @pytest.mark.trio
    async def test_the_run_goes_on(request):
        ticks = []

        async def tick():
            while True:
                ticks.append(fiberback.await_(nothing()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            assert through_sync(request, "value") == 42
            nursery.cancel_scope.cancel()
        assert ticks

    @pytest.mark.trio
    async def test_the_nursery_is_the_tests(request):
        nursery = through_sync(request, "nursery")
        assert isinstance(nursery, trio.Nursery)
        assert nursery is trio.lowlevel.current_task().child_nurseries[0]
        nursery.start_soon(trio.sleep_forever)      # cancelled with the test

    @pytest.mark.trio
    @pytest.mark.parametrize("name", ["bad", "on_bad"])
    async def test_an_error(request, name):
        for _ in range(2):
            with pytest.raises(LookupError, match="no such thing"):
                through_sync(request, name)

    @pytest.mark.trio
    async def test_that_skips(request):
        through_sync(request, "skips")

    gate = {}

    @pytest.fixture
    async def opened():
        await gate["event"].wait()
        return "opened"

    @pytest.mark.trio
    async def test_a_wait_that_is_cancelled(request):
        # It is set up all the same, for whoever asks next.
        gate["event"] = trio.Event()
        with trio.move_on_after(0.001) as scope:
            through_sync(request, "opened")
        assert scope.cancelled_caught
        gate["event"].set()
        assert through_sync(request, "opened") == "opened"

    @pytest.mark.trio
    def test_sync(client, asked, request):          # in a Trio task
        assert asked == 2 and through_sync(request, "on_client") == 20
        assert [fiberback.await_(client.ask(n)) for n in range(3)] == [0, 2, 4]

    class TestInAClass:
        @pytest.mark.trio
        @pytest.mark.parametrize("n", [1, 2])
        def test_sync(self, n, request):
            assert fiberback.await_(through_sync(request, "client").ask(n)) == 2 * n
            assert fiberback.await_(nothing()) == 42
    """,
        *("-p", "fiberback", "-p", "no:anyio", "-W", "error::RuntimeWarning"),
    )
    assert "14 passed, 1 skipped" in printed, printed


@pytest.mark.slow
def test_where_pytest_trio_cannot(tmp_path):
    """What a test runs into says what to type."""
    import_or_skip("pytest_trio")
    printed = pytest_on(
        tmp_path / "test_inner.py",
        TRIO
        + """
    @pytest.fixture
    def too_early(request):
        return fiberback.await_(request.getfixturevalue("client").ask(1))

    @pytest.fixture
    async def cancels_itself():
        trio.lowlevel.current_task().child_nurseries[0].cancel_scope.cancel()
        await trio.sleep(0)

    @pytest.mark.trio
    async def test_of_a_fixture_that_is_cancelled(request):
        through_sync(request, "cancels_itself")

    @pytest.mark.trio
    async def test_of_a_fixture_that_asks_before_the_run(too_early):
        pass

    def test_that_is_not_marked(client):
        pass
    """,
        *("-p", "fiberback", "-p", "no:anyio", "-o", "trio_mode=true"),
        code=1,
    )
    assert "1 failed, 2 errors" in printed, printed
    says(printed, "trio-fixture-early", "Take the fixture as an argument")
    says(printed, "trio-fixture-cancelled")
    says(printed, "trio-fixture-sync", "Put '@pytest.mark.trio' above the test")


def test_the_page(tmp_path):
    """The file of tests in docs/pytest.md."""
    import_or_skip("pytest_asyncio")
    page = (pathlib.Path(__file__).parents[3] / "docs/pytest.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    options = ("-p", "fiberback", "-o", "asyncio_default_fixture_loop_scope=function")
    assert "3 passed" in pytest_on(tmp_path / "test_inner.py", code, *options)


def test_it_is_named_in_the_configuration_or_not_at_all(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p fiberback\n")
    names = "import sys\n\ndef test_it():\n    assert ('fiberback.pytest' in sys.modules) is {}\n"
    printed = pytest_on(tmp_path / "test_named.py", names.format(True))
    assert "1 passed" in printed and "warning" not in printed, printed
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    pytest_on(tmp_path / "test_not.py", names.format(False))
    program = "import sys, fiberback; assert not {'pytest', 'IPython'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_all_is_undone(tmp_path):
    """As for a process that runs pytest twice."""
    import_or_skip("anyio")
    (tmp_path / "test_inner.py").write_text(
        "import pytest\n\n"
        "@pytest.mark.anyio\nasync def test_it(): pass\n\n"
        "@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
    )
    program = """
import asyncio.base_events, pytest, sys
import anyio._backends._asyncio as backend
before = dict(vars(backend.TestRunner)), asyncio.base_events.BaseEventLoop._run_once
for options in (["-p", "fiberback"], [], ["-p", "fiberback", "-p", "fiberback.pytest"]):
    assert pytest.main(["-q", "-p", "no:cacheprovider", *options, sys.argv[1]]) == 0
    assert (dict(vars(backend.TestRunner)), asyncio.base_events.BaseEventLoop._run_once) == before
"""
    path = str(tmp_path / "test_inner.py")
    subprocess.run([sys.executable, "-c", program, path], check=True, cwd=tmp_path)
