"""Pages of the repository's own files, for links of the form `repo:PATH#NAME`: to a line by the function's name.

Sphinx extension. Only files that a page links to get one; `site:PATH` is what the build puts beside the pages.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import places
from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(os.environ["FIBERBACK_CHECKOUT"])
logger = logging.getLogger(__name__)
PLACES = re.compile(r"L\d+")


def place_of(path: str) -> str:
    return "source/" + path


def line_of(path: str, name: str) -> int | None:
    """The line that defines `name`."""
    found = places.place_of((ROOT / path).read_text(encoding="utf-8").split("\n"), name)
    return None if found is None else found[0] + 1


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    above = "../" * docname.count("/")
    for node in doctree.findall(nodes.reference):
        scheme, _, rest = node.get("refuri", "").partition(":")
        if scheme == "site":
            node["refuri"] = above + rest
        if scheme != "repo":
            continue
        path, _, anchor = rest.partition("#")
        if anchor and not PLACES.fullmatch(anchor):
            line = line_of(path, anchor)
            if line is None:
                logger.warning("%s does not define %s", path, anchor, location=node)
            anchor = f"L{line}"
        app.builder.linked_sources.add(path)  # type: ignore[attr-defined]
        node["refuri"] = f"{above}{place_of(path)}.html" + (f"#{anchor}" if anchor else "")
        if "external" in node["classes"]:
            node["classes"].remove("external")


def has_sources(app: Sphinx, doctree: nodes.document) -> None:
    """libraries.py has linked its sources: viewcode, which would import each module for that, leaves that page alone."""
    if app.env.docname == "libraries":
        for signature in doctree.findall(addnodes.desc_signature):
            signature["module"] = ""


def begin(app: Sphinx) -> None:
    app.builder.linked_sources = set()  # type: ignore[attr-defined]


def collect(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    formatter = HtmlFormatter(linenos="inline", anchorlinenos=True, lineanchors="L", linespans="")
    for path in sorted(app.builder.linked_sources):  # type: ignore[attr-defined]
        text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
        try:
            lexer = get_lexer_for_filename(path)
        except ClassNotFound:
            lexer = TextLexer()
        # Pygments names lines `L-1`.
        body = re.sub(
            r'((?:id|name)="|href="#)L-(\d+)', r"\1L\2", highlight(text, lexer, formatter)
        )
        title = html.escape(path)
        yield (
            place_of(path),
            {"title": title, "body": f"<h1><code>{title}</code></h1>\n{body}"},
            "page.html",
        )


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", begin)
    app.connect("doctree-read", has_sources, priority=100)
    app.connect("doctree-resolved", resolve)
    app.connect("html-collect-pages", collect)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
