"""What blocks a thread, and what to type instead: as the innermost frames of its stack tell.

A library's function in Python is known by its module. A C function has no frame: it is looked for among the names
that the line of the innermost frame loads, without calling anything of a user's.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import BuiltinFunctionType, CodeType, FrameType, ModuleType
from typing import Any

from .._fiberback import locals_of
from .._user_frames import is_ours

_AS_IT_IS = ", or leave it as it is, within 'with fiberback.blocking():'"
_IN_THREAD = "'fiberback.await_(fiberback.to_thread({name}, …))'"
_COMPUTES = (
    "'fiberback.await_(asyncio.sleep(0))' now and then in what computes, or leave it to a process "
    "('fiberback.await_(loop.run_in_executor(pool, fn))')"
)
_FUTURE = "'fiberback.await_(asyncio.wrap_future(future))'" + _AS_IT_IS
_HTTP = (
    "an async client's ('fiberback.await_(client.get(url))' with httpx.AsyncClient), or "
    "'fiberback.await_(fiberback.to_thread({name}, …))'" + _AS_IT_IS
)
_LOCK = "'with fiberback.async_context(lock):' with an asyncio.Lock" + _AS_IT_IS
_QUEUE = "'fiberback.await_(queue.get())' with an asyncio.Queue" + _AS_IT_IS
_EVENT = "'fiberback.await_(event.wait())' with an asyncio.Event" + _AS_IT_IS
_PROCESS = "'fiberback.await_(asyncio.create_subprocess_exec(…))', or " + _IN_THREAD + _AS_IT_IS
_SOCKET = (
    "'fiberback.await_(asyncio.open_connection(host, port))', 'fiberback.await_(loop.sock_recv(sock, count))', or "
    + _IN_THREAD
    + _AS_IT_IS
)
_DATABASE = (
    "an async driver's through 'fiberback.dbapi' or 'fiberback.sqlalchemy', or " + _IN_THREAD
)

# By the type or module of a C function and its name ("" for all of them).
_C: dict[tuple[str, str], str] = {
    ("time", "sleep"): "'fiberback.await_(asyncio.sleep(seconds))'" + _AS_IT_IS,
    ("lock", ""): _LOCK,
    ("RLock", ""): _LOCK,
    ("Lock", ""): _LOCK,
    ("SimpleQueue", ""): _QUEUE,
    ("_ThreadHandle", ""): "'fiberback.await_(asyncio.to_thread(thread.join))'",
    ("socket", ""): _SOCKET,
    ("_socket", ""): _SOCKET,
    ("_SSLSocket", ""): _SOCKET,
    ("select", ""): _SOCKET,
    ("epoll", ""): _SOCKET,
    ("poll", ""): _SOCKET,
    ("posix", ""): _IN_THREAD,
    ("signal", ""): _IN_THREAD,
    ("_io", ""): _IN_THREAD,
    ("builtins", "input"): _IN_THREAD,
    ("builtins", "open"): _IN_THREAD,
    ("_sqlite3", ""): _DATABASE,
    ("sqlite3", ""): _DATABASE,
    ("psycopg2", ""): _DATABASE,
    ("MySQLdb", ""): _DATABASE,
}

# By the module of a function in Python that blocks, or of the package that it is in, and the function's name, or what
# that ends in. The first one suits.
_PYTHON: tuple[tuple[str, str, str], ...] = (
    ("concurrent.futures", ".result", _FUTURE),
    ("concurrent.futures", ".exception", _FUTURE),
    ("concurrent.futures", "wait", "'fiberback.await_(asyncio.wait([asyncio.wrap_future(each)]))'"),
    ("concurrent.futures", "", "'fiberback.await_(asyncio.to_thread(executor.shutdown))'"),
    ("threading", "Thread.join", "'fiberback.await_(asyncio.to_thread(thread.join))'"),
    (
        "threading",
        "Thread._wait_for_tstate_lock",
        "'fiberback.await_(asyncio.to_thread(thread.join))'",
    ),
    ("threading", "Event.wait", _EVENT),
    (
        "threading",
        "Condition.wait",
        "'fiberback.await_(condition.wait())' with an asyncio.Condition",
    ),
    (
        "threading",
        "Semaphore.acquire",
        "'with fiberback.async_context(semaphore):' with an asyncio.Semaphore",
    ),
    ("threading", "", _LOCK),
    ("queue", ".put", "'fiberback.await_(queue.put(item))' with an asyncio.Queue"),
    ("queue", "", _QUEUE),
    ("subprocess", "", _PROCESS),
    ("multiprocessing", "", _IN_THREAD),
    ("requests", "", _HTTP),
    ("urllib3", "", _HTTP),
    ("urllib", "", _HTTP),
    ("http", "", _HTTP),
    ("httpx", "", _HTTP),
    ("httpcore", "", _HTTP),
    ("psycopg", "", _DATABASE),
    ("pymysql", "", _DATABASE),
    ("sqlite3", "", _DATABASE),
    ("redis", "", "'fiberback.await_(client.get(key))' with redis.asyncio, or " + _IN_THREAD),
    ("socket", "", _SOCKET),
    ("ssl", "", _SOCKET),
    ("selectors", "", _SOCKET),
    ("socketserver", "", _IN_THREAD),
    ("smtplib", "", _IN_THREAD),
    ("ftplib", "", _IN_THREAD),
    ("imaplib", "", _IN_THREAD),
    ("tempfile", "", _IN_THREAD),
    ("shutil", "", _IN_THREAD),
    ("pathlib", "", _IN_THREAD),
)
# Parts of the libraries above that they stand on.
_BELOW = {"codecs", "encodings", "email", "certifi", "idna", "genericpath", "posixpath", "os"}


def instead_of(frames: Sequence[FrameType]) -> tuple[str, str]:
    """What the stack with these frames, from the innermost, blocks in, and what to type instead."""
    entry: tuple[str, str] | None = None
    for frame in frames:
        if is_ours(frame.f_code.co_filename):
            break
        module = frame.f_globals.get("__name__")
        found = _in_python(module if isinstance(module, str) else "", frame.f_code.co_qualname)
        if found is None:
            break
        entry = found or entry
    if entry is not None:
        return entry
    if not frames:
        return "C code", _COMPUTES
    for name, function in _loaded(frames[0]):
        cure = _in_c(function)
        if cure is not None:
            return f"{name}()", cure.format(name=name)
    return f"{frames[0].f_code.co_qualname}()", _COMPUTES


def _in_python(module: str, function: str) -> tuple[str, str] | tuple[()] | None:
    """What a library's function does; () for one that merely stands below those, None for a user's."""
    if module.partition(".")[0] in _BELOW:
        return ()
    for package, name, cure in _PYTHON:
        if (module == package or module.startswith(package + ".")) and function.endswith(name):
            typed = f"{module}.{function}"
            return f"{typed}()", cure.format(name=typed)
    return None


def _in_c(function: Any) -> str | None:
    """What to type instead of a C function, or of what has a method in C; None if that is not known to block."""
    if type(function) is BuiltinFunctionType:
        bound: Any = function.__self__
        home = (
            bound.__name__
            if type(bound) is ModuleType or type(bound) is type
            else type(bound).__name__
        )
        module, name = type(bound).__module__, function.__name__
        if type(bound) is ModuleType:
            module = home
    elif isinstance(function, _METHODS):
        owner, name = function.__objclass__, function.__name__
        home, module = owner.__name__, owner.__module__
    elif type(function).__module__ in ("_thread", "_queue"):
        home, module, name = type(function).__name__, type(function).__module__, ""
    else:
        return None
    package = module.partition(".")[0]
    for key in ((home, name), (home, ""), (package, name), (package, "")):
        if key in _C and (key[1] or name not in _HARMLESS):
            return _C[key]
    return None


_METHODS: tuple[Any, ...] = (type(str.join), type(str.__add__))
_HARMLESS = {"close", "fileno", "locked", "release", "put", "getpid", "fspath", "environ"}
_STARTS = (
    "LOAD_GLOBAL",
    "LOAD_NAME",
    "LOAD_FAST",
    "LOAD_DEREF",
    "LOAD_CLASSDEREF",
    "LOAD_FROM_DICT",
)


def _loaded(frame: FrameType) -> Iterator[tuple[str, Any]]:
    """What the line that the frame executes has loaded so far by name, the last first: names with their values."""
    names: dict[str, Any] = {**frame.f_builtins, **frame.f_globals, **locals_of(frame)}
    found: list[tuple[str, Any]] = []
    for path in _paths(frame.f_code, frame.f_lasti):
        value = _value(names, path)
        if value is not None:
            found.append((".".join(path), value))
    yield from reversed(found)


def _paths(code: CodeType, last: int) -> Iterator[tuple[str, ...]]:
    """The dotted names that the line of the instruction at `last` loads up to there."""
    instructions = [each for each in dis.get_instructions(code) if each.offset <= last]
    if not instructions:
        return
    positions = instructions[-1].positions
    first = positions.lineno if positions is not None else None
    path: tuple[str, ...] = ()
    for each in instructions:
        line = each.positions.lineno if each.positions is not None else None
        if first is None or line is None or line < first:
            continue
        if each.opname in ("LOAD_ATTR", "LOAD_METHOD") and path:
            path = (*path, each.argval)
            continue
        if path:
            yield path
            path = ()
        if each.opname.startswith(_STARTS):
            values = each.argval if isinstance(each.argval, tuple) else (each.argval,)
            for value in values[:-1]:
                yield (value,)
            path = (values[-1],)
    if path:
        yield path


_MISSING = object()


def _value(names: Mapping[str, Any], path: Sequence[str]) -> Any:
    """What a dotted name stands for; None where finding that would run code."""
    value = names.get(path[0])
    for name in path[1:]:
        if type(value) is ModuleType:
            value = vars(value).get(name)
        else:
            value = inspect.getattr_static(value, name, None)
        if value is None:
            return None
    return value
