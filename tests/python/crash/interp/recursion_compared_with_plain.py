# expect-stdout: fine
# parts: 6
"""Deep recursion in C code, much of which CPython does not check: where a plain task on the main
thread (8 MiB of stack) works or raises, a portal must not die. Each case in two forked processes,
one for each; a case that kills the plain one proves nothing and is passed over.
"""

import ast
import asyncio
import collections
import copy
import functools
import gc
import io
import itertools
import json
import marshal
import operator
import os
import pickle
import re
import resource
import sqlite3
import sys
import types
import warnings
import weakref
import xml.etree.ElementTree as ElementTree

import fiberback

gc.freeze()  # collections are of what the program makes

warnings.simplefilter("ignore")
sys.unraisablehook = lambda _: None
DEPTHS = (3_000, 100_000)


def wrapped(wrap, depth, value=()):
    for _ in range(depth):
        value = wrap(value)
    return value


def in_tuple(value):
    return (value,)


def in_list(value):
    return [value]


class Holder:
    def __init__(self, held):
        self.held = held

    def __call__(self):
        return self.held()


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


class Finalized(Holder):
    def __del__(self):
        pass


def delegating(inner):
    yield 0
    yield from inner


def delegating_chain(depth):
    """Suspended generators, each waiting for the next: longer than any recursion limit."""
    chain = delegating(iter([1, 2]))
    next(chain)
    for _ in range(depth):
        chain = delegating(chain)
        next(chain)
    return chain


async def finished():
    return 1


async def awaiting(inner):
    return await inner


def by_key(depth):
    return sorted([1], key=lambda _: by_key(depth))


def through_sqlite(depth):
    connection = sqlite3.connect(":memory:")

    def call(left):
        return connection.execute("select f(?)", (left - 1,)).fetchone()[0] if left else 0

    connection.create_function("f", 1, call)
    return connection.execute("select f(?)", (depth,)).fetchone()


def through_ctypes(depth):
    import ctypes

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    def call(left):
        return call(left - 1) if left else 0

    call(depth)


def exceptions(depth, link):
    last = ValueError(0)
    for n in range(depth):
        error = ValueError(n)
        setattr(error, link, last)
        last = error
    return last


def print_exceptions(depth, link):
    stderr, sys.stderr = sys.stderr, io.StringIO()
    try:
        error = exceptions(min(depth, 20_000), link)
        sys.__excepthook__(type(error), error, None)
    finally:
        sys.stderr = stderr


def catch_in_nested_tuple(depth):
    kinds = wrapped(in_tuple, depth, KeyError)
    try:
        raise ValueError
    except kinds:
        pass


def ring(depth):
    first = last = Holder(None)
    for _ in range(depth):
        last.held = Holder(None)
        last = last.held
    last.held = first
    del first, last
    gc.collect()


def traceback_chain(depth):
    chain, frame = None, sys._getframe()
    for _ in range(depth):
        chain = types.TracebackType(chain, frame, 0, 1)


def negated(depth):
    place = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 1}
    tree = ast.Constant(1, **place)
    for _ in range(depth):
        tree = ast.UnaryOp(ast.USub(), tree, **place)
    return compile(ast.Expression(tree), "<tree>", "eval")


def source(text):
    return compile(text, "<deep>", "eval")


def constants(depth):
    return (lambda: 0).__code__.replace(co_consts=(wrapped(in_tuple, depth),))


def xml(depth):
    return ElementTree.fromstring("<a>" * depth + "</a>" * depth)


def classes(depth):
    root = last = type("Root", (), {})
    for _ in range(min(depth, 1500)):
        last = type("C", (last,), {})
    root.attribute = 1
    return last.attribute


