"""IPython in a terminal: no event loop runs between cells, and synchronous cells run without one.

IPython has one loop, on which it runs the cells that `await` themselves. There `await_` in the others runs
what it is given, too, so that a client that one cell has opened serves the next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .._thread.runner import lent_loop


@contextlib.contextmanager
def one_loop() -> Iterator[None]:
    from IPython.core.async_helpers import get_asyncio_loop

    with lent_loop(get_asyncio_loop):
        yield
