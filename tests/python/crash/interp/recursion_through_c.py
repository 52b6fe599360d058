# expect-stdout: fine
"""Recursion through C functions (sorted, repr, json, pickle, deepcopy, compile, re) on a fiber."""

import asyncio
import copy
import functools
import json
import pickle
import re

import fiberback


def by_sorted(n):
    return sorted([n], key=by_sorted)


def by_map(n):
    return list(map(by_map, [n]))


def by_partial(n):
    return functools.partial(by_partial, n)()


def by_sub(n):
    return re.sub("x", lambda match: by_sub(n), "x")


class ByRepr:
    def __repr__(self):
        return repr([self])


class ByGetattr:
    def __getattr__(self, name):
        return getattr(self, name + "x")


class ByEq:
    def __eq__(self, other):
        return [self] == [other]

    __hash__ = None


class ByCall:
    pass


ByCall.__call__ = ByCall()


class ByIter:
    def __iter__(self):
        return iter(list(self))


class ByDel:
    def __init__(self, n):
        self.n = n

    def __del__(self):
        if self.n:
            ByDel(self.n - 1)


def nested_list(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


CASES = [
    lambda: by_sorted(1),
    lambda: by_map(1),
    lambda: by_partial(1),
    lambda: by_sub(1),
    lambda: repr(ByRepr()),
    lambda: ByGetattr().x,
    lambda: ByEq() == ByEq(),
    lambda: ByCall()(),
    lambda: list(ByIter()),
    lambda: ByDel(3000),
    lambda: repr(nested_list(100_000)),
    lambda: json.dumps(nested_list(100_000)),
    lambda: json.loads("[" * 100_000 + "]" * 100_000),
    lambda: pickle.dumps(nested_list(100_000)),
    lambda: copy.deepcopy(nested_list(100_000)),
    lambda: nested_list(200_000) == nested_list(200_000),
    lambda: hash(functools.reduce(lambda t, _: (t,), range(3_000), ())),  # C without any check
    lambda: compile("(" * 150 + ")" * 150, "<nested>", "eval"),
    lambda: compile("(" * 5000 + ")" * 5000, "<nested>", "eval"),
    lambda: compile("-" * 50_000 + "1", "<minus>", "eval"),
    lambda: compile("a" + ".b" * 50_000, "<dots>", "eval"),
    lambda: re.compile("(" * 5000 + ")" * 5000),
    lambda: isinstance(1, functools.reduce(lambda t, _: (t,), range(100_000), (int,))),
]


def sync(case):
    fiberback.await_(asyncio.sleep(0))
    try:
        case()
    except (RecursionError, MemoryError, SyntaxError, OverflowError, re.error):
        pass
    fiberback.await_(asyncio.sleep(0))


async def main():
    for case in CASES:
        await fiberback.with_portal_run_sync(sync, case)


asyncio.run(main())
print("fine")
