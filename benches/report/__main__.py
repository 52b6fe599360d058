"""One page with the plots of the benches, run on this machine: `make bench-report`, or `python benches/report`.

Runs the benches, quickly unless `--full`, and writes `target/bench-report/index.html`: a plot for what was measured side by
side, with the command, the machine and its load, the versions; and all that each has printed, which is kept beside it as
`NAME.txt`. Benches in Rust need cargo. Where fiberback takes longer than a peer its bar is orange, and says so.

`--keep` puts the runs into `docs/figures`, from where the documents take their figures (`make figures`); `--from FOLDER`
draws runs that are there. Nothing is needed but the standard library.
"""

from __future__ import annotations

import argparse
import html
import shutil
import sys
from pathlib import Path

import runs
from drawn import COLOURS, figure, plots

HEAD = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>fiberback: benchmark report</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: auto; padding: 1rem; }}
h2 {{ overflow-wrap: anywhere; }} pre {{ overflow-x: auto; font-size: 13px; }}
{COLOURS}</style>
<h1>Benchmark report</h1>
<p>Blue is fiberback, orange is fiberback where a peer takes less, grey is everybody else and native code.</p>
"""


def page(found: list[runs.Run]) -> str:
    parts = [HEAD]
    for run in found:
        parts.append(f"<h2><code>{html.escape(run.command)}</code></h2>")
        parts += [figure(plot, run) for group in run.groups() for plot in plots(group)]
        parts.append(
            f"<details><summary>All that it printed</summary><pre>{html.escape(run.said)}</pre></details>"
        )
    return "\n".join([*parts, "</html>", ""])


def main() -> int:
    benches = [*runs.PYTHON, *runs.RUST]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("benches", nargs="*", help=f"of {', '.join(benches)}; all unless named")
    parser.add_argument("--full", action="store_true", help="not quickly: hours")
    parser.add_argument("--keep", action="store_true", help="as docs/figures, too")
    parser.add_argument("--from", type=Path, dest="folder", help="run nothing")
    parser.add_argument("--output", type=Path, default=runs.ROOT / "target/bench-report")
    options = parser.parse_args()
    unknown = set(options.benches) - set(benches)
    if unknown:
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    found: list[runs.Run] = []
    options.output.mkdir(parents=True, exist_ok=True)
    if options.folder:
        found = list(runs.kept(options.folder).values())
    else:
        for name in options.benches or benches:
            if name in runs.RUST and shutil.which("cargo") is None:
                print(f"report: {name} left out, for there is no cargo", flush=True)
                continue
            print(f"report: {name}", flush=True)
            found.append(runs.run(name, options.full))
            for folder in [options.output, *([runs.KEPT] if options.keep else [])]:
                (folder / f"{name}.txt").write_text(found[-1].text(), encoding="utf-8")
    (options.output / "index.html").write_text(page(found), encoding="utf-8")
    drawn = sum(len(list(plots(group))) for run in found for group in run.groups())
    print(f"report: {drawn} plots in {options.output / 'index.html'}")
    ended = all("NOT RUN TO ITS END" not in run.said for run in found)
    return 0 if drawn and ended else 1


if __name__ == "__main__":
    sys.exit(main())
