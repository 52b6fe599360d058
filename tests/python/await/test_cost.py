"""No wait costs more for what else there is in the process, nor for how deep it is called.

Ratios only, of the least of some measurements on both sides. A machine that is busy just then may disturb one
side, so that the least is taken over further attempts before it counts.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest
from support import only_fiberback

pytestmark = only_fiberback

SCRIPT = pathlib.Path(__file__).with_name("cost_of_waits.py")
MOST, ATTEMPTS = 2.0, 5

KINDS = [
    "parked",
    "ready",
    "ready in a coroutine",
    "portal",
    "ready on a portal",
    "thread",
    "our thread",
    "anyio thread",
    "asgiref thread",
    "told thread",
    "callback",
    "callback under run",
    "without a loop",
    "trio",
]


def measured(kind):
    out = subprocess.run(
        [sys.executable, str(SCRIPT), kind],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


def ratios(kind):
    """In a crowd to alone; from many frames deep to few."""
    least = {}
    for _ in range(ATTEMPTS):
        for name, cost in measured(kind).items():
            least[name] = min(cost, least.get(name, cost))
        crowd, depth = least["crowded"] / least["alone"], least["many"] / least["few"]
        if crowd <= MOST and depth <= MOST:
            break
    return crowd, depth


@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_costs_the_same_in_a_crowd_and_from_many_frames_deep(kind):
    needs = kind.removesuffix(" thread")
    if needs in ("anyio", "asgiref", "trio") and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    crowd, depth = ratios(kind)
    assert crowd <= MOST, (
        f"{crowd:.1f} times as much among ten times as many objects, modules, tasks"
    )
    assert depth <= MOST, f"{depth:.1f} times as much from ten times as deep"


def test_what_grows_is_noticed():
    costs = measured("a look at everything")
    assert costs["crowded"] > MOST * costs["alone"], costs
    costs = measured("a look at the stack")
    assert costs["many"] > MOST * costs["few"], costs
