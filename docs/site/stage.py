"""Lays out what Sphinx reads: every page of the site, below one folder, from the files of the repository.

The pages are files that read well where they lie, too: `docs/`, and the Markdown of OTHERS; those that are for Sphinx
alone are in `docs/site/pages/`. On the way here

- links to pages become links to their place on the site, links to other files of the repository, and paths in code
  spans, become `repo:PATH`, for which `sources.py` makes a page;
- blocks of `text diagram` are drawn (`diagram.py`);
- a paragraph that is nothing but a link to an example, or with `#NAME` to a function in it, gets its text below it;
- the pages of GENERATED are written from what they are the table of.

`python docs/site/stage.py FOLDER` from anywhere. Nothing is imported but the standard library: tests read it, too.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import diagram
import libraries
import places

ROOT = Path(__file__).parents[2]
# Markdown beside docs/, and where it is on the site.
OTHERS = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "examples/README.md": "examples.md",
    "pyext/PARKING.md": "parking.md",
    "pyext/fiberback-pyo3/README.md": "fiberback-pyo3.md",
}
# Where a path in a code span may begin; the packages' own are named from within.
BASES = (ROOT, ROOT / "pyext/python/fiberback")

LINK = re.compile(
    r"(?<!!)\[((?:[^][]|\[[^]]*\])*)\]\((?!https?:|mailto:|repo:)([^)\s#]*)(#[^)\s]*)?\)"
)
SPAN = re.compile(r"(?<![\[`])`([\w.-]+/[\w./-]*[\w-]+)(?:::(\w+))?`(?![\]`])")
EXAMPLE = re.compile(
    r"\[`[^`\]]+`\]\((?P<path>[^)#]*examples/[^)#]+\.(?P<kind>py|rs))(?:#(?P<item>\w+))?\)"
)
ELSEWHERE = re.compile(r"!\[[^]]*\]\(https?:[^)]*\)\n?")
FENCE = re.compile(r"\s*(`{3,}|~{3,})")
DIAGRAM = "```text diagram: "
LANGUAGES = {"py": "python", "rs": "rust"}


def pages() -> dict[str, str]:
    """Each page's file, from the repository's root, and its place on the site."""
    found = {}
    for folder in (ROOT / "docs", ROOT / "docs/site/pages"):
        for path in sorted(folder.rglob("*.md")):
            found[path.relative_to(ROOT).as_posix()] = path.relative_to(folder).as_posix()
    return found | OTHERS


def relative(path: str, to: str) -> str:
    """`to` as a link on the page `path`."""
    return os.path.relpath(to, os.path.dirname(path) or ".").replace(os.sep, "/")


def linked(line: str, file: str, place: str, known: dict[str, str]) -> str:
    """A line of prose of `file`, with its links as they are at `place`."""

    def link(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        if not target:
            return match[0]
        path = os.path.normpath(os.path.join(os.path.dirname(file), target))
        if path in known:
            return f"[{label}]({relative(place, known[path])}{anchor})"
        if path.startswith("target/site/"):  # what the build puts beside the pages
            return f"[{label}](site:{path.removeprefix('target/site/')}{anchor})"
        if (ROOT / path).is_dir():
            return label
        if not (ROOT / path).is_file():
            raise SystemExit(f"{file}: no such file: {target}")
        return f"[{label}](repo:{path}{anchor})"

    def span(match: re.Match[str]) -> str:
        path, name = match[1], match[2]
        if path.startswith("target/"):  # what commands make
            return match[0]
        for base in BASES:
            if (base / path).is_file():
                found = (base / path).relative_to(ROOT).as_posix()
                if found in known:
                    return f"[{match[0]}]({relative(place, known[found])})"
                return f"[{match[0]}](repo:{found}{'#' + name if name else ''})"
        return match[0]

    # Not inside of links, whose labels are often such spans.
    out, last = "", 0
    for match in LINK.finditer(line):
        out += SPAN.sub(span, line[last : match.start()]) + link(match)
        last = match.end()
    return out + SPAN.sub(span, line[last:])


def example(path: str, kind: str, item: str | None) -> Iterator[str]:
    """The text of an example, or of one function or class in it, with what stands directly above it."""
    lines = (ROOT / path).read_text(encoding="utf-8").rstrip("\n").split("\n")
    if item is not None:
        found = places.place_of(lines, item)
        if found is None:
            raise SystemExit(f"{path} does not define {item}")
        first, indent = found
        last = first + 1
        while last < len(lines) and (
            not lines[last] or lines[last].startswith((indent + " ", indent + ")"))
        ):
            last += 1
        if kind == "rs":
            last += 1  # the brace
        while first and re.match(r"\s*(?:///|#\[|@|# )", lines[first - 1]):
            first -= 1
        lines = [line.removeprefix(indent) for line in lines[first:last]]
        while not lines[-1]:
            del lines[-1]
    yield f"```{LANGUAGES[kind]}"
    yield from lines
    yield "```"


def staged(file: str, place: str, known: dict[str, str]) -> str:
    text = ELSEWHERE.sub("", (ROOT / file).read_text(encoding="utf-8"))  # badges are the network's
    lines = text.split("\n")
    out: list[str] = []
    fence = ""
    drawing: list[str] | None = (
        None  # the lines of a diagram, the first of which says what it shows
    )
    for at, line in enumerate(lines):
        if drawing is not None:
            if line == "```":
                out.append(raw([diagram.svg("\n".join(drawing[1:]), drawing[0])]))
                drawing = None
            else:
                drawing.append(line)
            continue
        if not fence and line.startswith(DIAGRAM):
            drawing = [line.removeprefix(DIAGRAM)]
            continue
        begins = FENCE.match(line)
        if fence or begins:
            if not fence:
                assert begins is not None
                fence = begins[1]
                line = line.replace("```rust,ignore", "```rust")  # rustdoc's word
            elif begins and begins[1].startswith(fence) and line.strip() == begins[1]:
                fence = ""
            out.append(line)
            continue
        alone = (
            not "".join(lines[max(at - 1, 0) : at]).strip()
            and not "".join(lines[at + 1 : at + 2]).strip()
        )
        shown = EXAMPLE.fullmatch(line) if alone else None
        out.append(linked(line, file, place, known))
        if shown:
            path = os.path.normpath(os.path.join(os.path.dirname(file), shown["path"]))
            out += ["", *example(path, shown["kind"], shown["item"])]
    return "\n".join(out)


# --- pages written from tables ---------------------------------------------------------------------


def matrix() -> str:
    """docs/matrix.toml as a page; each `yes` of ours leads to its test, each other cell to its probe."""
    table = tomllib.loads((ROOT / "docs/matrix.toml").read_text(encoding="utf-8"))
    columns, versions = table["columns"], table["versions"]
    lines = [
        "# Fiberback and its peers",
        "",
        "What is done, not how well. Each cell leads to what tries it: a *yes* of fiberback to the test that holds it to "
        "that, every other cell to the probe of that peer, which "
        "`python tests/python/peer_probes.py PEER FEATURE` runs and the slow lane repeats with these versions. ".rstrip(),
        "greenlet has ten lines around it that wait, which SQLAlchemy has, too.",
        "",
        "| | "
        + " | ".join(f"{who} {versions[who]}" if who in versions else who for who in columns)
        + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    probes = "tests/python/peer_probes.py"
    for feature in table["feature"]:
        cells = []
        for who in columns:
            does = "test" in feature if who == "fiberback" else who in feature["peers"]
            path, _, name = (feature["test"] if who == "fiberback" and does else probes).partition(
                "::"
            )
            cells.append(f"[{'yes' if does else 'no'}](repo:{path}{'#' + name if name else ''})")
        lines.append(f"| {feature['says']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def contents(folder: Path) -> str:
    """For the page that lists a folder's others in its tables, which are links and no table of contents."""
    listed = re.findall(r"\]\((\w[\w-]*)\.md\)", (folder / "README.md").read_text(encoding="utf-8"))
    return "\n```{toctree}\n:hidden:\n\n" + "\n".join(listed) + "\n```\n"


