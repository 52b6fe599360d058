"""Native extensions that wait below Python code: the crate fiberback-pyo3 and the C API."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import pathlib
import random
import subprocess
import sys
import threading

import extensions
import fiberback
import pytest
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


@pytest.fixture(scope="module")
def file():
    return extensions.store_extension_file("checks")


@pytest.fixture(scope="module")
def extension(file):
    return extensions.load("store_extension", file)


async def token():
    await asyncio.sleep(0)
    return "token"


def on_trio(main, *arguments):
    trio = import_or_skip("trio")

    async def with_portals():
        return await fiberback.with_portal_run_tree(main, *arguments)

    return trio.run(with_portals)


# A plain loop, where callers are parked, and loops whose tasks have portals.
LOOPS = {
    "asyncio": lambda main: asyncio.run(main()),
    "fiberback.run": lambda main: fiberback.run(main()),
    "uvloop": lambda main: fiberback.run(
        main(), loop_factory=import_or_skip("uvloop").new_event_loop
    ),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_thousand_tasks_overlap_on_one_thread(extension, loop):
    """Nobody gets a token before all have asked for one; each then waits in tokio."""
    count, threads = 1000, set()

    async def main():
        asked, everybody = 0, asyncio.Event()

        async def when_all_have_asked():
            nonlocal asked
            asked += 1
            if asked == 2 * count:
                everybody.set()
            if asked > count:
                await everybody.wait()
            return "token"

        store = extension.Store(when_all_have_asked, 0.001)

        def deep(depth, function, *arguments):
            threads.add(threading.get_ident())
            if depth:
                return deep(depth - 1, function, *arguments)
            return function(*arguments)

        async def put(number):
            deep(5, store.put, f"object {number}", f"{number}".encode())

        async def get(number):
            return deep(5, store.get, f"object {number}")

        await asyncio.gather(*map(put, range(count)))
        assert store.in_progress == 0
        return await asyncio.gather(*map(get, range(count)))

    assert LOOPS[loop](main) == [f"{number}".encode() for number in range(count)]
    assert threads == {threading.get_ident()}


def test_the_loop_goes_on_while_a_rust_future_waits(extension):
    async def main():
        turns = 0

        async def tick():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.ensure_future(tick())
        for _ in range(20):  # once would do, but on a machine that is very busy
            assert extension.pause(0.1, "me") == "me"
            if turns > 5:
                break
        ticking.cancel()
        return turns

    assert asyncio.run(main()) > 5
    assert fiberback.run(main()) > 5


def test_on_trio(extension):
    trio = import_or_skip("trio")

    async def main():
        async def trios_token():
            await trio.sleep(0)
            return "token"

        store = extension.Store(trios_token, 0.001)
        store.put("a", b"b")
        got = []

        async def get():
            got.append(store.get("a"))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(get)
        with trio.move_on_after(0.01) as scope:
            extension.pause(1000)
        assert scope.cancelled_caught
        return got

    assert on_trio(main) == [b"b"] * 50


def test_in_threads_and_without_a_loop(extension):
    store = extension.Store(token, 0.001)
    store.put("a", b"b")
    assert store.get("a") == b"b"

    async def main():
        return await asyncio.gather(*(asyncio.to_thread(store.get, "a") for _ in range(5)))

    assert asyncio.run(main()) == [b"b"] * 5


@pytest.mark.parametrize("loop", LOOPS)
def test_a_cancelled_task_drops_the_future(extension, loop):
    async def main():
        store = extension.Store(token, 1000)

        async def get():
            store.get("a")

        tasks = [asyncio.ensure_future(get()) for _ in range(10)]
        while store.in_progress < 10:
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(result, asyncio.CancelledError)
            for result in await asyncio.gather(*tasks, return_exceptions=True)
        )
        assert store.in_progress == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                extension.pause(1000)

    LOOPS[loop](main)


@pytest.mark.parametrize("loop", LOOPS)
def test_errors_pass_with_their_traceback(extension, loop):
    async def refuses():
        await asyncio.sleep(0)
        raise PermissionError("no")

    async def main():
        with pytest.raises(PermissionError, match="no") as caught:
            extension.Store(refuses, 0).get("a")
        assert caught.traceback[-1].name == "refuses"
        with pytest.raises(KeyError, match="a"):
            extension.Store(token, 0).get("a")
        with pytest.raises(TypeError, match="await"):
            extension.Store(lambda: 1, 0).get("a")

    LOOPS[loop](main)


@pytest.mark.parametrize("loop", LOOPS)
def test_callbacks_wait_and_call_the_extension_again(extension, loop):
    async def main():
        store = extension.Store(token, 0.001)
        for name in "abc":
            store.put(name, name.encode())

        def each(path, content):
            fiberback.await_(asyncio.sleep(0.001))
            return store.get(path) + content

        async def mapped():
            return store.map(each)

        return await asyncio.gather(*(mapped() for _ in range(50)))

    assert LOOPS[loop](main) == [[b"aa", b"bb", b"cc"]] * 50


@pytest.mark.parametrize("loop", LOOPS)
def test_a_future_that_wakes_itself_leaves_the_loop_its_turns(extension, loop):
    async def main():
        turns, done = 0, False

        async def tick():
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        ticking = asyncio.ensure_future(tick())
        assert extension.wake_itself(100) == 101
        done = True
        await ticking
        return turns

    assert LOOPS[loop](main) >= 100


@pytest.mark.parametrize("loop", LOOPS)
def test_a_panic_passes(extension, loop, capfd):
    async def main():
        with pytest.raises(BaseException, match="on purpose") as caught:
            extension.panic_after_a_wait()
        assert type(caught.value).__name__ == "PanicException"
        assert extension.pause(0.001) == "nobody"

    LOOPS[loop](main)
    assert "on purpose" in capfd.readouterr().err


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "a literal"),
        ("no such \N{SAUROPOD} %s {text}", "no such \N{SAUROPOD} %s {text}"),
        (None, "a panic without a message"),
    ],
)
def test_a_panic_of_the_native_module_is_an_exception(extension, text, said, capfd):
    """Its barrier alone, from its source: each of its panics says that something cannot be."""
    with pytest.raises(SystemError) as caught:
        extension.panic_at_the_barrier(text)
    says(caught.value, "internal-error", f"internal error: {said}", "report it, with the traceback")
    assert "panicked at" in capfd.readouterr().err  # where it was


@pytest.mark.parametrize("loop", LOOPS)
def test_pyo3_counts_right_whatever_overlaps(extension, file, loop):
    """Calls of all kinds suspended in turns, and ended in another order than they began.

    PyO3 then believes of the thread what is true: where it was detached (as by ctypes), it attaches.
    """
    attaches = ctypes.CDLL(str(file)).store_extension_attaches
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chosen = random.Random(seed)
    calls = [extension.call_apart, extension.call_detached]

    async def main():
        wrong = 0

        def waits(depth):
            nonlocal wrong
            for _ in range(chosen.randrange(4)):
                fiberback.await_(asyncio.sleep(chosen.choice((0, 0, 0.0005))))
                wrong += attaches() != 1
            if depth:
                chosen.choice(calls)(lambda: waits(depth - 1))
                extension.pause(0)
            wrong += attaches() != 1

        async def task():
            chosen.choice(calls)(lambda: waits(chosen.randrange(4)))

        for _ in range(20):
            await asyncio.gather(*(task() for _ in range(10)))
        return wrong

    assert LOOPS[loop](main) == 0
    assert attaches() == 1


def test_a_plain_call_would_not(file):
    """What the crate's own calls are for: this is how the test above can fail."""
    # 0: PyO3 believed to be attached, and was not.
    code = f"""
import asyncio, ctypes, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import extensions, fiberback, pathlib
extension = extensions.load("store_extension", pathlib.Path({str(file)!r}))
attaches = ctypes.CDLL({str(file)!r}).store_extension_attaches

async def main(call):
    async def suspended():
        call(lambda: fiberback.await_(asyncio.sleep(0.001)))
    task = asyncio.ensure_future(suspended())
    await asyncio.sleep(0)
    found = attaches()
    await task
    return found

print(fiberback.run(main(extension.call_plainly)), fiberback.run(main(extension.call_apart)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("0 1\n", 0), done.stderr


def test_a_forked_child_has_a_runtime_of_its_own(file):
    code = f"""
