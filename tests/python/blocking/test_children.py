"""Child processes and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import fiberback
import pytest
from servers import together
from support import only_fiberback

pytestmark = only_fiberback


@pytest.fixture(autouse=True)
def in_force():
    with fiberback.blocking.install():
        yield


def test_children_that_need_each_other(backend):
    """The input of the first one ends when the second one has answered."""

    def wait():
        code = child.wait()
        return code, child.stdout.read()

    def answer():
        done = subprocess.run(["cat"], input=b"hello", capture_output=True, check=True)
        child.stdin.write(done.stdout)
        child.stdin.close()

    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert together(backend, wait, answer)[0] == (0, b"hello")


def test_communicate(backend):
    def talk(data):
        # With several pipes, and with one, which Python reads as a file.
        done = subprocess.run(["cat"], input=data, capture_output=True, check=True)
        assert done.stdout == data
        assert subprocess.check_output(["echo", "x"], text=True) == "x\n"
        with pytest.raises(subprocess.CalledProcessError):
            subprocess.check_call(["false"])
        return len(done.stdout)

    data = bytes(300_000)
    assert together(backend, *[lambda: talk(data)] * 3) == [len(data)] * 3


def test_timeouts(backend):
    def check():
        with subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE) as child:
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.001)
            with pytest.raises(subprocess.TimeoutExpired):
                child.communicate(timeout=0.001)
            assert child.poll() is None
            child.kill()
            assert child.wait() == -signal.SIGKILL

    together(backend, check)


def test_cancelling(backend):
    async def main():
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
            async with backend.group() as group:
                handle = group.spawn(fiberback.with_portal_run_sync, child.wait)
                await backend.sleep(0.001)
                handle.cancel()
            assert child.returncode is None
            child.stdin.close()
            return await fiberback.with_portal_run_sync(child.wait)

    assert backend.run(main) == 0


@pytest.mark.parametrize("with_file", [True, False])
def test_waitpid(backend, monkeypatch, with_file):
    if not with_file:
        monkeypatch.delattr(os, "pidfd_open", raising=False)

    def check():
        ours, theirs = os.pipe()
        pid = os.posix_spawnp(
            "cat", ["cat"], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, ours, 0)]
        )
        os.close(ours)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        found = together_inside(lambda: os.waitpid(pid, 0), lambda: os.close(theirs))
        assert found == (pid, 0)
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)

    def together_inside(wait, end):
        ended = []

        async def end_soon():
            await backend.sleep(0.001)
            end()
            ended.append(1)

        async def both():
            async with backend.group() as group:
                group.spawn(end_soon)
                found = await fiberback.with_portal_run_sync(wait)
            assert ended
            return found

        return fiberback.await_(both())

    together(backend, check)


def test_signals(backend):
    wanted = [signal.SIGUSR2]

    def receive():
        found = [signal.sigwait(wanted), signal.sigwaitinfo(wanted).si_signo]
        found.append(signal.sigtimedwait(wanted, 60).si_signo)
        assert signal.sigtimedwait(wanted, 0) is None
        assert signal.sigtimedwait(wanted, 0.001) is None
        with pytest.raises(ValueError):
            signal.sigtimedwait(wanted, -1)
        done.append(1)
        return found

    def send():
        while not done:
            if not signal.sigpending():
                signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)  # others would die of it
                sent.append(1)
            fiberback.await_(backend.sleep(0))
            if len(sent) == 3:
                return

    done, sent = [], []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    try:
        found = together(backend, receive, send)
    finally:
        while signal.sigtimedwait(wanted, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert found[0] == [signal.SIGUSR2] * 3
