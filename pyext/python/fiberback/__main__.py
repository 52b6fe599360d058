"""`python -m fiberback`: what is there, whether it works, and scripts whose loops are all prepared."""

from __future__ import annotations

import argparse
import asyncio
import errno
import faulthandler
import importlib.metadata
import importlib.util
import mmap
import os
import platform
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fiberback

from . import _messages
from ._extras import need
from ._see.dump_of import dump_of, send_signal

# What fiberback works on, works with, or stands in for; by the name of the distribution.
LOOPS = {"uvloop": "uvloop", "trio": "trio"}
LIBRARIES = {
    "aiosqlite": "aiosqlite",
    "anyio": "anyio",
    "asgiref": "asgiref",
    "asyncpg": "asyncpg",
    "django": "django",
    "gevent": "gevent",
    "greenback": "greenback",
    "greenlet": "greenlet",
    "nest_asyncio": "nest-asyncio",
    "peewee": "peewee",
    "psycopg": "psycopg",
    "psycopg_pool": "psycopg-pool",
    "sniffio": "sniffio",
    "sqlalchemy": "sqlalchemy",
    "uvicorn": "uvicorn",
}
MADV_GUARD_INSTALL = 102  # Linux 6.13, include/uapi/asm-generic/mman-common.h


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fiberback",
        description="Without an argument: prints what fiberback found in this environment.",
    )
    parser.add_argument("--check", action="store_true", help="test that fiberback works here")
    parser.add_argument("--version", action="version", version=fiberback.__version__)
    commands = parser.add_subparsers(dest="command", metavar="{run,errors,dump,stubs}")
    running = commands.add_parser(
        "run", help="run a script, or a module by -m, every event loop of which is prepared"
    )
    running.add_argument(
        "--greenlet",
        action="store_true",
        help="'import greenlet' gives fiberback.greenlet, for SQLAlchemy, gevent, greenback and others",
    )
    running.add_argument("-m", dest="module", action="store_true", help="it is a module's name")
    running.add_argument("script")
    running.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script gets")
    errors = commands.add_parser("errors", help="the table of errors: code, text, cure")
    errors.add_argument(
        "code", nargs="?", help="only this one: 'no-portal', or '[fiberback:no-portal]'"
    )
    dumping = commands.add_parser("dump", help="what waits in another process, and for what")
    dumping.add_argument("pid", type=int)
    dumping.add_argument("--format", choices=("text", "json"), default="text")
    dumping.add_argument(
        "--signal", help="have it write the dump itself, if it has called dump_on for this signal"
    )
    stubbing = commands.add_parser(
        "stubs",
        help="write the .pyi of a module's sync faces, or of the sync face of an async module",
    )
    stubbing.add_argument("module", help="it is imported")
    stubbing.add_argument(
        "-o",
        "--output",
        help="the file, or - for standard output; otherwise that beside the module, for an async module '-'",
    )
    chosen = parser.parse_args(arguments)
    if chosen.command == "run":
        if chosen.greenlet:
            from . import greenlet as ours

            ours.install()
        run(chosen.script, chosen.arguments, module=chosen.module)
        return 0
    if chosen.command == "errors":
        return print_errors(chosen.code)
    if chosen.command == "dump":
        return dump_process(chosen.pid, chosen.format, chosen.signal)
    if chosen.command == "stubs":
        return write_stub(chosen.module, chosen.output)
    for name, value in facts():
        print(f"{name:13}{value}")
    return check() if chosen.check else 0


# --- what waits elsewhere --------------------------------------------------------------------------


def dump_process(pid: int, format: str, signal: str | None) -> int:
    try:
        print(send_signal(pid, signal) if signal is not None else dump_of(pid, format))
    except (OSError, RuntimeError) as error:
        print(f"python -m fiberback: {error}", file=sys.stderr)
        return 1
    return 0


# --- stubs -----------------------------------------------------------------------------------------


def write_stub(module: str, output: str | None) -> int:
    try:
        need("python -m fiberback stubs", "stubs", "mypy")
        from ._face.stubs import stub

        text, path = stub(module)
    except ImportError as error:
        print(f"python -m fiberback: {error}", file=sys.stderr)
        return 1
    if output is not None:
        path = None if output == "-" else Path(output)
    if path is None:
        print(text, end="")
    else:
        path.write_text(text, encoding="utf-8")
        print(path)
    return 0


# --- what is there ---------------------------------------------------------------------------------


def facts() -> Iterator[tuple[str, str]]:
    yield "fiberback", f"{fiberback.__version__} ({os.path.dirname(fiberback.__file__)})"
    build = " ".join(platform.python_build())
    yield "Python", f"{platform.python_implementation()} {platform.python_version()} ({build})"
    yield "", sys.executable
    yield "module", module()
    yield "system", f"{platform.platform()}, {os.cpu_count()} processors"
    yield "event loops", ", ".join(["asyncio", *installed(LOOPS)])
    yield "libraries", ", ".join(installed(LIBRARIES)) or "none that fiberback knows"
    yield "greenlet", greenlet()
    if fiberback.implementation == "native":
        size = fiberback.get_stack_size()
        yield "stacks", f"{size >> 10} KiB of address space each, {guards()}"


def module() -> str:
    if fiberback.implementation == "native":
        return "native"
    why = "FIBERBACK_PURE is set" if os.environ.get("FIBERBACK_PURE") else "no native module here"
    return f"pure ({why}): portals on greenlet, no waits without one in tasks of stock loops"