import asyncio, os, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import extensions, fiberback, pathlib
extension = extensions.load("store_extension", pathlib.Path({str(file)!r}))
assert extension.pause(0.001) == "nobody"
child = os.fork()
found = extension.pause(0.001)
if child == 0:
    os._exit(0 if found == "nobody" else 7)
assert os.waitpid(child, 0)[1] == 0
print("parent", found)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "parent nobody\n"


def test_the_interpreter_ends_while_futures_are_pending(file):
    """Suspended, then cancelled by the loop's end or not; tokio's timers come due meanwhile and later."""
    code = f"""
import asyncio, random, sys, threading
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import extensions, fiberback, pathlib
extension = extensions.load("store_extension", pathlib.Path({str(file)!r}))

async def main():
    def pause(seconds):
        extension.pause(seconds)
    for number in range(100):
        asyncio.ensure_future(fiberback.with_portal_run_sync(pause, number / 1000))
    await asyncio.sleep(0.02)

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
for _ in range(5):
    threading.Thread(target=extension.pause, args=(0.03,), daemon=True).start()
print("end", flush=True)
"""
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
        )
        assert (done.stdout, done.returncode) == ("end\n", 0), done.stderr


@pytest.mark.parametrize("way", ["wakes", "calls", "awaits", "begins to wait"])
def test_threads_that_the_exit_ends_stay(file, way):
    """A thread that wants the GIL while the interpreter exits is ended there, until 3.13 by unwinding its
    stack: a tokio thread in the loop's method that a waker calls, daemon threads in what an extension calls."""
    code = f"""
import asyncio, os, sys, threading, time
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import extensions, fiberback, pathlib
from fiberback._loop import external_event
extension = extensions.load("store_extension", pathlib.Path({str(file)!r}))
begun = threading.Event()

def stay():
    begun.set()
    time.sleep(0.2)

class Awaitable:
    def __await__(self):
        stay()
        yield

class Loop(asyncio.SelectorEventLoop):
    def call_soon_threadsafe(self, *arguments, **keywords):
        if threading.current_thread() is not threading.main_thread():
            stay()
        return super().call_soon_threadsafe(*arguments, **keywords)

class Exit:
    def __del__(self, sleep=time.sleep, write=os.write):
        sleep(0.6)
        write(1, b"end\\n")

async def main():
    asyncio.ensure_future(fiberback.with_portal_run_sync(extension.pause, 0.01))
    await asyncio.sleep(0)

way = {way!r}
if way == "wakes":
    loop = Loop()
    loop.run_until_complete(main())
else:
    function = lambda: fiberback.await_(Awaitable())
    if way == "calls":
        function = lambda: extension.call_apart(stay)
    elif way == "begins to wait":
        external_event.ExternalEvent.__init__ = lambda self: stay()
        function = lambda: extension.pause(0.01)
    threading.Thread(target=function, daemon=True).start()
assert begun.wait(30)
sys.exit_takes_its_time = Exit()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("end\n", 0), done.stderr


def test_without_fiberback_it_says_what_to_install(file):
    code = f"""
