"""`fiberback.gevent`: gevent's greenlets and asyncio's tasks in one thread, with greenlet and with ours.

Each in a process of its own: gevent has one hub per thread, and patches what it finds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import sdists
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

COMMON = """
import sys
if sys.argv[1] == "ours":
    import fiberback.greenlet
    fiberback.greenlet.install()
import asyncio, contextvars, gevent, fiberback
import gevent.event, gevent.lock, gevent.queue, gevent.socket
import fiberback.gevent
from fiberback import await_
from fiberback.gevent import async_to_sync, future_to_greenlet, greenlet_to_future, sync_to_async

ticks = []


async def tick():
    while True:
        ticks.append(1)
        await asyncio.sleep(0.001)


def sleep_until_ticks():
    # It never ends if the loop does not go on meanwhile.
    while len(ticks) <= 5:
        gevent.sleep(0.002)


def deep(call, frames=20):
    return deep(call, frames - 1) if frames else call()
"""

# How a program begins: its loop drives the hub, or runs in a greenlet of gevent's.
WAYS = {
    "asyncio first": "\nfiberback.gevent.run(main())\n",
    "gevent first": "\nwith asyncio.Runner(loop_factory=fiberback.gevent.EventLoop) as it: it.run(main())\n",
}


def run(text, *arguments, common=COMMON):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", common + text, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.fixture(params=["ours", "greenlet"])
def kind(request):
    import_or_skip("gevent")
    import_or_skip("greenlet")
    return request.param


@pytest.fixture(params=list(WAYS))
def way(request):
    return request.param


@pytest.fixture
def script(way, kind):
    return lambda text: run(textwrap.dedent(text) + WAYS[way], kind)


def test_a_sleep_has_one_task_wait(script):
    said = script("""
        started = []

        async def sleeps(number):
            started.append(number)
            deep(sleep_until_ticks)
            return number, list(started)

        async def main():
            ticking = asyncio.ensure_future(tick())
            for found in await asyncio.gather(*(sleeps(number) for number in range(3))):
                print(*found)
            ticking.cancel()
    """)
    assert said == [f"{number} [0, 1, 2]" for number in range(3)]


def test_greenlets_and_tasks_wait_for_each_other(script):
    said = script("""
        event, queue, lock = gevent.event.Event(), gevent.queue.Queue(), gevent.lock.Semaphore()

        async def task():
            with lock:
                event.wait()
                return deep(queue.get)

        def green():
            asked = asyncio.ensure_future(asyncio.sleep(0.001, "a future"))
            return async_to_sync(asyncio.sleep)(0.001, "a task"), future_to_greenlet_now(asked)

        def future_to_greenlet_now(future):
            greenlet = future_to_greenlet(future)
            greenlet.start()
            return greenlet.get()

        async def main():
            waits = asyncio.ensure_future(task())
            await asyncio.sleep(0.001)
            gevent.spawn_later(0.001, lambda: (event.set(), queue.put("put")))
            print(await waits)
            print(*await greenlet_to_future(gevent.spawn(green)))
            print(await sync_to_async(lambda it: gevent.sleep(0.001) or it)("called"))
            one, other = gevent.socket.socketpair()
            reader = gevent.spawn(one.recv, 10)
            gevent.sleep(0)
            other.send(b"sent")
            print(reader.get())
            one.close(), other.close()
    """)
    assert said == [
        "put",
        "a task a future",
        "called",
        "b'sent'",
    ]


def test_await_in_a_task(script):
    said = script("""
        async def main():
            gevent.sleep(0.001)
            print(deep(lambda: await_(asyncio.sleep(0.001, "awaited"))))
            gevent.sleep(0.001)
    """)
    assert said == ["awaited"]


def test_on_uvloop(kind):
    import_or_skip("uvloop")
    said = run(
        textwrap.dedent("""
        import uvloop

        async def task():
            sleep_until_ticks()
            return await_(asyncio.sleep(0.001, True))

        async def main():
            fiberback.gevent.enable()
            ticking = asyncio.ensure_future(tick())
            print(await asyncio.ensure_future(task()))
            ticking.cancel()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as it: it.run(main())
        """),
        kind,
    )
    assert said == ["True"]


FACTORIES = {
    "of somebody's": "loop.set_task_factory(somebodys); fiberback.gevent.enable()",
    "set later": "fiberback.gevent.enable(); loop.set_task_factory(somebodys)",
    "taken off": "loop.set_task_factory(somebodys); fiberback.gevent.enable(); loop.set_task_factory(None); made.extend('12')",
    "of fiberback.enable": "loop.set_task_factory(somebodys); fiberback.enable(); fiberback.gevent.enable()",
    "of fiberback.enable, later": "fiberback.gevent.enable(); fiberback.enable(); loop.set_task_factory(somebodys)",
    "eager": "loop.set_task_factory(asyncio.eager_task_factory); fiberback.gevent.enable(); made.extend('12')",
    "twice": "loop.set_task_factory(somebodys); fiberback.gevent.enable(); fiberback.gevent.enable()",
}


@pytest.mark.parametrize("factory", FACTORIES)
def test_whoever_makes_the_tasks(kind, factory):
    """A task factory of others', whenever it is set, makes the tasks; and several wait for gevent at once."""
    if factory == "eager" and sys.version_info < (3, 12):
        pytest.skip("eager tasks are 3.12's")
    said = run(
        textwrap.dedent("""
        made, started = [], []

        def somebodys(loop, coroutine, **named):
            made.append(coroutine)
            return asyncio.Task(coroutine, loop=loop, **named)

        async def task(number):
            started.append(number)
            deep(sleep_until_ticks)
            return number, list(started), await_(asyncio.sleep(0.001, "awaited"))

        async def main():
            loop = asyncio.get_running_loop()
            FACTORY
            ticking = asyncio.ensure_future(tick())
            for found in await asyncio.gather(*(asyncio.create_task(task(it)) for it in range(3))):
                print(*found)
            print(len(made) >= 2)
            ticking.cancel()
            try:
                loop.create_task(5)
            except TypeError as error:
                print(error)

        asyncio.run(main())
        """).replace("FACTORY", FACTORIES[factory]),
        kind,
    )
    assert said[:4] == [f"{number} [0, 1, 2] awaited" for number in range(3)] + ["True"]
    assert said[4].startswith("a coroutine was expected")


