"""`select`, `poll` and `selectors` in sync code."""

from __future__ import annotations

import select
import selectors
import socket
import time

import fiberback
import pytest
from servers import pair, together
from support import only_fiberback

pytestmark = only_fiberback

SELECTORS = [
    getattr(selectors, name)
    for name in ("SelectSelector", "PollSelector", "EpollSelector", "KqueueSelector")
    if hasattr(selectors, name)
]


@pytest.fixture(autouse=True)
def in_force():
    with fiberback.blocking.install("select", "sleep"):
        yield


def by_select(sock, timeout):
    return bool(select.select([sock], [], [], timeout)[0])


def by_poll(sock, timeout):
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


def by_selector(cls):
    def wait(sock, timeout):
        with cls() as selector:
            key = selector.register(sock, selectors.EVENT_READ, "data")
            found = selector.select(timeout)
            assert found in ([], [(key, selectors.EVENT_READ)])
            return bool(found)

    return wait


WAYS = [by_select, by_poll, *map(by_selector, SELECTORS)]


@pytest.mark.parametrize("wait", WAYS)
def test_until_there_is_something(backend, wait):
    def send():
        fiberback.await_(backend.sleep(0.001))
        theirs.send(b"x")

    for timeout in (None, 60):
        with pair() as (ours, theirs):
            assert together(backend, lambda: wait(ours, timeout), send) == [True, None]


@pytest.mark.parametrize("wait", WAYS)
def test_until_the_time_is_up(backend, wait):
    def check():
        assert not wait(ours, 0.001)
        assert not wait(ours, 0)
        theirs.send(b"x")
        assert wait(ours, 0) and wait(ours, 0.001) and wait(ours, None)

    with pair() as (ours, theirs):
        together(backend, check)


@pytest.mark.parametrize("wait", WAYS)
def test_many_wait_at_one_time(backend, wait):
    """For one and the same file, too: all of them are told."""

    def send():
        fiberback.await_(backend.sleep(0.001))
        theirs.send(b"x")

    with pair() as (ours, theirs):
        waits = [lambda: wait(ours, None)] * 20
        assert together(backend, *waits, send)[:-1] == [True] * 20


@pytest.mark.parametrize("wait", WAYS)
def test_cancelling(backend, wait):
    async def main():
        ended = []

        def block():
            try:
                wait(ours, None)
            except backend.Cancelled:
                ended.append(1)
                raise

        with pair() as (ours, _):
            async with backend.group() as group:
                handle = group.spawn(fiberback.with_portal_run_sync, block)
                await backend.sleep(0.001)
                handle.cancel()
        return ended

    assert backend.run(main) == [1]


def test_several_files_and_directions(backend):
    def check():
        with pair() as (ours, theirs), pair() as (more, _):
            ours.setblocking(False)
            try:
                while True:
                    ours.send(bytes(10_000))
            except BlockingIOError:
                pass
            found = select.select([more, ours], [ours.fileno()], [], 0.001)
            assert found == ([], [], [])
            assert select.select([theirs, more], [ours], [], 5) == ([theirs], [], [])
            assert select.select([more], [more], [more], None) == ([], [more], [])

    together(backend, check)


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="Linux has it")
def test_what_poll_alone_tells(backend):
    def wait():
        poll = select.poll()
        poll.register(ours, select.POLLRDHUP)
        return poll.poll(30_000)

    def end():
        fiberback.await_(backend.sleep(0.001))
        theirs.shutdown(socket.SHUT_WR)

    begin = time.monotonic()
    with pair() as (ours, theirs):
        assert together(backend, wait, end)[0] == [(ours.fileno(), select.POLLRDHUP)]
    assert time.monotonic() - begin < 30


def test_what_is_refused(backend):
    def check():
        closed = socket.socket()
        closed.close()
        with pytest.raises(ValueError):
            select.select([closed], [], [], 1)
        with pytest.raises(TypeError):
            select.select([], [], [], "1")
        poll = select.poll()
        with pytest.raises(TypeError):
            poll.poll("1")
        with pytest.raises(KeyError):
            poll.unregister(1000)
        with pytest.raises(OSError):
            poll.modify(1000, select.POLLIN)
        assert select.select([], [], [], 0.001) == ([], [], [])
        assert poll.poll(1) == []

    together(backend, check)


def test_outside_a_loop():
    with pair() as (ours, theirs):
        theirs.send(b"x")
        for wait in WAYS:
            assert wait(ours, None)
        assert type(select.poll()).__module__ == "select"