CASES = {
    "hash of tuples": lambda n: hash(wrapped(in_tuple, n)),
    "hash of frozensets": lambda n: wrapped(lambda v: frozenset([v]), n),
    "hash of aliases": lambda n: hash(wrapped(lambda v: types.GenericAlias(list, v), n, int)),
    "hash of slices": lambda n: hash(wrapped(lambda v: slice(v, None), n)),
    "hash of methods": lambda n: hash(wrapped(lambda v: types.MethodType(print, v), n)),
    "repr of tuples": lambda n: repr(wrapped(in_tuple, n)),
    "repr of slices": lambda n: repr(wrapped(lambda v: slice(v, None), n)),
    "repr of aliases": lambda n: repr(wrapped(lambda v: types.GenericAlias(list, v), n, int)),
    "repr of partials": lambda n: repr(wrapped(lambda v: functools.partial(print, v), n)),
    "repr of deques": lambda n: repr(wrapped(lambda v: collections.deque([v]), n)),
    "repr of namespaces": lambda n: repr(wrapped(lambda v: types.SimpleNamespace(a=v), n)),
    "repr of proxies": lambda n: repr(wrapped(lambda v: types.MappingProxyType({1: v}), n, {})),
    "== of tuples": lambda n: wrapped(in_tuple, n) == wrapped(in_tuple, n),
    "< of tuples": lambda n: wrapped(in_tuple, n) < wrapped(in_tuple, n),
    "== of dicts": lambda n: wrapped(lambda v: {1: v}, n) == wrapped(lambda v: {1: v}, n),
    "== of code": lambda n: constants(n) == constants(n),
    "hash of code": lambda n: hash(constants(n)),
    "death of tuples": lambda n: wrapped(in_tuple, n) and None,
    "death of dicts": lambda n: wrapped(lambda v: {1: v}, n) and None,
    "death of objects": lambda n: wrapped(Holder, n) and None,
    "death of slotted objects": lambda n: wrapped(Slotted, n) and None,
    "death of finalized objects": lambda n: wrapped(Finalized, n) and None,
    "death of partials": lambda n: wrapped(lambda v: functools.partial(print, v), n) and None,
    "death of methods": lambda n: wrapped(lambda v: types.MethodType(print, v), n) and None,
    "death of caches": lambda n: wrapped(functools.lru_cache, min(n, 10_000), int) and None,
    "death of closures": lambda n: wrapped(lambda v: lambda: v, n) and None,
    "death of maps": lambda n: wrapped(lambda v: map(int, v), n, iter([])) and None,
    "death of chains": lambda n: wrapped(itertools.chain, n, iter([])) and None,
    "death of islices": lambda n: wrapped(lambda v: itertools.islice(v, 5), n, iter([])) and None,
    "death of filters": lambda n: wrapped(lambda v: filter(None, v), n, iter([])) and None,
    "death of enumerations": lambda n: wrapped(enumerate, n, iter([])) and None,
    "death of memoryviews": lambda n: wrapped(memoryview, n, memoryview(b"")) and None,
    "death of readers": lambda n: wrapped(io.BufferedReader, min(n, 500), io.BytesIO()) and None,
    "death of properties": lambda n: wrapped(property, n, None) and None,
    "death of classmethods": lambda n: wrapped(classmethod, n, print) and None,
    "death of weak references": lambda n: weakref.ref(wrapped(Holder, n)),
    "death of contexts": lambda n: exceptions(n, "__context__") and None,
    "death of causes": lambda n: exceptions(n, "__cause__") and None,
    "death of tracebacks": traceback_chain,
    "death of delegations": lambda n: delegating_chain(n) and None,
    "death of unstarted generators": lambda n: wrapped(delegating, n, iter([])) and None,
    "death of coroutines": lambda n: wrapped(awaiting, n, finished()).close(),
    "death of a ring": ring,
    "death of xml": lambda n: xml(n) and None,
    "delegation": lambda n: next(wrapped(delegating, n, iter([1]))),
    "deep delegation": lambda n: next(delegating_chain(n)),
    "close of delegations": lambda n: delegating_chain(n).close(),
    "throw into delegations": lambda n: delegating_chain(n).throw(ValueError),
    "await of coroutines": lambda n: wrapped(awaiting, n, finished()).send(None),
    "call of partials": lambda n: wrapped(lambda v: functools.partial(lambda f: f(), v), n, int)(),
    "call of C partials": lambda n: wrapped(lambda v: functools.partial(map, v), n, int)(),
    "call of caches": lambda n: wrapped(functools.lru_cache, min(n, 10_000), int)(),
    "call of objects": lambda n: wrapped(Holder, n, int)(),
    "call of methods": lambda n: wrapped(lambda v: types.MethodType(v, 1), min(n, 5_000), max)(),
    "next of maps": lambda n: list(wrapped(lambda v: map(int, v), n, iter([1]))),
    "next of chains": lambda n: list(wrapped(itertools.chain, n, iter([1]))),
    "next of islices": lambda n: list(wrapped(lambda v: itertools.islice(v, 5), n, iter([1]))),
    "next of enumerations": lambda n: next(wrapped(enumerate, n, iter([1]))),
    "read of readers": lambda n: wrapped(io.BufferedReader, min(n, 500), io.BytesIO()).read(1),
    "isinstance": lambda n: isinstance(1.5, wrapped(in_tuple, n, int)),
    "issubclass": lambda n: issubclass(float, wrapped(in_tuple, n, int)),
    "except": catch_in_nested_tuple,
    "exception group": lambda n: repr(wrapped(lambda v: ExceptionGroup("", [v]), n, ValueError())),
    "split of a group": lambda n: wrapped(lambda v: ExceptionGroup("", [v]), n, ValueError()).split(
        TypeError
    ),
    "printing contexts": lambda n: print_exceptions(n, "__context__"),
    "printing causes": lambda n: print_exceptions(n, "__cause__"),
    "pickle": lambda n: pickle.dumps(wrapped(in_tuple, n)),
    "unpickle": lambda n: pickle.loads(b"]" * n + b"a" * (n - 1) + b"."),
    "marshal": lambda n: marshal.dumps(wrapped(in_tuple, n)),
    "unmarshal": lambda n: marshal.loads(b"\xa9\x01" * n + b"N"),
    "json": lambda n: json.loads("[" * n + "]" * n),
    "json of objects": lambda n: json.loads('{"a":' * n + "1" + "}" * n),
    "json.dumps": lambda n: json.dumps(wrapped(in_list, n)),
    "deepcopy": lambda n: copy.deepcopy(wrapped(in_list, n)),
    "re groups": lambda n: re.compile("(" * n + ")" * n),
    "re backtracking": lambda n: re.match("(?:a(?=a*))*b", "a" * min(n, 5000)),
    "str.format": lambda n: ("{0" + ".x" * n + "}").format(1),
    "parentheses": lambda n: source("(" * n + ")" * n),
    "minuses": lambda n: source("-" * n + "1"),
    "sums": lambda n: source("a+" * n + "a"),
    "powers": lambda n: source("a**" * n + "a"),
    "attributes": lambda n: source("a" + ".b" * n),
    "calls": lambda n: source("a" + "()" * n),
    "subscripts": lambda n: source("a[" * n + "a" + "]" * n),
    "lambdas": lambda n: source("lambda:" * n + "a"),
    "conditions": lambda n: source("a if b else " * n + "a"),
    "nots": lambda n: source("not " * n + "a"),
    "elifs": lambda n: compile("if a: b\n" + "elif a: b\n" * n, "<deep>", "exec"),
    "ast": negated,
    "ast.parse": lambda n: ast.parse("a" + ".b" * n),
    "literal_eval": lambda n: ast.literal_eval("-" * n + "1"),
    "sorted": by_key,
    "sqlite": through_sqlite,
    "sqlite's parser": lambda n: sqlite3.connect(":memory:").execute(
        "select " + "(" * n + "1" + ")" * n
    ),
    "ctypes": through_ctypes,
    "xml": lambda n: ElementTree.tostring(xml(n)),
    "copy of xml": lambda n: copy.deepcopy(xml(n)),
    "classes": classes,
    "attrgetter": lambda n: operator.attrgetter(".".join(["real"] * n))(1),
}


def attempt(case, depth):
    try:
        case(depth)
    except Exception:
        pass


def in_portal(case, depth):
    fiberback.await_(asyncio.sleep(0))
    attempt(case, depth)
    fiberback.await_(asyncio.sleep(0))


async def plain(case, depth):
    attempt(case, depth)


def dies(start, case, depth):
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(start(case, depth))
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) < 0


def portal(case, depth):
    return fiberback.with_portal_run_sync(in_portal, case, depth)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    if hard == resource.RLIM_INFINITY or hard >= 8 << 20:
        resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, hard))
    part, parts = map(int, sys.argv[1:]) if sys.argv[1:] else (0, 1)
    bad = [
        (name, depth)
        for name, case in list(CASES.items())[part::parts]
        for depth in DEPTHS
        if dies(portal, case, depth) and not dies(plain, case, depth)
    ]
    for name, depth in bad:
        print(f"dies in a portal only: {name}, {depth} deep")
    if not bad:
        print("fine")
