"""Runs of benches as files: the command, the shape (when, which machine, what else it did, which versions), and all that
was printed. `docs/figures/` keeps those that documents take their figures from."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from said import Group, groups

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs/figures"
QUICK = {
    "dump.py": ["--tasks", "1000", "--rounds", "3"],
    "engines.py": ["--rounds", "1", "--tasks", "400"],
    "million": ["100000"],
}
# In the order of the page; those in Rust with the features that they need.
PYTHON = [
    "portal.py",
    "parking.py",
    "greenlets.py",
    "asgiref.py",
    "orm.py",
    "blocking.py",
    "engines.py",
    "dump.py",
]
RUST = {
    "switch": "",
    "scope": "",
    "million": "",
    "blocking": "tokio",
    "io": "io",
    "codecs": "io",
    "handlers": "io,stream",
}
PEERS = [
    "greenback",
    "greenlet",
    "sqlalchemy",
    "asgiref",
    "uvloop",
    "asyncpg",
    "celery",
    "distributed",
]
CRATES = ["corosensei", "tokio", "tokio-util", "async-compression", "axum"]


@dataclasses.dataclass
class Run:
    bench: str
    command: str
    shape: str
    said: str

    def groups(self) -> list[Group]:
        return groups(self.bench, self.said)

    def text(self) -> str:
        return f"$ {self.command}\n{self.shape}\n\n{self.said.strip()}\n"


def read(path: Path) -> Run:
    command, shape, _, said = path.read_text(encoding="utf-8").split("\n", 3)
    return Run(path.stem, command.removeprefix("$ "), shape, said)


def kept(folder: Path = KEPT) -> dict[str, Run]:
    """By the name of the bench, in the order of the page."""
    paths = {path.stem: path for path in folder.glob("*.txt")}
    return {name: read(paths[name]) for name in [*PYTHON, *RUST] if name in paths}


def run(bench: str, full: bool) -> Run:
    options = [] if full else QUICK.get(bench, ["--quick"] if bench in PYTHON else [])
    when = f"{datetime.date.today()}, {machine()}"
    if bench in PYTHON:
        shown = ["python", f"benches/{bench}", *options]
        command = [sys.executable, str(ROOT / "benches" / bench), *options]
        versions = python_versions()
    else:
        features = ["--features", RUST[bench]] if RUST[bench] else []
        shown = command = ["cargo", "bench", *features, "--bench", bench]
        if options:
            shown = command = [*command, "--", *options]
        versions = rust_versions()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    said = done.stdout
    if done.returncode not in (0, 1) or not said:  # 1: a target was missed, which the output says
        said += f"NOT RUN TO ITS END (exit {done.returncode}): {done.stderr.strip()[-500:]}\n"
    return Run(bench, " ".join(shown), f"{when}; {versions}", said)


def machine() -> str:
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)
        model = found[1] if found else model
    load = f", load {os.getloadavg()[0]:.1f} when it began" if hasattr(os, "getloadavg") else ""
    system = f"{platform.system()} {'.'.join(re.findall(r'[0-9]+', platform.release())[:2])}"
    return f"{os.cpu_count()} × {model}, {system}{load}"


def python_versions() -> str:
    found = []
    for name in ["fiberback", *PEERS]:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([f"{platform.python_implementation()} {platform.python_version()}", *found])


def rust_versions() -> str:
    cargo = shutil.which("cargo")
    rustc = (
        subprocess.run(["rustc", "--version"], capture_output=True, text=True) if cargo else None
    )
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))
    found = {each["name"]: each["version"] for each in lock["package"]}
    return ", ".join(
        [
            " ".join(rustc.stdout.split()[:2]) if rustc else "no Rust",
            *(f"{name} {found[name]}" for name in CRATES if name in found),
        ]
    )