def test_what_is_patched_has_a_task_wait(kind, way):
    """`monkey.patch_all()`: urllib, locks, queues, processes and threads in tasks, against a server of the loop's."""
    patched = COMMON.replace(
        "import asyncio,", "from gevent import monkey; monkey.patch_all()\nimport asyncio,"
    )
    assert patched != COMMON
    said = run(
        textwrap.dedent("""
        import queue, subprocess, threading, urllib.request

        waiting = []

        async def serve(reader, writer):
            # No answer before all of them have asked.
            await reader.readuntil(b"\\r\\n\\r\\n")
            event = asyncio.Event()
            waiting.append(event)
            if len(waiting) == 3:
                for each in waiting:
                    each.set()
                waiting.clear()
            await event.wait()
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nhi")
            await writer.drain()
            writer.close()

        def get(port):
            return deep(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/").read())

        async def task(port):
            return get(port)

        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            print(*await asyncio.gather(*(asyncio.create_task(task(port)) for _ in range(3))))
            greenlets = [gevent.spawn(get, port) for _ in range(3)]
            print(*[await greenlet_to_future(greenlet) for greenlet in greenlets])
            event, put = threading.Event(), queue.Queue()
            gevent.spawn_later(0.001, lambda: (event.set(), put.put("put")))
            print(event.wait(), put.get())
            print(await asyncio.to_thread(lambda: "a thread"))
            print(subprocess.check_output(["echo", "a process"]))
            server.close()
        """)
        + WAYS[way],
        kind,
        common=patched,
    )
    assert said == [
        "b'hi' b'hi' b'hi'",
        "b'hi' b'hi' b'hi'",
        "True put",
        "a thread",
        "b'a process\\n'",
    ]


def test_errors_timeouts_and_cancellation(script):
    said = script("""
        async def fails():
            raise KeyError("task")

        def fails_too():
            raise KeyError("greenlet")

        async def sleeps(said):
            try:
                gevent.sleep(60)
            finally:
                said.append("unwound")

        def green(said):
            try:
                gevent.sleep(60)
            finally:
                said.append("killed")

        async def main():
            gevent.get_hub().exception_stream = None
            try:
                async_to_sync(fails)()
            except KeyError as error:
                print(error)
            try:
                await greenlet_to_future(gevent.spawn(fails_too))
            except KeyError as error:
                print(error)
            for wait in (gevent.sleep, lambda seconds: await_in_task(seconds)):
                try:
                    with gevent.Timeout(0.005):
                        result = wait(60)
                        if result is not None:
                            await result
                except gevent.Timeout:
                    print("timeout", asyncio.current_task().cancelling())
            said = []
            task = asyncio.ensure_future(sleeps(said))
            await asyncio.sleep(0.002)
            task.cancel()
            print(*await asyncio.gather(task, return_exceptions=True), said)
            future = greenlet_to_future(gevent.spawn(green, said))
            await asyncio.sleep(0.002)
            future.cancel()
            await asyncio.wait([future])
            gevent.sleep(0.002)
            print(future.cancelled(), said)
            waited = asyncio.get_running_loop().create_future()
            greenlet = future_to_greenlet(waited)
            greenlet.start()
            gevent.sleep(0.002)
            greenlet.kill()
            await asyncio.sleep(0)
            print(waited.cancelled(), repr(greenlet.value))

        def await_in_task(seconds):
            return asyncio.sleep(seconds)
    """)
    assert said == [
        "'task'",
        "'greenlet'",
        "timeout 0",
        "timeout 0",
        " ['unwound']",
        "True ['unwound', 'killed']",
        "True GreenletExit()",
    ]


