"""One page with the plots of the benches, run on this machine: `make bench-report`, or `python benches/report.py`.

Runs the benches (`--quick`, unless `--full`), reads what they print, and writes `target/bench-report/index.html`: a plot
for each line `title [unit]: name value  name value`, for the tables of `parking.py` and `greenlets.py`, and all that each
has said. Each section says its command; the page says the machine, its load, and the versions. Where fiberback loses, its
bar is the longer one.

`--from FILE...` draws what benches have printed before. Nothing is needed but the standard library.
"""

from __future__ import annotations

import argparse
import datetime
import html
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCHES = ["portal.py", "parking.py", "greenlets.py", "asgiref.py", "orm.py", "dump.py"]
QUICK = {"dump.py": ["--tasks", "1000", "--rounds", "3"]}
PEERS = ["greenback", "greenlet", "sqlalchemy", "asgiref", "uvloop", "asyncpg"]

Plot = tuple[str, str, list[tuple[str, float]]]  # title, unit, bars

MEDIANS = re.compile(r"^(?P<title>\S[^\n]*?) \[(?P<unit>[^]]+)\]: (?P<bars>.+)$", re.MULTILINE)
BAR = re.compile(r"(\S+) (-?[\d,]+(?:\.\d+)?)(?:  |$)")
PARKING = re.compile(r"^ +([\d,]+)" + r" +(-?[\d.]+)" * 6 + "$", re.MULTILINE)
GREENLETS = re.compile(r"^(\S.*?) +([\d,]+) ?(\w+) +([\d,]+) ?\3 +\d+\.\d\d$", re.MULTILINE)


def number(text: str) -> float:
    return float(text.replace(",", ""))


def plots(said: str) -> Iterator[Plot]:
    """What can be drawn of what a bench has printed."""
    for match in MEDIANS.finditer(said):
        bars = [(name, number(value)) for name, value in BAR.findall(match["bars"])]
        if bars:
            yield match["title"], match["unit"], bars
    rows = PARKING.findall(said)
    for at, what in ((1, "sleep(0)"), (4, "a future")):
        if rows:
            bars = [
                (f"{row[0]}, {side}", float(row[at + way]))
                for row in rows
                for way, side in enumerate(("native", "parked"))
            ]
            yield f"one caller that waits for {what}, while so many others only wait", "µs", bars
    for name, ours, unit, theirs in GREENLETS.findall(said):
        yield name, unit, [("fiberback", number(ours)), ("greenlet", number(theirs))]


def svg(plot: Plot) -> str:
    """Bars, in the colours of the page's text: dark mode and phones need nothing of their own."""
    title, unit, bars = plot
    longest = max((value for _, value in bars), default=0) or 1
    left, right, step, width = 150, 90, 24, 640
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {len(bars) * step + 6}" role="img" '
        f'aria-label="{html.escape(f"{title} [{unit}]", quote=True)}" font-family="system-ui, sans-serif" font-size="13">'
    ]
    for at, (name, value) in enumerate(bars):
        y = at * step + 3
        length = max(value, 0) / longest * (width - left - right)
        ours = name.startswith("fiberback") or name.endswith("parked")
        lines.append(
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end" fill="#7a7f87">{html.escape(name)}</text>'
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="18" rx="2" fill="{"#2f7fd8" if ours else "#9aa3ad"}"/>'
            f'<text x="{left + length + 6:.1f}" y="{y + 14}" fill="#7a7f87">{value:,g} {html.escape(unit)}</text>'
        )
    return "\n".join([*lines, "</svg>"])


def machine() -> str:
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)
        model = found[1] if found else model
    load = f", load {os.getloadavg()[0]:.1f} when it began" if hasattr(os, "getloadavg") else ""
    return f"{os.cpu_count()} × {model}, {platform.system()} {platform.release()}{load}"


def versions() -> str:
    found = []
    for name in ["fiberback", *PEERS]:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{platform.python_implementation()} {platform.python_version()}; " + ", ".join(found)


HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>fiberback: benchmark report</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: auto; padding: 1rem; }
svg { width: 100%; height: auto; } pre { overflow-x: auto; font-size: 13px; } h3 { margin-bottom: .2em; font-size: 1rem; }
</style>
<h1>Benchmark report</h1>
"""


def page(facts: list[str], sections: list[tuple[str, str]]) -> str:
    parts = [HEAD, *(f"<p>{html.escape(fact)}</p>" for fact in facts)]
    for command, said in sections:
        parts.append(f"<h2><code>{html.escape(command)}</code></h2>")
        for plot in plots(said):
            parts.append(f"<h3>{html.escape(plot[0])}</h3>\n{svg(plot)}")
        parts.append(
            f"<details><summary>All that it printed</summary><pre>{html.escape(said)}</pre></details>"
        )
    return "\n".join([*parts, "</html>", ""])


def run(name: str, full: bool) -> tuple[str, str]:
    arguments = [] if full else QUICK.get(name, ["--quick"])
    done = subprocess.run(
        [sys.executable, str(ROOT / "benches" / name), *arguments], capture_output=True, text=True
    )
    said = done.stdout
    if done.returncode not in (0, 1) or not said:  # 1: a target was missed, which the output says
        said += f"NOT RUN TO ITS END (exit {done.returncode}): {done.stderr.strip()[-500:]}\n"
    return " ".join(["python", f"benches/{name}", *arguments]), said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("benches", nargs="*", help=f"of {', '.join(BENCHES)}; all unless named")
    parser.add_argument("--full", action="store_true", help="not --quick: an hour")
    parser.add_argument("--from", nargs="+", dest="files", default=[], metavar="FILE")
    parser.add_argument("--output", type=Path, default=ROOT / "target/bench-report/index.html")
    options = parser.parse_args()
    facts = [f"{datetime.date.today()}. {machine()}.", f"{versions()}."]
    if options.files:
        facts = ["Drawn from what was printed before."]
        sections = [(each, Path(each).read_text(encoding="utf-8")) for each in options.files]
    else:
        sections = []
        for name in options.benches or BENCHES:
            print(f"report: benches/{name}", flush=True)
            sections.append(run(name, options.full))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(facts, sections), encoding="utf-8")
    drawn = sum(len(list(plots(said))) for _, said in sections)
    print(f"report: {drawn} plots in {options.output}")
    return 0 if drawn else 1


if __name__ == "__main__":
    sys.exit(main())