import importlib.machinery, importlib.util, sys
sys.modules["fiberback"] = None
loader = importlib.machinery.ExtensionFileLoader("store_extension", {str(file)!r})
spec = importlib.util.spec_from_file_location("store_extension", {str(file)!r}, loader=loader)
extension = importlib.util.module_from_spec(spec)
loader.exec_module(extension)
try:
    extension.pause(0.001)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    says(done.stdout, "extension-alone", "pip install fiberback")


def test_with_another_fiberback_it_says_what_to_build(file, tmp_path):
    source = pathlib.Path(__file__).with_name("waits_in_c.c")
    in_c = extensions.compile_c("waits_in_c", source, tmp_path)
    code = f"""
import ctypes, importlib.machinery, importlib.util, sys
import fiberback

# Two numbers, the version and the size, begin what the capsule of every version points to.
api = (ctypes.c_uint32 * 64)(99, 256)
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
fiberback._C_API = new(ctypes.addressof(api), b"fiberback._C_API", None)

def load(name, file):
    loader = importlib.machinery.ExtensionFileLoader(name, file)
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    extension = importlib.util.module_from_spec(spec)
    loader.exec_module(extension)
    return extension

for attempt in (
    lambda: load("waits_in_c", {str(in_c)!r}),
    lambda: load("store_extension", {str(file)!r}).pause(0.001),
):
    try:
        attempt()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    for said in done.stdout.splitlines():
        says(said, "extension-version", "version 99")


@pytest.fixture(scope="module")
def waits_in_c(tmp_path_factory):
    folder = tmp_path_factory.mktemp("waits_in_c")
    source = pathlib.Path(__file__).with_name("waits_in_c.c")
    return extensions.load("waits_in_c", extensions.compile_c("waits_in_c", source, folder))


@pytest.mark.parametrize("loop", LOOPS)
def test_from_c(waits_in_c, loop):
    async def answer(number):
        await asyncio.sleep(0.001)
        return number

    async def fails():
        await asyncio.sleep(0)
        raise KeyError("c")

    async def main():
        async def task(number):
            return waits_in_c.wait_for(answer(number))

        assert await asyncio.gather(*map(task, range(100))) == list(range(100))
        with pytest.raises(KeyError, match="c"):
            waits_in_c.wait_for(fails())
        event = waits_in_c.event()
        threading.Timer(0.01, event.set).start()
        waits_in_c.wait_for(event.wait())
        assert repr(event) == "<ExternalEvent set>"

    LOOPS[loop](main)


@pytest.mark.filterwarnings("error")
def test_from_c_while_an_exception_is_raised(waits_in_c):
    async def main():
        await fiberback.ensure_portal()
        future = asyncio.get_running_loop().create_future()
        with pytest.raises(RuntimeError) as info:
            waits_in_c.wait_while_raising(future)
        says(info.value, "while-raising", "PyErr_GetRaisedException")
        assert type(info.value.__context__) is KeyError
        future.set_result(42)
        assert waits_in_c.wait_for(future) == 42

    asyncio.run(main())


def test_references_come_out_even(extension, waits_in_c):
    """Nothing that is passed or returned is kept."""

    class Thing:
        pass

    async def same(thing):
        await asyncio.sleep(0)
        return thing

    async def main():
        thing = Thing()
        before = sys.getrefcount(thing)
        for _ in range(100):
            assert waits_in_c.wait_for(same(thing)) is thing
            assert extension.call_apart(lambda: fiberback.await_(same(thing))) is thing
        gc.collect()
        assert sys.getrefcount(thing) == before

    fiberback.run(main())
    asyncio.run(main())