def test_a_tasks_context_is_its_own(script):
    said = script("""
        variable = contextvars.ContextVar("variable")

        async def task(value):
            variable.set(value)
            gevent.sleep(0.001)
            await asyncio.sleep(0)
            return variable.get(), asyncio.current_task().get_name() == value

        async def main():
            tasks = [asyncio.create_task(task(value), name=value) for value in "abc"]
            print(*await asyncio.gather(*tasks))
    """)
    assert said == ["('a', True) ('b', True) ('c', True)"]


def test_without_a_greenlet_of_its_own_one_waits(kind):
    said = run(
        textwrap.dedent("""
        async def plain():
            ticking = asyncio.ensure_future(tick())
            sleep_until_ticks()
            print("plain")
            ticking.cancel()

        def callback():
            gevent.sleep(0.01)
            print("callback")

        async def two():
            loop = asyncio.get_running_loop()
            errors = []
            loop.set_exception_handler(lambda _, context: errors.append(str(context["exception"])))
            loop.call_soon(callback)
            loop.call_soon(callback)
            await asyncio.sleep(0.03)
            print("[fiberback:gevent-second-waiter]" in errors[0], len(errors))

        asyncio.run(plain())
        gevent.sleep(0.001)  # the hub goes on by itself where no loop runs
        asyncio.run(two())
        print(gevent.spawn(lambda: gevent.sleep(0.001) or "after").get())
        """),
        kind,
    )
    assert said == ["plain", "callback", "True 1", "after"]


def test_what_the_hub_was_to_do_is_done_by_the_loop(kind):
    """Timers that were begun before a loop drives the hub, repeated ones, and waits in greenlets."""
    said = run(
        textwrap.dedent("""
        gevent.sleep(0)
        before = gevent.spawn_later(0.01, lambda: "before")
        gevent.spawn_later(1_000_000, print)
        fired = []
        timer = gevent.get_hub().loop.timer(0.001, 0.001)

        async def main():
            print(gevent.spawn(lambda: await_(asyncio.sleep(0.001, "awaited in a greenlet"))).get())
            timer.start(lambda: fired.append(1))
            print(before.get())
            while len(fired) < 3:
                await asyncio.sleep(0.001)
            timer.stop(), timer.close()
            print("fired")

        fiberback.gevent.run(main())
        """),
        kind,
    )
    assert said == ["awaited in a greenlet", "before", "fired"]


def test_a_hub_that_was_there_before_is_driven(kind):
    before = COMMON.replace(
        "import fiberback.gevent\n",
        "early = gevent.spawn(lambda: sleep_until_ticks() or 'early')\nimport fiberback.gevent\n",
    )
    assert before != COMMON
    said = run(
        textwrap.dedent("""
        async def main():
            ticking = asyncio.ensure_future(tick())
            print(early.get())
            ticking.cancel()

        fiberback.gevent.run(main())
        """),
        kind,
        common=before,
    )
    assert said == ["early"]


def test_what_the_hub_has_woken_goes_on_at_once(script):
    """A queue's `get()` is the next to look at the queue, or there is nothing in it for the second one."""
    said = script("""
        queue = gevent.queue.Queue()

        async def gets():
            return queue.get()

        async def main():
            getters = [asyncio.ensure_future(gets()) for _ in range(10)]
            await asyncio.sleep(0.001)
            for number in range(10):
                queue.put(number)
                gevent.sleep(0)
            print(sorted(await asyncio.gather(*getters)) == list(range(10)))
    """)
    assert said == ["True"]


def test_what_cannot_be_done_is_refused(kind, monkeypatch):
    refused = """
        async def main():
            coroutine = main()
            try:
                future_to_greenlet(coroutine, autostart_future=False)
            except TypeError as error:
                print("[fiberback:gevent-no-future]" in str(error))
            coroutine.close()
            mine = gevent.getcurrent()
            said = []
            asyncio.get_running_loop().call_soon(lambda: said.append(refusal(mine)))
            await asyncio.sleep(0.001)
            print("[fiberback:gevent-awaits]" in said[0])

        def refusal(greenlet):
            try:
                greenlet.switch()
            except RuntimeError as error:
                return str(error)

        fiberback.gevent.run(main())
    """
    assert run(textwrap.dedent(refused), kind) == ["True", "True"]
    monkeypatch.setenv("GEVENT_BACKEND", "select")
    backend = """
        async def main():
            try:
                fiberback.gevent.enable()
            except RuntimeError as error:
                print("[fiberback:gevent-backend]" in str(error))

        asyncio.run(main())
    """
    assert run(textwrap.dedent(backend), kind) == ["True"]


@pytest.mark.slow
def test_asyncio_gevents_own_tests(kind, tmp_path):
    import_or_skip("gevent")
    source = sdists.unpack("asyncio_gevent", "0.2.5", tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    (source / "tests" / "test_asyncio_on_gevent.py").rename(folder / "test_asyncio_on_gevent.py")
    text = "from fiberback.gevent import *\nfrom fiberback.gevent import EventLoopPolicy\n"
    if kind == "ours":
        text = f"import fiberback.greenlet\nfiberback.greenlet.install()\n{text}"
        (folder / "conftest.py").write_text(text.rsplit("from fiberback.gevent import *")[0])
    (folder / "asyncio_gevent.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
