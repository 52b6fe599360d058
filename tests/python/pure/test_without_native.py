"""The fallback without the native module: the portals' own tests with that hidden, and what it refuses."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
from support import only_fiberback

pytestmark = [
    pytest.mark.sampled,
    only_fiberback,
    pytest.mark.skipif(
        importlib.util.find_spec("greenlet") is None, reason="portals need greenlet there"
    ),
]

TESTS = pathlib.Path(__file__).parents[1]
ROOT = TESTS.parents[1]
SAMPLE = ["portal/test_contextvars.py", "portal/test_generators.py", "await/test_wrappers.py"]
# Not those about the native module's stacks, memory and speed.
WHOLE = [
    *(f"portal/test_{name}.py" for name in ("calls", "cancel", "contextvars", "exceptions")),
    *(f"portal/test_{name}.py" for name in ("finalizers", "generators", "lifetime", "scheduler")),
    *(f"portal/test_{name}.py" for name in ("task_factory", "trio_instrument")),
    *(f"await/test_{name}.py" for name in ("await", "no_await", "without_loop", "wrappers")),
    *(f"run/test_{name}.py" for name in ("enable", "everywhere", "task_factories")),
    *(f"thread/test_{name}.py" for name in ("async_generators", "one_task", "threads")),
    "thread/test_worker_threads.py",
    "group/test_group.py",
]


def run_hidden(*files):
    """pytest's summary of these files with the native module hidden."""
    environment = {
        **os.environ,
        "FIBERBACK_PURE": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS / "pure"), os.environ.get("PYTHONPATH", "")]),
    }
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST", "FIBERBACK_SHUFFLE"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-q", "-rfEs", "--tb=short", "-p", "hidden_native"]
    command += ["-p", "no:cacheprovider", "-p", "no:randomly", "-o", "addopts="]
    done = subprocess.run(
        [*command, *(str(TESTS / file) for file in files)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(code)],
        env={**os.environ, "FIBERBACK_PURE": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_sample_of_the_portals_tests():
    assert int(re.search(r"(\d+) passed", run_hidden(*SAMPLE))[1]) > 100


@pytest.mark.slow
@pytest.mark.time_limit(1800)
def test_the_portals_tests():
    assert int(re.search(r"(\d+) passed", run_hidden(*WHOLE))[1]) > 800


def test_what_is_not_served_is_there():
    """Each name of the list is that of a test."""
    sys.path.insert(0, str(TESTS / "pure"))
    try:
        from hidden_native import reasons
    finally:
        sys.path.pop(0)
    for name in reasons():
        file, _, function = name.partition("::")
        assert f"def {function.partition('[')[0]}(" in (TESTS / file).read_text(), name


def test_the_names_are_those_of_the_native_module():
    import fiberback

    stub = pathlib.Path(fiberback.__file__).with_name("_fiberback.pyi").read_text()
    names = re.findall(r"^(?:def|class) (\w+)|^(\w+):", stub, re.M)
    said = run("import fiberback; print(*dir(fiberback._fiberback))").split()
    missing = {a or b for a, b in names} - set(said) - {"greenlet"}
    assert missing == set()


def test_texts_that_both_have_are_the_same():
    from fiberback import _messages

    native = {each.code: (each.text, each.cure) for each in _messages.table()}
    code = "import fiberback; print(fiberback._fiberback.messages, end='')"
    lines = run(code).splitlines()
    assert len(lines) > 5
    for line in lines:
        code, *text = line.split("\t")
        assert native[code] == tuple(text)


def test_the_version_is_the_native_one_s():
    import fiberback

    assert run("import fiberback; print(fiberback.__version__)").strip() == fiberback.__version__


def test_which_one_is_used_is_told():
    import fiberback

    assert fiberback.implementation == "native"
    assert run("import fiberback; print(fiberback.implementation)") == "pure\n"
    done = subprocess.run(
        [sys.executable, "-m", "fiberback"],
        env={**os.environ, "FIBERBACK_PURE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "module       pure" in done.stdout
    done = subprocess.run([sys.executable, "-m", "fiberback"], capture_output=True, text=True)
    assert "module       native" in done.stdout


def test_what_needs_the_native_module_says_what_to_install():
    code = """
    import asyncio, fiberback

    def refused(call):
        try:
            call()
        except (ImportError, RuntimeError) as error:
            assert "pip install" in str(error), error
            print(str(error).rpartition("[fiberback:")[2])

    refused(lambda: fiberback.set_stack_size(1 << 20))
    refused(lambda: fiberback.get_stack_size())
    refused(lambda: __import__("fiberback.greenlet"))

    async def task():
        refused(lambda: fiberback.await_(asyncio.sleep(0)))

    asyncio.run(task())
    assert fiberback.trim() == 0 == fiberback.stats()["fibers_suspended"]
    assert not hasattr(fiberback._fiberback, "nothing_of_that_name")
    """
    assert run(code).split() == ["needs-native]"] * 3 + [
        "pure-no-parking]"
    ]  # [fiberback:needs-native], [fiberback:pure-no-parking]


def test_a_module_that_is_not_there():
    """It says so once, where warnings of imports are shown; and nothing where it was asked for."""
    import fiberback

    code = """
    import sys, warnings
    class Hidden:
        def find_spec(self, name, path, target=None):
            if name == "fiberback._fiberback":
                raise ModuleNotFoundError("hidden", name=name)
    sys.meta_path.insert(0, Hidden())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        import fiberback
    print(fiberback.implementation, *(each.category.__name__ for each in said))
    assert all("[fiberback:pure-fallback]" in str(each.message) for each in said)
    """
    assert run(code, FIBERBACK_PURE="") == "pure ImportWarning\n"
    assert run(code, FIBERBACK_PURE="0") == "pure ImportWarning\n"
    assert run(code, FIBERBACK_PURE="1") == "pure\n"
    assert fiberback.implementation == "native"


@pytest.mark.skipif(not hasattr(sys, "abiflags"), reason="Windows has no such flags")
@pytest.mark.parametrize("flags", ["t", "d"])
def test_a_native_module_that_refuses_says_how_to_do_without(flags):
    """It does not give way in silence: who has put it there is to know."""
    code = f"""
    import sys, traceback
    sys.abiflags = {flags!r}
    try:
        import fiberback
    except ImportError:
        traceback.print_exc(file=sys.stdout)
    """
    said = run(code, FIBERBACK_PURE="")
    assert "[fiberback:free-threaded]" in said or "[fiberback:debug-build]" in said
    assert "FIBERBACK_PURE=1" in said
    code = (
        f"import sys; sys.abiflags = {flags!r}; import fiberback; print(fiberback.implementation)"
    )
    assert run(code) == "pure\n"


def test_without_greenlet_it_says_what_to_install():
    code = """
    import asyncio, sys
    sys.modules["greenlet"] = None
    import fiberback

    async def answer():
        await asyncio.sleep(0)
        return 42

    async def main():
        assert await answer() == 42
        try:
            fiberback.await_(answer())
        except RuntimeError as error:
            assert "pip install greenlet [fiberback:needs-greenlet]" in str(error).replace("'", "")
        return await asyncio.to_thread(lambda: fiberback.await_(answer()))

    print(fiberback.run(main()), fiberback.await_(answer()))
    """
    assert run(code) == "42 42\n"


def test_portals_in_two_threads_at_once_and_one_that_is_dropped_elsewhere():
    """A portal is resumed by its own thread alone; dropped by another one it does no harm."""
    code = """
    import asyncio, fiberback, gc, threading

    kept = []

    def in_thread():
        async def main():
            coro = fiberback.with_portal_run_sync(lambda: fiberback.await_(asyncio.sleep(60)))
            coro.send(None)
            kept.append(coro)

        asyncio.run(main())

    threads = [threading.Thread(target=in_thread) for _ in range(8)]
    for each in threads: each.start()
    for each in threads: each.join()
    try:
        kept[0].send(None)
    except RuntimeError as error:
        print(str(error).rpartition("[fiberback:")[2])
    kept.clear()
    gc.collect()
    print(fiberback.run(fiberback.with_portal_run_sync(fiberback.await_, asyncio.sleep(0, 7))))
    """
    assert run(code) == "wrong-thread]\n7\n"


def test_a_portal_that_is_dropped_leaves_a_coroutine_alone_that_others_have():
    code = """
    import asyncio, fiberback, gc

    async def main():
        async def work():
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return 7

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        fiberback.bestow_portal(task)
        assert fiberback._fiberback.unbestow(task)
        gc.collect()
        return await task

    print(asyncio.run(main()))
    """
    assert run(code) == "7\n"


def test_what_goes_wrong_in_a_dropped_portal_is_told():
    code = """
    import fiberback, sys, types

    @types.coroutine
    def wait():
        yield

    async def work():
        try:
            fiberback.await_(wait())
        finally:
            raise KeyError("at the end")

    for hook in (sys.__unraisablehook__, lambda told: print(repr(told.exc_value), file=sys.stderr)):
        sys.unraisablehook = hook
        coro = fiberback.with_portal_run(work)
        coro.send(None)
        del coro
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "FIBERBACK_PURE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr.count("KeyError") >= 2
    assert done.stderr.startswith("Exception ignored") and "TypeError" not in done.stderr


PYODIDE = """
import asyncio, sys, types

import asyncio.events, ssl, multiprocessing  # which look at the platform themselves
sys.platform = "emscripten"
sys.modules["greenlet"] = None
ffi = types.ModuleType("pyodide.ffi")
ffi.can_run_sync = lambda: allowed
sys.modules["pyodide"], sys.modules["pyodide.ffi"] = types.ModuleType("pyodide"), ffi
allowed = False
import fiberback
"""


def test_pyodide_that_cannot_switch_stacks():
    """Of the real one: `test_in_pyodide`."""
    code = """
    async def main():
        assert not fiberback.can_await()
        try:
            fiberback.await_(asyncio.sleep(0))
        except RuntimeError as error:
            assert "[fiberback:pyodide-no-switch]" in str(error), error
            print("refused")

    asyncio.run(main())
    """
    assert run(PYODIDE + textwrap.dedent(code)) == "refused\n"


def test_pyodide_runs_what_is_awaited_in_a_task_and_takes_over_what_that_sets():
    code = """
    import contextvars
    variable = contextvars.ContextVar("variable", default="before")
    tasks = []

    def run_sync(task):  # the real one switches stacks; here the task is run by hand
        tasks.append(task)
        task.get_coro().close()
        task.get_context().run(variable.set, "set inside")
        return 42

    ffi.run_sync = run_sync

    async def main():
        global allowed
        allowed = True
        assert fiberback.can_await()
        await fiberback.ensure_portal()
        print(fiberback.await_(asyncio.sleep(0)), variable.get(), isinstance(tasks[0], asyncio.Task))
        tasks[0].cancel()

    asyncio.run(main())
    """
    if sys.version_info < (3, 12):
        pytest.skip("Task.get_context() came with 3.12")
    assert run(PYODIDE + textwrap.dedent(code)) == "42 set inside True\n"


@pytest.mark.slow
@pytest.mark.time_limit(900)
@pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="no node and npm")
def test_in_pyodide(tmp_path):
    """npm's, in Node, with WebAssembly's stack switching and without."""
    import fiberback

    subprocess.run(["npm", "install", "--silent", "pyodide@314.0.7"], cwd=tmp_path, check=True)
    script = [TESTS / "pure" / "in_pyodide.mjs", tmp_path / "node_modules" / "pyodide"]
    script += [pathlib.Path(fiberback.__file__).parent, TESTS / "pure" / "in_pyodide.py"]

    def in_node(*flags):
        done = subprocess.run(["node", *flags, *script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    said = in_node("--experimental-wasm-stack-switching")
    assert said == ["pure True", "raised 'x'", "8", "'int' object can't be awaited"]
    said = in_node()
    assert said[0] == "pure False" and "[fiberback:pyodide-no-switch]" in said[-1]


@pytest.mark.slow
@pytest.mark.time_limit(900)
def test_on_pypy():
    """In tasks, in threads and without a loop: what the wheel's own test does, on the sources."""
    import fiberback

    pypy = shutil.which("pypy3")
    version = "import sys; print(sys.version_info >= (3, 11))"
    if pypy is None or subprocess.check_output([pypy, "-c", version], text=True) != "True\n":
        pytest.skip("no pypy3 of Python 3.11 or later: 'apt-get install pypy3' on Debian 13")
    code = """
    import asyncio, contextvars, fiberback

    variable = contextvars.ContextVar("variable", default=0)

    async def answer():
        await asyncio.sleep(0)
        variable.set(variable.get() + 1)
        return 42

    def ask():
        before = variable.get()
        result = fiberback.await_(answer())
        assert variable.get() == before + 1
        return result

    async def main():
        calls = (fiberback.with_portal_run_sync(ask) for _ in range(3))
        return [ask(), *await asyncio.gather(*calls), await asyncio.to_thread(ask)]

    async def prepared():
        await fiberback.ensure_portal()
        task = asyncio.create_task(fiberback.with_portal_run_sync(fiberback.await_, asyncio.sleep(60)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return ask()

    assert fiberback.implementation == "pure"
    assert fiberback.run(main()) == [42] * 5
    assert asyncio.run(prepared()) == ask() == 42
    print("fine")
    """
    folder = pathlib.Path(fiberback.__file__).parents[1]
    program = f"import sys; sys.path.append({str(folder)!r})\n" + textwrap.dedent(code)
    done = subprocess.run([pypy, "-c", program], capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stdout + done.stderr
