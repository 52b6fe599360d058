"""Figures as SVG: bars, in the colours of the page that they are part of, so that dark mode needs nothing of its own.

Each bar has its name and value above it, which a phone has room for. Where fiberback takes longer than a peer (not than
native code, which is drawn as well), its bar has another colour, and says how many times as long.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Iterator

from runs import Run
from said import Group, digits, shown

OURS = re.compile(
    r"fiber|parked|blocking\(\)|await_|^run|portal|^(?:dump|stacks|scope|map_concurrent|join|wrapped)$"
    r"|spawn_local|PinnedPool|/(?:handler|reader)$|install"
)
NATIVE = re.compile(r"\bnative\b|corosensei|alone$|^std$|/async$|page")
SIDE = re.compile(r"(.*), (native|parked|fiberback|greenlet)")
MANY = 12  # bars, beyond which a group is drawn as several, by the words before the colon

COLOURS = """figure.plot { margin: 1.5em 0; }
figure.plot svg { width: 100%; max-width: 30rem; height: auto; display: block; }
figure.plot figcaption { font-weight: 600; margin-bottom: .3em; }
figure.plot small { font-size: .75em; font-weight: 400; line-height: 1.3; opacity: .75; overflow-wrap: anywhere; }
figure.plot > small { display: block; margin-top: .4em; }
figure.plot .ours { fill: #2f7fd8; } figure.plot .loses { fill: #d9730d; }
figure.plot .other { fill: currentColor; opacity: .35; }
figure.plot text { fill: currentColor; }
"""


def plots(group: Group) -> Iterator[Group]:
    """What is drawn of a group as one plot each: nothing of a single figure."""
    if len(group.figures) <= MANY:
        if len(group.figures) > 1:
            yield group
        return
    kinds: dict[str, dict[str, float]] = {}
    for name, value in group.figures.items():
        kind, _, rest = name.rpartition(": ")
        kinds.setdefault(kind, {})[rest] = value
    for kind, figures in kinds.items():
        if kind and len(figures) > 1:
            yield dataclasses.replace(group, title=f"{kind}: {group.title}", figures=figures)


def rival(group: Group, name: str) -> tuple[str, float] | None:
    """The best of the peers that `name`, one of ours, is worse than, and how many times."""
    ours, best = group.figures[name], None
    for peer, value in group.figures.items():
        if OURS.search(peer) or NATIVE.search(peer) or beside(peer)[0] != beside(name)[0]:
            continue
        if min(ours, value) <= 0:
            continue
        times = value / ours if group.more_is_better else ours / value
        if times > 1.005 and (best is None or times > best[1]):
            best = (beside(peer)[1], times)
    return best


def beside(name: str) -> tuple[str, str]:
    """Where a group has rows, which, and whose figure it is."""
    match = SIDE.fullmatch(name)
    return (match[1], match[2]) if match else ("", name)


def svg(group: Group) -> str:
    longest = max(group.figures.values()) or 1
    width, step = 420, 38
    label = html.escape(f"{group.title}: " + ", ".join(said(group)), quote=True)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {len(group.figures) * step}" '
        f'role="img" aria-label="{label}" font-family="system-ui, sans-serif" font-size="13">'
    ]
    for at, (name, value) in enumerate(group.figures.items()):
        y = at * step
        kind, worse = "other", ""
        if OURS.search(name):
            peer = rival(group, name)
            kind = "loses" if peer else "ours"
            if peer:
                worse = f"{digits(peer[1])} × worse than {peer[0]}: "
        lines.append(
            f'<text x="0" y="{y + 14}">{html.escape(name)}</text>'
            f'<text x="{width}" y="{y + 14}" text-anchor="end">{html.escape(worse + shown(value, group.unit))}</text>'
            f'<rect class="{kind}" x="0" y="{y + 19}" width="{max(value, 0) / longest * width:.1f}" height="10" rx="2"/>'
        )
    return "\n".join([*lines, "</svg>"])


def said(group: Group) -> list[str]:
    return [f"{name} {shown(value, group.unit)}" for name, value in group.figures.items()]


def figure(group: Group, run: Run) -> str:
    """A plot with all that its figures depend on."""
    better = "more is better" if group.more_is_better else "less is better"
    return (
        f'<figure class="plot">\n<figcaption>{html.escape(group.title)} <small>({better})</small></figcaption>\n'
        f"{svg(group)}\n<small><code>{html.escape(run.command)}</code>, {html.escape(run.shape)}</small>\n</figure>"
    )
