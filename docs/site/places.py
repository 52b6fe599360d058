"""Where a file of Python or Rust defines a name: for links to it, and for examples that show one function alone."""

from __future__ import annotations

import re


def place_of(lines: list[str], name: str) -> tuple[int, str] | None:
    """The index of the first line that defines `name`, and how far it is indented."""
    begins = re.compile(
        r"(\s*)(?:pub(?:\([^)]*\))? )?(?:async )?(?:unsafe )?"
        rf"(?:def|class|fn|struct|enum|impl(?: \w+ for)?) {re.escape(name)}\b"
    )
    for at, line in enumerate(lines):
        match = begins.match(line)
        if match:
            return at, match[1]
    return None
