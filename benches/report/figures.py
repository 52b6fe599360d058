"""Puts the figures of `docs/figures/` into the documents, so that nobody types them: `make figures`.

A document has, between two comments that name a template there (`*.in`), what that comes to. A field of a template is

    <<switch: ready: await_>>                               the run, and what it measured
    <<handlers: 64 connections, waiting for two tasks > /task/handler>>
                                                            with its group's title, or how that begins, where two have it
    <<switch: ready: await_ / ready: native>>               a ratio: the bench's own, or else that of the two
    <<portal.py: plain step > fiberback - native>>          a difference, or by ` + ` a sum
    <<parking.py: parking and > *>>                         from the least to the most of a group
    <<switch shape>>, <<switch command>>                    when, which machine, what else it did, which versions

`!raw` behind a figure leaves its unit out. What no run here has measured is `<<typed: 17 ms | where that is from>>`, which a
reader of the document gets as `17 ms†`.

`python benches/report/figures.py` writes the documents; `--check` says what would change, with exit code 1.
"""

from __future__ import annotations

import argparse
import re
import sys

from runs import KEPT, ROOT, Run, kept
from said import Group, digits, shown

DOCUMENTS = ["README.md", "docs/costs.md"]
FIELD = re.compile(r"<<(.+?)>>")
PART = re.compile(r" ([+-]) ")


class Unknown(Exception):
    """A field names what is not there."""


def part(groups: list[Group], title: str, name: str) -> tuple[float, Group]:
    """One figure, or a sum."""
    names = PART.split(name)
    found = [
        group
        for group in titled(groups, title)
        if all(each in group.figures for each in names[::2])
    ]
    if len(found) != 1:
        raise Unknown(f"{len(found)} groups of figures have {names[::2]} below {title!r}")
    value = found[0].figures[names[0]]
    for sign, each in zip(names[1::2], names[2::2], strict=True):
        value += found[0].figures[each] * (1 if sign == "+" else -1)
    return value, found[0]


def titled(groups: list[Group], title: str) -> list[Group]:
    """By the whole title, or else by its beginning."""
    return [group for group in groups if group.title == title] or [
        group for group in groups if group.title.startswith(title)
    ]


def ratio(groups: list[Group], title: str, over: str, under: str) -> float:
    above, group = part(groups, title, over)
    below, _ = part([group], "", under)
    if f"{over} / {under}" in group.ratios:
        return group.ratios[f"{over} / {under}"]
    if f"{under} / {over}" in group.ratios and group.ratios[f"{under} / {over}"]:
        return 1 / group.ratios[f"{under} / {over}"]
    return above / below


def spread(groups: list[Group], title: str) -> str:
    found = titled(groups, title)
    if not found or len({group.unit for group in found}) != 1:
        raise Unknown(f"no one kind of figures below {title!r}")
    values = [value for group in found for value in group.figures.values()]
    least, most = (shown(value, found[0].unit) for value in (min(values), max(values)))
    if least.split()[1:] == most.split()[1:]:
        least = least.split()[0]
    return f"{least} to {most}"


def value(field: str, runs: dict[str, Run]) -> str:
    if field.startswith("typed: "):
        text, _, source = field.removeprefix("typed: ").partition(" | ")
        if not source.strip():
            raise Unknown(f"no source of {text!r}")
        return f"{text}†"
    bench, _, rest = field.partition(": ")
    bench, _, fact = bench.partition(" ")
    if bench not in runs:
        raise Unknown(f"docs/figures has no run of {bench!r}")
    if fact:
        return {"shape": runs[bench].shape, "command": f"`{runs[bench].command}`"}[fact]
    groups = runs[bench].groups()
    raw = rest.endswith("!raw")
    title, _, name = rest.removesuffix("!raw").rpartition(" > ")
    if name == "*":
        return spread(groups, title)
    over, is_ratio, under = name.partition(" / ")
    if is_ratio:
        return digits(ratio(groups, title, over, under))
    found, group = part(groups, title, name)
    return f"{found:,.0f}" if raw else shown(found, group.unit)


def filled(template: str, runs: dict[str, Run]) -> str:
    """Paragraphs and lists are not wrapped anew, so that a new figure is a small change."""
    return FIELD.sub(lambda match: value(match[1], runs), template)


def document(text: str, runs: dict[str, Run]) -> str:
    for path in sorted(KEPT.glob("*.in")):
        name = path.relative_to(ROOT).as_posix()
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, found, rest = text.partition(begin)
        if found:
            inner = filled(path.read_text(encoding="utf-8"), runs)
            text = before + begin + inner + end + rest.partition(end)[2]
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    runs, stale = kept(), []
    for name in DOCUMENTS:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        try:
            wanted = document(text, runs)
        except Unknown as error:
            print(f"{name}: {error}")
            return 1
        if text != wanted:
            stale.append(name)
            if not options.check:
                path.write_text(wanted, encoding="utf-8")
    if stale and options.check:
        print("other figures than docs/figures has, type `make figures`:", *stale)
    return bool(stale and options.check)


if __name__ == "__main__":
    sys.exit(main())
