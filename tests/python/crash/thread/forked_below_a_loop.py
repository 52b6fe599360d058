# expect-stdout: fine
"""A process forks below a loop, in every way and every place: in the child `await_` works as in a process
without a loop, and the parent's tasks and callbacks run in the parent only."""

import asyncio
import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings

import fiberback

warnings.simplefilter("ignore", DeprecationWarning)
SECONDS = 60  # until a child counts as one that hangs
PARENT = os.getpid()
fork = multiprocessing.get_context("fork")


async def seven():
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    task = asyncio.create_task(asyncio.sleep(0.001, 7))
    return await task


async def waits(n):
    return await fiberback.with_portal_run_sync(fiberback.await_, asyncio.sleep(0.001, n))


def child():
    """What is to work in a child."""
    assert os.getpid() != PARENT
    assert not fiberback.has_portal()
    assert fiberback.can_await()
    fiberback.await_(asyncio.sleep(0))  # that only yields
    assert fiberback.await_(seven()) == 7
    with fiberback.thread_runner():
        assert fiberback.await_(seven()) == 7
    for run in (asyncio.run, fiberback.run):
        assert run(waits(3)) == 3
    assert fiberback.await_(asyncio.to_thread(fiberback.await_, seven())) == 7
    results = []
    thread = threading.Thread(target=lambda: results.append(fiberback.await_(seven())))
    thread.start()
    thread.join()
    assert results == [7]
    if LOOP is not None:
        future = FUTURES[0]
        try:
            fiberback.await_(future)
        except RuntimeError as error:
            assert "idle-loop" in str(error) or "not running" in str(error), error
        else:
            raise AssertionError("nobody runs the parent's loop")
    for _ in range(3):
        assert fiberback.await_(seven()) == 7
    return 7


def nested_child():
    child()
    os_fork()
    return child()


def os_fork(what=child):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            what()
            code = 0
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def os_fork_twice():
    os_fork(nested_child)


def os_fork_in_call_masked():
    fiberback._fiberback.call_masked(os_fork)


def process():
    # Not by its exit code: forked in a pool's thread, it joins that thread, itself, in the end.
    answer, told = fork.Pipe(False)
    process = fork.Process(target=lambda: told.send(child()))
    process.start()
    assert answer.poll(SECONDS) and answer.recv() == 7
    process.join(SECONDS)


def process_pool():
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=fork) as pool:
        assert pool.submit(child).result(SECONDS) == 7


def preexec():
    subprocess.run([sys.executable, "-c", ""], preexec_fn=child, check=True, timeout=SECONDS)


WAYS = (os_fork, os_fork_twice, os_fork_in_call_masked, process, process_pool, preexec)
LOOP, FUTURES = None, []


def still_waits():
    """The parent's caller goes on as before."""
    if os.getpid() == PARENT:
        assert fiberback.await_(asyncio.sleep(0.001, 5)) == 5


def around(way):
    still_waits()
    way()
    still_waits()
    return True


async def in_task(way):
    assert around(way)


async def in_scope(way):
    assert await fiberback.with_portal_run_sync(around, way)


async def in_coroutine(way):
    way()
    await asyncio.sleep(0)


async def in_callback(way):
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def callback():
        try:
            done.set_result(around(way))
        except BaseException as error:
            done.set_exception(error)

    loop.call_soon(callback)
    assert await done


async def in_to_thread(way):
    assert await asyncio.to_thread(around, way)


async def in_our_to_thread(way):
    assert await fiberback.to_thread(around, way)


async def in_executor(way):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert await asyncio.get_running_loop().run_in_executor(pool, around, way)


async def in_told_thread(way):
    loop = asyncio.get_running_loop()

    def work():
        with fiberback.parent_loop(loop):
            return around(way)

    assert await in_thread(work)


async def in_runner_thread(way):
    assert await in_thread(functools.partial(around, way))


async def in_thread(work):
    future = concurrent.futures.Future()

    def run():
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run).start()
    while not future.done():
        await asyncio.sleep(0.002)
    return future.result()


async def in_anyio_thread(way):
    with contextlib.suppress(ImportError):
        import anyio.to_thread

        assert await anyio.to_thread.run_sync(around, way)


PLACES = (
    in_task,
    in_scope,
    in_coroutine,
    in_callback,
    in_to_thread,
    in_our_to_thread,
    in_executor,
    in_told_thread,
    in_runner_thread,
    in_anyio_thread,
)


async def main(way):
    global LOOP
    LOOP = asyncio.get_running_loop()
    FUTURES[:] = [LOOP.create_future()]
    stop = asyncio.Event()

    async def other():
        while not stop.is_set():
            assert os.getpid() == PARENT, "the parent's tasks run in the child"
            await asyncio.sleep(0.001)

    others = [asyncio.create_task(other()) for _ in range(3)]
    is_uvloop = (
        "uvloop" in type(LOOP).__module__
    )  # whose callbacks cannot await in the parent either
    for place in PLACES:
        if is_uvloop and place is in_callback:
            continue
        await asyncio.create_task(place(way))
    stop.set()
    await asyncio.gather(*others)


def enabled(main):
    with asyncio.Runner() as runner, fiberback.enable(runner.get_loop()):
        runner.run(main)


def everywhere(main):
    with fiberback.enable(everywhere=True):
        asyncio.run(main)


def in_the_runner_itself():
    """Forks in code that the thread's own runner runs."""
    for way in WAYS:
        fiberback.await_(in_task(way))
        fiberback.await_(in_coroutine(way))
        around(way)


if __name__ == "__main__":
    runs = [asyncio.run, fiberback.run, enabled, everywhere]
    with contextlib.suppress(ImportError):
        import uvloop

        runs.append(functools.partial(fiberback.run, loop_factory=uvloop.new_event_loop))
    for run in runs:
        for way in WAYS:
            run(main(way))
    LOOP = None
    in_the_runner_itself()
    print("fine")
