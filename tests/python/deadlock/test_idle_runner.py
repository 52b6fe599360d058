"""A client of the thread's own runner, used in a task of another loop of the thread: told, not hung."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import warnings

import pytest
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

CLIENT = """
import asyncio, fiberback, socket

class Client:
    @classmethod
    async def open(cls):
        self = cls()
        self.requests = asyncio.Queue()
        self.wanted = asyncio.Event()
        # They begin before the thread goes on, as by `run_until_complete`.
        self.tasks = [asyncio.create_task(self.serve()), asyncio.create_task(self.look())]
        return self

    async def serve(self):
        while True:
            number, answer = await self.requests.get()
            answer.set_result(2 * number)

    async def look(self):
        await self.wanted.wait()
        self.answer.set_result("seen")

    async def double(self, number):
        answer = asyncio.get_running_loop().create_future()
        await self.requests.put((number, answer))
        return await answer

    async def later(self):
        answer = asyncio.get_running_loop().create_future()
        self.tasks[0].get_loop().call_later(0.01, answer.set_result, "later")
        return await answer

    async def told(self):
        double = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 8), self.tasks[0].get_loop())
        return await asyncio.wrap_future(double)

    async def heard(self):
        one, other = socket.socketpair()
        answer, loop = asyncio.get_running_loop().create_future(), self.tasks[0].get_loop()
        loop.add_reader(one, lambda: answer.done() or answer.set_result(one.recv(1)))
        other.send(b"x")
        try:
            return await answer
        finally:
            loop.remove_reader(one)
            one.close()
            other.close()

    async def signal(self):
        self.answer = asyncio.get_running_loop().create_future()
        self.wanted.set()
        return await self.answer
"""

SUITE = (
    CLIENT
    + """
import pytest

@pytest.fixture
def client():
    with fiberback.thread_runner():
        yield fiberback.await_(Client.open())

def test_synchronous(client):
    assert fiberback.await_(client.double(2)) == 4
    assert fiberback.await_(client.double(3)) == 6

@pytest.mark.parametrize("run", [asyncio.run, fiberback.run])
@pytest.mark.parametrize(
    "use",
    [Client.signal, Client.later, Client.told, Client.heard, lambda client: client.double(4)],
)
@pytest.mark.parametrize("how", ["await", "await_", "in a task"])
def test_in_another_loop(client, run, use, how):
    async def main():
        if how == "await":
            await use(client)
        elif how == "await_":
            fiberback.await_(use(client))
        else:
            await asyncio.gather(asyncio.create_task(use(client), name="asks"))

    with pytest.raises(RuntimeError) as info:
        run(main())
    assert "[fiberback:runner-idle]" in str(info.value), info.value
    assert str(info.value).count("EventLoop running=") == 2
    assert "'asks'" in str(info.value) or how != "in a task"
    assert fiberback.await_(client.double(5)) == 10  # on its own loop it goes on

def test_each_time(client):
    # A suite's next test must not hang, whether or not the runner has run between them.
    async def main():
        for attempt in "12":
            with pytest.raises(RuntimeError, match="fiberback:runner-idle"):
                await client.told()

    for attempt in "12":
        asyncio.run(main())
    assert fiberback.await_(client.double(5)) == 10
    asyncio.run(main())
"""
)


def test_a_fixture_of_pytest(tmp_path):
    """The task that has asked is told, where nothing else could wake it: alone in its process."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "32 passed" in done.stdout


@pytest.fixture
def client(fb):
    scope = {}
    exec(CLIENT, scope)
    with fb.thread_runner():
        yield fb.await_(scope["Client"].open())


def test_a_loop_that_something_may_wake_is_warned(fb, client):
    """Here a timeout does, so nothing is raised."""

    async def main(use):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await use()

    with pytest.warns(RuntimeWarning) as caught:
        asyncio.run(main(lambda: client.double(4)))
        asyncio.run(main(client.told))
    for told in caught:
        says(told.message, "runner-idle", "fiberback.await_(…)")
    assert len(caught) == 2


@pytest.mark.parametrize("named", ["uvloop", "trio"])
def test_other_loops(fb, client, named):
    library = import_or_skip(named)

    async def main():
        asks = library.sleep(0) if named == "trio" else asyncio.create_task(client.double(4))
        if named == "trio":
            client.wanted.set()
            await asks
            await library.sleep(1)
            return
        await asyncio.sleep(1.2)
        asks.cancel()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if named == "trio":
            library.run(main)
        else:
            loop = library.new_event_loop()
            loop.run_until_complete(main())
            loop.close()
    told = [str(each.message) for each in caught]
    assert len(told) == (named == "uvloop"), told
    for each in told:
        says(each, "runner-idle", "uvloop.Loop")


@pytest.mark.filterwarnings("error")
def test_work_that_the_runner_comes_to_in_time(fb, client):
    """What ends a connection or a task of it is done when it runs next, as in asyncio."""

    async def main():
        for task in client.tasks:
            task.cancel()

    async def cancelled():
        await asyncio.sleep(0)
        return [task.cancelled() for task in client.tasks]

    asyncio.run(main())
    assert fb.await_(cancelled()) == [True, True]

    async def later():
        await asyncio.sleep(0.7)

    asyncio.run(later())


@pytest.mark.filterwarnings("error")
def test_a_timer_that_is_not_due(fb, client):
    """A client's keep-alive, say; what is asked for later, and sooner due, is told all the same."""

    async def main():
        client.tasks[0].get_loop().call_later(300, client.tasks[0].cancel)
        await asyncio.sleep(0.7)
        assert len(caught) == 0
        asks = asyncio.create_task(client.double(4))
        while len(caught) == 0:
            await asyncio.sleep(0.05)
        asks.cancel()

    with pytest.warns(RuntimeWarning) as caught:
        asyncio.run(main())
    assert len(caught) == 1
    says(caught[0].message, "runner-idle")


def test_a_loop_that_runs_is_as_it_was(fb):
    async def look():
        return set(vars(asyncio.get_running_loop()))

    with fb.thread_runner():
        before = fb.await_(look())
        loop = fb.await_(answer())
        assert set(vars(loop)) - before == {
            "call_soon",
            "call_soon_threadsafe",
            "call_at",
            "_add_reader",
            "_add_writer",
        }
        assert fb.await_(look()) == before
    assert set(vars(loop)) == before


async def answer():
    return asyncio.get_running_loop()