def installed(modules: dict[str, str]) -> list[str]:
    found = []
    for module, distribution in modules.items():
        try:
            if importlib.util.find_spec(module) is not None:
                found.append(f"{module} {importlib.metadata.version(distribution)}")
        except (ImportError, ValueError):  # half installed, or set up by hand
            found.append(f"{module} (version unknown)")
    return found


def greenlet() -> str:
    if fiberback.stats()["greenlet_replaced"]:
        from . import greenlet as ours

        return f"fiberback.greenlet, as greenlet {ours.__version__}"
    if fiberback.implementation == "pure" and fiberback.stats()["greenlet_loaded"]:
        return (
            f"{getattr(sys.modules['greenlet'], '__version__', 'built in')}, which portals work on"
        )
    if fiberback.stats()["greenlet_loaded"]:
        return f"{sys.modules['greenlet'].__version__}, loaded: portals keep one stack for life"
    if importlib.util.find_spec("greenlet") is None:
        needs = "none" if fiberback.implementation == "native" else "it, for portals"
        return f"not installed (fiberback needs {needs})"
    return "installed, not loaded (SQLAlchemy, gevent or greenback load it when they are used)"


def guards() -> str:
    """How the pages below each stack are protected; the native module tries the same."""
    if sys.platform != "linux":
        return "guarded by pages without access"
    with mmap.mmap(-1, 2 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        try:
            pages.madvise(MADV_GUARD_INSTALL, 0, mmap.PAGESIZE)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
                raise
            return (
                "guarded by pages without access, each of which is a memory mapping: some 24,000 "
                "stacks with the default vm.max_map_count"
            )
    return "guarded by guard regions (Linux 6.13), which cost no memory mapping"


# --- does it work ----------------------------------------------------------------------------------


async def answer() -> int:
    for _ in range(3):
        await asyncio.sleep(0)
    return 42


def ask() -> int:
    return fiberback.await_(answer())


def in_a_portal() -> None:
    async def main() -> list[int]:
        return [ask(), *await asyncio.gather(*(fiberback.with_portal_run_sync(ask) for _ in "12"))]

    expect(fiberback.run(main()), [42, 42, 42])


def unprepared() -> None:
    async def main() -> int:
        return ask()

    expect(asyncio.run(main()), 42)


def in_a_worker_thread() -> None:
    async def main() -> int:
        return await fiberback.to_thread(ask)

    expect(asyncio.run(main()), 42)


def without_a_loop() -> None:
    with fiberback.thread_runner():
        expect(ask(), 42)


def cancelled() -> None:
    said = []

    def wait() -> None:
        try:
            fiberback.await_(asyncio.sleep(3600))
        except asyncio.CancelledError:
            said.append("cancelled")
            raise

    async def main() -> None:
        task = asyncio.ensure_future(fiberback.with_portal_run_sync(wait))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    fiberback.run(main())
    expect(said, ["cancelled"])


def deep_and_many() -> None:
    def deep(depth: int) -> int:
        return deep(depth - 1) if depth else ask()

    async def main() -> list[int]:
        return await asyncio.gather(
            *(fiberback.with_portal_run_sync(deep, 100) for _ in range(500))
        )

    expect(fiberback.run(main()), [42] * 500)


def on_uvloop() -> None:
    import uvloop  # type: ignore[import-not-found, import-untyped, unused-ignore]

    async def main() -> int:
        return ask()

    expect(fiberback.run(main(), loop_factory=uvloop.new_event_loop), 42)


def on_trio() -> None:
    import trio

    async def main() -> int:
        fiberback.await_(trio.sleep(0))
        return 42

    expect(trio.run(fiberback.with_portal_run_tree, main), 42)


def expect(value: object, wanted: object) -> None:
    if value != wanted:
        raise AssertionError(f"{value!r} instead of {wanted!r}")


CHECKS: dict[str, Callable[[], None]] = {
    "a task with a portal": in_a_portal,
    "an unprepared asyncio loop": unprepared,
    "a worker thread": in_a_worker_thread,
    "a thread without a loop": without_a_loop,
    "cancelling": cancelled,
    "500 tasks, 100 frames deep": deep_and_many,
}


def check() -> int:
    """Tries what can be tried here; 0 if all of it works, else 1."""
    faulthandler.enable()
    checks = dict(CHECKS)
    for name, on_loop in [("uvloop", on_uvloop), ("trio", on_trio)]:
        if importlib.util.find_spec(name) is not None:
            checks[name] = on_loop
    failed = 0
    print()
    for name, try_it in checks.items():
        print(f"{name:30}", end="", flush=True)
        try:
            try_it()
        except BaseException as error:
            failed += 1
            print(f"FAILED: {type(error).__name__}: {error}")
        else:
            print("ok")
    print(f"{len(checks) - failed} of {len(checks)} work here")
    return 1 if failed else 0


# --- run, errors -----------------------------------------------------------------------------------


def run(script: str, arguments: list[str], *, module: bool) -> None:
    """Runs a script as `python script` does, with every event loop that it starts prepared."""
    sys.argv[:] = [script, *arguments]
    with fiberback.enable(everywhere=True):
        if module:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = os.path.dirname(os.path.abspath(script))
            runpy.run_path(script, run_name="__main__")


def print_errors(code: str | None) -> int:
    table = {each.code: each for each in _messages.table()}
    if code is not None:  # as messages end with it
        code = code.strip("[]").removeprefix("fiberback:")
    if code is not None and code not in table:
        print(f"no error has the code {code!r}; `python -m fiberback errors` lists them")
        return 1
    for each in table.values() if code is None else [table[code]]:
        print(f"{each.code}\n    {each.text}\n    cure: {each.cure}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
