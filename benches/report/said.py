"""What the benches have printed, as groups of figures: what is drawn, and what documents take their figures from.

A group is what was measured side by side. Each reader below knows the lines of one bench; those in Rust all print by
`benches/harness`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator

NANOSECONDS = {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}


@dataclasses.dataclass
class Group:
    """Figures by the name of what each is of; times are in ns. `ratios`: those that the bench itself has printed."""

    title: str
    unit: str
    figures: dict[str, float]
    more_is_better: bool = False
    ratios: dict[str, float] = dataclasses.field(default_factory=dict)


def number(text: str) -> float:
    return float(text.replace(",", ""))


def groups(bench: str, said: str) -> list[Group]:
    """Of what `bench` has printed: `portal.py`, or `switch` for one in Rust."""
    return [group for group in READERS.get(bench, harness)(said) if group.figures]


def shown(value: float, unit: str) -> str:
    """In its best unit, to three digits."""
    if unit == "ns":
        for name, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
            if abs(value) >= scale:
                return f"{digits(value / scale)} {name}"
        return f"{digits(value)} ns"
    if unit == "bytes":
        for name, scale in (("MiB", 2.0**20), ("KiB", 2.0**10)):
            if abs(value) >= scale:
                return f"{digits(value / scale)} {name}"
        return f"{value:,.0f} bytes"
    return f"{value:,.0f} {unit}".rstrip()


def digits(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return text.rstrip("0").rstrip(".")


# --- benches in Python -----------------------------------------------------------------------------

PORTAL = re.compile(r"^(?P<title>\S[^\n]*?) \[(?P<unit>[^]]+)\]: (?P<figures>.+)$", re.MULTILINE)
FIGURE = re.compile(r"(\S+) (-?[\d,]+(?:\.\d+)?)(?:  |$)")


def portal(said: str) -> Iterator[Group]:
    for match in PORTAL.finditer(said):
        figures = {name: number(value) for name, value in FIGURE.findall(match["figures"])}
        yield Group(match["title"], match["unit"], figures)


PARKING = re.compile(r"^ +([\d,]+)" + r" +(-?[\d.]+)" * 6 + "$", re.MULTILINE)
WAITING = re.compile(
    r"^resident memory of a waiting caller.*\n((?: +\w+ +[\d.]+\n)+)", re.MULTILINE
)
FIELD = re.compile(r"^ +([\d,]+) +([\d.]+) +([\d.]+) +-?[\d.]+  (?:PASS|MISS)", re.MULTILINE)


def parking(said: str) -> Iterator[Group]:
    rows = PARKING.findall(said)
    for at, what in ((1, "sleep(0)"), (4, "a future")):
        figures = {
            f"{row[0]}, {side}": number(row[at + way]) * 1e3
            for row in rows
            for way, side in enumerate(("native", "parked"))
        }
        yield Group(
            f"one caller that waits for {what}, while so many others only wait", "ns", figures
        )
        cost = {f"{row[0]} parked": number(row[at + 2]) * 1e3 for row in rows}
        yield Group(f"parking and resuming that caller, beyond the loop's turn: {what}", "ns", cost)
    for match in WAITING.finditer(said):
        memory = dict(line.split() for line in match[1].splitlines())
        yield Group(
            "resident memory of a waiting caller",
            "bytes",
            {name: float(size) * 1024 for name, size in memory.items()},
        )
    figures = {
        f"{callers}, {side}": number(value) * 1e3
        for callers, *both in FIELD.findall(said)
        for side, value in zip(("native", "parked"), both, strict=True)
    }
    yield Group(
        "so many callers loop at once, greenlet loaded, a million objects more", "ns", figures
    )


GREENLETS = re.compile(
    r"^(\S.*?) +([\d,]+)( ns|) +([\d,]+)\3 +(\d+\.\d\d)$",
    re.MULTILINE,
)


def greenlets(said: str) -> Iterator[Group]:
    """Switches by depth are one group; each of the others is one."""
    by_depth: dict[str, Group] = {}
    for name, ours, unit, theirs, ratio in GREENLETS.findall(said):
        kind, what = "ns" if unit else "bytes", name
        if re.match(r"(?:bytes, )?\d+ deep", name):
            what = (
                "a suspended greenlet, by depth"
                if not unit
                else "a switch there and back, by depth"
            )
        group = by_depth.setdefault(what, Group(what, kind, {}))
        prefix = f"{name.removeprefix('bytes, ')}, " if what != name else ""
        group.figures |= {
            f"{prefix}fiberback": number(ours),
            f"{prefix}greenlet": number(theirs),
        }
        group.ratios[f"{prefix}fiberback / {prefix}greenlet"] = float(ratio)
    yield from by_depth.values()


ASGIREF = re.compile(r"^(\S.*?) +([\d.]+) +([\d.]+) +(\d+\.\d\d)$", re.MULTILINE)
REQUESTS = re.compile(r"^(requests each second, \w+ view) .*\n((?:\S.*\n?)+)", re.MULTILINE)
RATE = re.compile(r"^(\S.*?) {2,}(\d+) +(\d+\.\d\d)$", re.MULTILINE)


def asgiref(said: str) -> Iterator[Group]:
    rest = said.partition("microseconds of the process for each call")[2]
    calls = rest.partition("\nrequests each second")[0]
    for name, theirs, ours, ratio in ASGIREF.findall(calls):
        figures = {"asgiref": float(theirs) * 1e3, "fiberback": float(ours) * 1e3}
        yield Group(name, "ns", figures, ratios={"asgiref / fiberback": float(ratio)})
    for title, rows in REQUESTS.findall(rest):
        rates = RATE.findall(rows)
        yield Group(
            title,
            "",
            {name: float(rate) for name, rate, _ in rates},
            more_is_better=True,
            ratios={f"{name} / {rates[0][0]}": float(ratio) for name, _, ratio in rates},
        )


ORM = re.compile(r"^(ORM queries per second.*):\n((?:    .*\n?)+)", re.MULTILINE)
QUERIES = re.compile(r"^    (\S.*?) +([\d,]+)   \(", re.MULTILINE)


def orm(said: str) -> Iterator[Group]:
    for title, rows in ORM.findall(said):
        figures = {name: number(rate) for name, rate in QUERIES.findall(rows)}
        yield Group(title, "", figures, more_is_better=True)


CAPTURES = re.compile(r"^(\w+) +([\d.]+)   [\d.]+ x native capture$", re.MULTILINE)


def dump(said: str) -> Iterator[Group]:
    rows = CAPTURES.findall(said)
    title = said.partition(" tasks,")[0].rpartition(" ")[2] + " suspended tasks, looked at once"
    yield Group(title, "ns", {name: float(seconds) * 1e9 for name, seconds in rows})


DOWNLOADS = re.compile(
    r"^  (\S.*?) +(\d+) ms +[\d.]+ x httpx +largest gap +([\d.]+) ms +memory +(-?[\d.]+) MiB$",
    re.MULTILINE,
)
GETS = re.compile(r"^  (redis\S*(?: \S+)?) +(\d+)(?:  .*)?$", re.MULTILINE)
HOOKED = re.compile(r"^  (\S.*?) +(\d+) ns, hooked +(\d+) ns:", re.MULTILINE)


def blocking(said: str) -> Iterator[Group]:
    rows = DOWNLOADS.findall(said)
    title = next((line for line in said.splitlines() if " downloads at one time " in line), "")
    yield Group(title, "ns", {row[0]: float(row[1]) * 1e6 for row in rows})
    yield Group(
        "the same: largest gap of the loop", "ns", {row[0]: float(row[2]) * 1e6 for row in rows}
    )
    yield Group("the same: memory", "bytes", {row[0]: float(row[3]) * 2**20 for row in rows})
    title = next((line for line in said.splitlines() if line.startswith("GETs per second")), "")
    if title:
        rates = {name: float(rate) for name, rate in GETS.findall(said)}
        yield Group(title, "", rates, more_is_better=True)
    for name, plain, hooked in HOOKED.findall(said):
        yield Group(name, "ns", {"native": float(plain), "within blocking()": float(hooked)})


ENGINE = re.compile(
    r"^ *(\S.*): fiberback (-?[\d.]+) (\w+)\n((?:    \S.*: -?[\d.]+ \w+, ratio -?[\d.]+\n?)+)",
    re.MULTILINE,
)
OTHER = re.compile(r"^    (\S.*): (-?[\d.]+) \w+, ratio (-?[\d.]+)$", re.MULTILINE)


def engines(said: str) -> Iterator[Group]:
    for title, ours, unit, others in ENGINE.findall(said):
        scale = NANOSECONDS.get(unit, 1024.0)
        figures = {"fiberback": float(ours) * scale}
        figures |= {name: float(value) * scale for name, value, _ in OTHER.findall(others)}
        ratios = {f"fiberback / {name}": float(value) for name, _, value in OTHER.findall(others)}
        yield Group(title, "ns" if unit in NANOSECONDS else "bytes", figures, ratios=ratios)


# --- benches in Rust -------------------------------------------------------------------------------

TIME = re.compile(r"(\S.*?) {2,}([\d.]+) (ns|us|ms|s)(?:, processor +[\d.]+ (?:ns|us|ms|s))?")
RATIO = re.compile(r"(\S.*? / \S.*?): ([\d.]+)(?:, processor [\d.]+)?(?:   \(target .*\))?")


def harness(said: str) -> Iterator[Group]:
    """Lines `name  12.3 ns`, of which the last other line is the title, then lines `name / name + name: 1.23`."""
    group: Group | None = None
    title = ""
    for line in [*said.splitlines(), ""]:
        time, ratio = TIME.fullmatch(line), RATIO.fullmatch(line)
        if time:
            if group is None:
                group = Group(re.sub(r"(?:, |: )?(?:median)?:?$", "", title), "ns", {})
            group.figures[time[1]] = float(time[2]) * NANOSECONDS[time[3]]
        elif ratio and group is not None:
            group.ratios[ratio[1]] = float(ratio[2])
        elif line:
            if group is not None and not line.startswith("ratios, "):
                yield group
                group = None
            title = line
    if group is not None:
        yield group


MILLION = re.compile(
    r"^(\d+ fibers suspended at once, .*):\n(?:.*\n){2}  resident +([\d.]+) KiB.*\n.*\n  mappings +(\d+)",
    re.MULTILINE,
)


def million(said: str) -> Iterator[Group]:
    for title, resident, mappings in MILLION.findall(said):
        figures = {"fiber": float(resident) * 1024, "the pages that it touches": 4096.0}
        yield Group(f"{title}: resident, each", "bytes", figures)
        yield Group(f"{title}: mappings of the process", "", {"fibers": float(mappings)})


READERS: dict[str, Callable[[str], Iterator[Group]]] = {
    "asgiref.py": asgiref,
    "blocking.py": blocking,
    "dump.py": dump,
    "engines.py": engines,
    "greenlets.py": greenlets,
    "million": million,
    "orm.py": orm,
    "parking.py": parking,
    "portal.py": portal,
}
