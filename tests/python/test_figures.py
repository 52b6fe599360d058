"""The figures of the documents are those of docs/figures, where each is what a bench has printed."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
from support import only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

ROOT = pathlib.Path(__file__).parents[2]
FIGURES = ROOT / "docs/figures"
REPORT = ROOT / "benches/report"


def report(*command):
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)


def test_the_documents_have_the_figures():
    done = report(REPORT / "figures.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_template_has_a_figure_of_its_own():
    """But for `typed` ones, which say where they are from: figures.py wants that."""
    templates = sorted(FIGURES.glob("*.in"))
    assert templates
    for path in templates:
        for line in path.read_text(encoding="utf-8").splitlines():
            bare = re.sub(r"<<.+?>>", "", line)
            assert not re.search(r"[0-9] ?(?:ns|µs|us|KiB|bytes)\b", bare), bare
            if line.startswith("|"):
                assert not re.search("[0-9]", bare.split("|")[-2]), bare  # the ratio


def test_each_run_has_its_shape_and_is_drawn(tmp_path):
    """The page of all that is kept, with plots in which a peer does better."""
    runs = sorted(FIGURES.glob("*.txt"))
    assert len(runs) > 3
    done = report(REPORT, "--from", FIGURES, "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for path in runs:
        command, shape, empty, *_ = path.read_text(encoding="utf-8").split("\n")
        assert command.startswith("$ ") and empty == ""
        assert re.match(
            r"20\d\d-\d\d-\d\d, \d+ × .*, (?:load \d|.* other processes).*; (?:CPython|rustc) ",
            shape,
        ), shape
        section = page.partition(f"<h2><code>{command[2:]}</code></h2>")[2].partition("<h2>")[0]
        assert "<svg " in section, path.name
    assert 'class="loses"' in page


def test_a_figure_that_is_not_there_is_said(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(REPORT)!r})
import figures, runs
run = runs.Run("switch", "cargo bench", "here", "one:\\na  10.0 ns\\nb  25.0 ns\\na / b: 0.40\\n")
for field in ("a", "a / b", "b / a", "one > b - a", "a!raw", "one > *"):
    print(figures.filled(f"<<switch: {{field}}>>", {{"switch": run}}))
print(figures.filled("<<typed: 5 ns | benches/io.rs>>", {{}}))
for field in ("switch: c", "io: a", "typed: 5 ns"):
    try:
        figures.filled(f"<<{{field}}>>", {{"switch": run}})
    except figures.Unknown as error:
        print("unknown:", error)
"""
    done = report("-c", code)
    assert done.stdout.splitlines() == [
        "10 ns",
        "0.4",
        "2.5",
        "15 ns",
        "10",
        "10 to 25 ns",
        "5 ns†",
        "unknown: 0 groups of figures have ['c'] below ''",
        "unknown: docs/figures has no run of 'io'",
        "unknown: no source of '5 ns'",
    ], done.stderr