def more(index: str, places: list[str]) -> str:
    """Pages that the index names in none of its tables of contents: new ones, say."""
    named = set(re.findall(r"^(?:[^<\n]* <)?([\w/-]+)>?$", index, re.MULTILINE))
    pages = [place.removesuffix(".md") for place in places]
    left = [
        page for page in pages if page not in named | {"index"} and not page.startswith("recipes/")
    ]
    return (
        "\n```{toctree}\n:hidden:\n:caption: More\n\n" + "\n".join(left) + "\n```\n" if left else ""
    )


def by_text(page: str) -> str:
    """docs/errors.md with a list of how the texts begin, each of which leads to its code, before the entries."""
    head, *entries = page.split("\n## ")
    beginnings = []
    for entry in entries:
        code, _, rest = entry.partition("\n")
        text = rest.strip().partition("\n")[0]
        words = re.sub(r"[`*]|\[|\]\([^)]*\)", "", text).split()
        shown = " ".join(words[:12]) + (" ..." if len(words) > 12 else "")
        beginnings.append(f"* [{shown.replace('_', chr(92) + '_')}](#{code})")
    listed = "\n".join(sorted(beginnings, key=str.lower))
    return "\n## ".join([f"{head}\n\n## By how they begin\n\n{listed}\n", *entries])


def raw(parts: list[str]) -> str:
    return "\n".join(["````{raw} html", *parts, "````", ""])


def report() -> tuple[str, str, str]:
    """Of the runs in docs/figures: the plot for the home page, those of the report, and how they look."""
    sys.path.insert(0, str(ROOT / "benches/report"))
    import drawn
    import runs

    kept = runs.kept()
    portal = kept["portal.py"]
    titles = {group.title: group for group in portal.groups()}
    home = drawn.figure(titles["await_ of a ready coroutine"], portal)
    parts = []
    for name, run in kept.items():
        figures = [drawn.figure(plot, run) for group in run.groups() for plot in drawn.plots(group)]
        parts += [f"\n## {name}\n", raw(figures)]
    return raw([home]), "\n".join(parts), drawn.COLOURS


GENERATED: dict[str, Callable[[], str]] = {"matrix.md": matrix, "libraries.md": libraries.page}


def stage(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    known = pages() | {
        "docs/matrix.toml": "matrix.md",
        "docs/site/libraries.py": "libraries.md",
    }
    for file, place in pages().items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(staged(file, place, known), encoding="utf-8")
    with (folder / "recipes/README.md").open("a", encoding="utf-8") as page:
        page.write(contents(folder / "recipes"))
    home, figures, colours = report()
    with (folder / "figures/README.md").open("a", encoding="utf-8") as page:
        page.write(figures)
    index = folder / "index.md"
    text = index.read_text(encoding="utf-8").replace("PLOTS", home)
    index.write_text(text + more(text, [*pages().values(), *GENERATED]), encoding="utf-8")
    errors = folder / "errors.md"
    errors.write_text(by_text(errors.read_text(encoding="utf-8")), encoding="utf-8")
    for place, write in GENERATED.items():
        (folder / place).write_text(write(), encoding="utf-8")
    for each in ("conf.py", "places.py", "sources.py", "site.css"):
        shutil.copy(ROOT / "docs/site" / each, folder / each)
    with (folder / "site.css").open("a", encoding="utf-8") as style:
        style.write(colours)


if __name__ == "__main__":
    stage(Path(sys.argv[1]))
