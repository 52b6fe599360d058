# expect-stdout: RecursionError each time
"""Recursion through C code, on stacks of several sizes: RecursionError, never an overflow."""

import ast
import asyncio

import fiberback
from fiberback import _fiberback


class Recursive:
    def __getattr__(self, name):
        return getattr(self, name + "x")

    def __eq__(self, other):
        return self == other

    def __hash__(self):
        return hash(self)

    def __repr__(self):
        return repr(self)

    def __iter__(self):
        return iter(self)

    def __call__(self):
        return self()


def by_key(_):
    return sorted([1], key=by_key)


def recursions():
    it = Recursive()
    yield lambda: it.name
    yield lambda: it == 1
    yield lambda: hash(it)
    yield lambda: repr(it)
    yield lambda: list(it)
    yield lambda: it()
    yield lambda: f"{it!r}"
    yield lambda: max([1], key=lambda _: it())
    yield lambda: by_key(0)


def parses():
    for source in (
        "-" * 5000 + "1",
        "(" * 150 + ")" * 150,
        "not " * 5000 + "1",
        "a." * 50000 + "a",
    ):
        try:
            ast.dump(ast.parse(source))
        except (RecursionError, SyntaxError, MemoryError):
            pass


async def main():
    for recursion in recursions():
        try:
            recursion()
        except RecursionError:
            pass
        else:
            raise AssertionError("expected RecursionError")
        fiberback.await_(asyncio.sleep(0))
    parses()


for size in (768 << 10, 1 << 20, 2 << 20, 8 << 20):
    _fiberback.set_stack_size(size)
    fiberback.run(main())
print("RecursionError each time")
