"""In a notebook, whose event loop is running already, cells call synchronous code that waits.

Jupyter runs each cell in a task of its kernel's loop. That is a stock asyncio loop, so nothing is to be
prepared; `fiberback.run` takes the place of nest_asyncio and `asyncio.run`. With `%load_ext fiberback` in the
first cell, `asyncio.run` works, too, on any loop, and interrupting a cell leaves all others' tasks alone:
docs/jupyter.md.

    python examples/notebook_cells.py         # runs the cells below as a kernel does
"""

from __future__ import annotations

import ast
import asyncio
import inspect

CELLS = [
    """
import asyncio, fiberback

async def request(n):
    await asyncio.sleep(0.01)
    return n * 10
""",
    """
def report():                       # a library's synchronous function
    return [fiberback.await_(request(n)) for n in range(3)]

first = report()                    # a plain call in a cell
""",
    """
async def main():                   # a script's main, pasted into a cell
    return sum(await asyncio.gather(*map(request, range(4))))

second = fiberback.run(main())      # asyncio.run() cannot be called from a running event loop
""",
    """
third = await request(7)            # a cell's own await goes on working
""",
]


async def kernel(cells: list[str]) -> dict[str, object]:
    """What an IPython kernel does with cells: each compiled with top-level await, and run."""
    names: dict[str, object] = {}
    for cell in cells:
        code = compile(cell, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.isawaitable(result):
            await result
    return names


def main() -> list[object]:
    names = asyncio.run(kernel(CELLS))
    results = [names["first"], names["second"], names["third"]]
    print(f"the cells' results: {results}")
    return results


def test_main() -> None:
    assert main() == [[0, 10, 20], 60, 70]


if __name__ == "__main__":
    main()
