"""What the documents name must be there: files, tests, and the anchors of links between documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Where a path in a document may begin; the packages' own are named from within.
BASES = (ROOT, ROOT / "pyext/python/fiberback")
DOCUMENTS = [
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
    "CONTRIBUTING.md",
    "README.md",
    "examples/README.md",
    "pyext/PARKING.md",
]
FILE = re.compile(r"`([\w./-]+/[\w.-]+\.(?:rs|py|md|c|toml))`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
# Not a file of ours but a rule for one.
PATTERNS = {"pyext/src/interp/cp3NN.rs"}


def missing(document: Path) -> list[str]:
    text = document.read_text(encoding="utf-8")
    gone = [
        name
        for name in FILE.findall(text)
        if name not in PATTERNS and not any((base / name).exists() for base in BASES)
    ]
    # What is built beside the site's pages is not there yet.
    links = [link for link in LINK.findall(text) if "/target/site/" not in link]
    return gone + [link for link in links if not (document.parent / link).exists()]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_named_exists(name):
    assert missing(ROOT / name) == []


def test_a_file_that_is_not_there_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("See `src/fiber/never.rs` and [this](nowhere.md), not `src/fiber/switch.rs`.")
    assert missing(page) == ["src/fiber/never.rs", "nowhere.md"]


def test_every_known_crash_has_its_test():
    rows = [
        line
        for line in (ROOT / "docs/known-crashes.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| what happens")
    ]
    assert len(rows) > 10
    for row in rows:
        assert FILE.search(row.rstrip(" |").rpartition(" | ")[2]), row
