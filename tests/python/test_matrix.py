"""README's table of what fiberback and its peers do is that of docs/matrix.toml, and is true."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import peer_probes
import pytest
from support import import_or_skip, only_fiberback, takes_long

pytestmark = only_fiberback

ROOT = pathlib.Path(__file__).parents[2]
MATRIX = tomllib.loads((ROOT / "docs/matrix.toml").read_text(encoding="utf-8"))
FEATURES = {each["name"]: each for each in MATRIX["feature"]}
COLUMNS = MATRIX["columns"]
PEERS = COLUMNS[1:]
BEGIN, END = "<!-- docs/matrix.toml -->\n", "<!-- end of docs/matrix.toml -->\n"
LIMIT = 60  # seconds, after which a probe hangs, which is a `no`


def does(who, feature):
    return "test" in feature if who == "fiberback" else who in feature["peers"]


def table():
    heads = [who if who == "fiberback" else f"{who} {MATRIX['versions'][who]}" for who in COLUMNS]
    rows = [["", *heads], ["---"] * (len(heads) + 1)]
    for feature in FEATURES.values():
        rows.append([feature["says"], *("yes" if does(who, feature) else "no" for who in COLUMNS)])
    return "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in rows)


def test_readme_has_the_table():
    """FIBERBACK_BLESS=1 writes it."""
    page = ROOT / "README.md"
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.partition(END)[2]
    wanted = before + BEGIN + table() + END + after
    if os.environ.get("FIBERBACK_BLESS"):
        page.write_text(wanted, encoding="utf-8")
        text = wanted
    assert text == wanted, "type FIBERBACK_BLESS=1 before the command, and commit README.md"


def test_each_cell_has_something_behind_it():
    """A test that exists, or a probe."""
    assert set(FEATURES) == set(peer_probes.FEATURES)
    assert set(PEERS) == {*peer_probes.PEERS, "unasync"} - {"fiberback"} == set(MATRIX["versions"])
    for feature in FEATURES.values():
        assert set(feature["peers"]) <= set(PEERS)
        if "test" in feature:
            path, _, name = feature["test"].partition("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}


def probe(who, feature, path=None):
    env = {**os.environ, **({"PYTHONPATH": path} if path else {})}
    command = [sys.executable, peer_probes.__file__, who, feature]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=env)
    except subprocess.TimeoutExpired:
        return "no", "hangs"
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("feature", FEATURES)
def test_fiberback(feature):
    """By the same probes as the peers."""
    for needed in {"uvloop", "trio"} & {feature}:
        import_or_skip(needed)
    said, why = probe("fiberback", feature)
    assert said == ("yes" if does("fiberback", FEATURES[feature]) else "no"), why


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """A folder with the peers, of the versions that the table names."""
    if sys.version_info[:2] != (3, 13):
        pytest.skip("the peers are tried on 3.13")
    folder = tmp_path_factory.mktemp("peers")
    named = [f"{name}=={version}" for name, version in MATRIX["versions"].items()]
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder)]
    done = subprocess.run([*command, *named, "uvloop", "trio"], capture_output=True, text=True)
    if re.search("connection broken by|ConnectionError", done.stderr):
        pytest.skip(f"the package registry cannot be reached: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    return str(folder)


@pytest.mark.slow
@pytest.mark.time_limit(1500)
@pytest.mark.parametrize("who", PEERS)
def test_peer(who, peers):
    takes_long()
    found = {name: probe(who, name, peers) for name in FEATURES}
    wrong = {
        name: (said, why)
        for name, (said, why) in found.items()
        if (said == "yes") != does(who, FEATURES[name])
    }
    assert wrong == {}
