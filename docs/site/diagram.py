"""Diagrams, drawn of text: a block of code whose language is `text diagram`, and what it shows, becomes an SVG.

The text is one that reads well as it is, with box-drawing characters for lines and ▶◀▲▼ for heads of arrows. Each character
has its cell, so nothing is laid out; lines and letters take the colours of the page, in dark mode, too.
"""

from __future__ import annotations

import html
import re

WIDE, HIGH = 8, 17  # a cell
# Where from the middle of its cell a line goes.
LINES = {
    "─": "lr",
    "│": "ud",
    "┆": "ud",  # dashed
    "┌": "rd",
    "┐": "ld",
    "└": "ru",
    "┘": "lu",
    "├": "udr",
    "┤": "udl",
    "┬": "lrd",
    "┴": "lru",
    "┼": "lrud",
}
ENDS = {"l": (0, HIGH / 2), "r": (WIDE, HIGH / 2), "u": (WIDE / 2, 0), "d": (WIDE / 2, HIGH)}
HEADS = {
    "▶": ((0, -4), (8, 0), (0, 4)),
    "◀": ((8, -4), (0, 0), (8, 4)),
    "▲": ((0, 4), (4, -5), (8, 4)),
    "▼": ((0, -4), (4, 5), (8, -4)),
}
WORDS = re.compile(
    "[^" + "".join([*LINES, *HEADS]) + r"\s]+(?: [^" + "".join([*LINES, *HEADS]) + r"\s]+)*"
)


def svg(text: str, shows: str) -> str:
    rows = text.rstrip("\n").split("\n")
    width, height = max(map(len, rows)) * WIDE, len(rows) * HIGH
    paths = {"solid": "", "dashed": ""}
    parts = []
    for row, line in enumerate(rows):
        for column, letter in enumerate(line):
            x, y = column * WIDE, row * HIGH
            if letter in HEADS:
                corners = " ".join(f"{x + dx:g},{y + HIGH / 2 + dy:g}" for dx, dy in HEADS[letter])
                parts.append(f'<polygon points="{corners}"/>')
            for way in LINES.get(letter, ""):
                dx, dy = ENDS[way]
                kind = "dashed" if letter == "┆" else "solid"
                paths[kind] += f"M{x + WIDE / 2:g} {y + HIGH / 2:g}L{x + dx:g} {y + dy:g}"
        for words in WORDS.finditer(line):
            # The length holds it to its cells, whatever the font is.
            parts.append(
                f'<text x="{words.start() * WIDE}" y="{row * HIGH + 13}" textLength="{len(words[0]) * WIDE}">'
                f"{html.escape(words[0])}</text>"
            )
    drawn = "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in paths.items() if path)
    # A phone shows it smaller, as far as it can be read, and scrolls beyond that.
    size = f"width: 100%; max-width: {width}px; min-width: {width * 2 // 3}px"
    return (
        f'<div class="diagram"><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'style="{size}" role="img" aria-label="{html.escape(shows, quote=True)}">'
        f"{drawn}{''.join(parts)}</svg></div>"
    )
