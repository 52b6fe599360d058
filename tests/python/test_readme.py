"""Every Python code block of the documents runs as it stands."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys

import pytest
from support import import_or_skip, only_fiberback

pytestmark = pytest.mark.sampled

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ["README.md", "pyext/README.md", "pyext/PARKING.md"]
# Whose blocks are not programs, and who runs them.
ELSEWHERE = {
    "docs/debugging.md": "see/test_debugging.py",
    "docs/jupyter.md": "stands_in_for/test_ipython.py",
    "docs/pytest.md": "serves/test_pytest.py",
}
# What modules of ours stand on.
STAND_ON = {"asgiref": "asgiref", "gevent": "gevent", "greenback": "greenback"}


def blocks():
    docs = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    for page in [*PAGES, *docs]:
        text = (ROOT / page).read_text()
        if page in ELSEWHERE:
            continue
        marks = [] if page in PAGES else [pytest.mark.sampled]
        for match in re.finditer(
            r"^ *```(?:python|py)\b[^\n]*\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL
        ):
            line = text[: match.start()].count("\n") + 2
            yield pytest.param(page, line, match[1], id=f"{page}:{line}", marks=marks)


def needs(code):
    """The modules that a block imports, but for the standard library's and fiberback."""
    for node in ast.walk(ast.parse(code)):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
        for first, _, rest in (name.partition(".") for name in names):
            if first == "fiberback":
                first = STAND_ON.get(rest.partition(".")[0], "fiberback")
            if first not in (*sys.stdlib_module_names, "fiberback"):
                yield first


@only_fiberback
@pytest.mark.parametrize("page, line, code", list(blocks()))
def test_code_block(page, line, code, tmp_path):
    for name in needs(code):
        import_or_skip(name)
    # As many empty lines as stand before it, so that errors name the page's own.
    (tmp_path / "block.py").write_text("\n" * (line - 1) + code)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "block.py")],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")


@only_fiberback
def test_every_page_has_code():
    assert {param.values[0] for param in blocks()} >= {*PAGES, "docs/coming-from-unasync.md"}


@pytest.mark.parametrize("page", ELSEWHERE)
def test_the_other_pages_are_run_elsewhere(page):
    assert pathlib.Path(page).name in (pathlib.Path(__file__).parent / ELSEWHERE[page]).read_text()


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs/recipes").glob("*.md")), ids=lambda page: page.stem
)
def test_every_recipe_runs(page):
    """Has a block, or a file of the examples, all of which are tests; and is listed."""
    text = page.read_text()
    assert (
        "```python" in text
        or re.search(r"\]\(\.\./\.\./examples/[\w/]+\.(?:py|rs)(?:#\w+)?\)", text)
        or page.stem == "README"
    )
    assert f"]({page.name})" in (page.parent / "README.md").read_text() or page.stem == "README"


def test_no_block_of_rust_is_left_alone():
    """Those of the README are the crate's doctests; pages show examples, which are tests."""
    assert [
        page
        for page in (ROOT / "docs").rglob("*.md")
        if re.search(r"^ *```(?:rust|rs)\b", page.read_text(), re.MULTILINE)
    ] == []
