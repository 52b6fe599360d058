"""docs/debugging.md: what each tool shows of what hangs, and real output. FIBERBACK_BLESS=1 writes it anew."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import hanging
import pytest
from support import only_fiberback

pytestmark = [
    only_fiberback,
    pytest.mark.skipif(sys.version_info < (3, 12), reason="the table begins with 3.12"),
]

HERE = Path(__file__).parent
DOCS = HERE.parents[2] / "docs" / "debugging.md"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
VERSIONS = ["3.12", "3.13", "3.14", "3.15"]
BLESS = bool(os.environ.get("FIBERBACK_BLESS"))

# Those that speak of tasks: what they show beside the task's own frames is somebody else's.
OF_TASKS = [
    "fiberback.stacks()",
    "python -m fiberback dump PID",
    "task.get_stack()",
    "task.print_stack()",
    "cr_await",
    "asyncio.capture_call_graph()",
    "python -m asyncio ps PID",
]
TOOLS = [*OF_TASKS, "sys._current_frames()", "faulthandler"]
# Where the task named "main" waits for it.
NOT_OF_IT = ["main.<locals>.body", "body"]
FROM_3_14 = [
    "python -m fiberback dump PID",
    "asyncio.capture_call_graph()",
    "python -m asyncio ps PID",
]


@contextlib.contextmanager
def running(command, folder):
    """A process that says "ready" when it hangs, and ends when it is told to."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *command], cwd=folder, text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            try:
                process.communicate("\n", timeout=30)
            except BaseException:
                process.kill()
                raise
    assert process.returncode == 0


def said_by(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def from_outside(process):
    from asyncio.tools import build_task_table, get_all_awaited_by

    rows = build_task_table(get_all_awaited_by(process.pid))
    shown = [row[3].split(" -> ") for row in rows if row[2] != "main"]
    dump = said_by(sys.executable, "-m", "fiberback", "dump", str(process.pid))
    frames = re.findall(r'^ *(?:File ".*", line \d+, in |.* in )(\S+)$', dump, re.MULTILINE)
    return {
        "python -m asyncio ps PID": [name for names in shown for name in names if name],
        "python -m fiberback dump PID": [name for name in frames if name not in NOT_OF_IT],
    }


@functools.lru_cache(None)
def seen(situation):
    """The names of the frames that each tool shows."""
    with running([str(HERE / "hanging.py"), situation], HERE) as process:
        tools = json.loads(process.stdout.readline())
        if sys.version_info >= (3, 14):
            tools.update(from_outside(process))
    return tools


def cell(tool, situation):
    """Frames that are shown of those that are there, and how many that are not the task's."""
    _, _, there = hanging.SITUATIONS[situation]
    left, others = list(there), 0
    for name in seen(situation)[tool]:
        name = name.rpartition(".")[2] if not name.startswith("<") else name
        if name in left:
            left.remove(name)
        else:
            others += 1
    text = f"{len(there) - len(left)} of {len(there)}"
    return f"{text} +{others}" if others and tool in OF_TASKS else text


def rows():
    """The table as it is in the docs: the cells by tool, situation and version."""
    found = {}
    for line in DOCS.read_text().splitlines():
        cells = [each.strip() for each in line.strip("|").split("|")]
        if len(cells) == 2 + len(VERSIONS) and cells[0].startswith("`"):
            found[cells[0].strip("`"), cells[1].replace("``", "`")] = dict(
                zip(VERSIONS, cells[2:], strict=True)
            )
    return found


def replaced(begin, end, text):
    whole = DOCS.read_text()
    before, _, rest = whole.partition(begin)
    assert rest, begin
    _, _, after = rest.partition(end)
    DOCS.write_text(f"{before}{begin}{text}{end}{after}")


def write_cell(tool, situation, text):
    found = rows()
    lines = [f"| tool | situation | {' | '.join(VERSIONS)} |", "|---|---|" + "---|" * len(VERSIONS)]
    for each in TOOLS:
        for of in hanging.SITUATIONS:
            known = found.get((each, of), {})
            if (each, of) == (tool, situation):
                known = {**known, VERSION: text}
            cells = " | ".join(known.get(version, "?") for version in VERSIONS)
            lines.append(f"| `{each}` | {of} | {cells} |")
    replaced("<!-- table -->\n", "<!-- /table -->", "\n".join(lines) + "\n")


@pytest.mark.parametrize("situation", list(hanging.SITUATIONS))
@pytest.mark.parametrize("tool", TOOLS)
def test_each_cell_of_the_table(tool, situation):
    if tool in FROM_3_14 and sys.version_info < (3, 14):
        is_shown = "-"
    else:
        is_shown = cell(tool, situation)
    if BLESS:
        write_cell(tool, situation, is_shown)
    assert rows()[tool, situation][VERSION] == is_shown


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool not in FROM_3_14[:1]])
def test_purely_async_tasks_show_what_they_do_without_us(tool):
    if tool in FROM_3_14 and sys.version_info < (3, 14):
        pytest.skip("came with Python 3.14")
    if tool == "python -m asyncio ps PID":
        pytest.skip("cannot be had: docs/debugging.md, tests/python/see/test_from_outside.py")
    ours = cell(tool, "purely async under `run`")
    assert ours == cell(tool, "purely async under `asyncio.run`")


HANGS = """\
import asyncio, signal, sys
import fiberback


async def pay(order):
    async with lock:                       # never free again
        ...


def handle(order):
    return fiberback.await_(pay(order))    # sync code that waits


async def worker(order):
    handle(order)


async def main():
    global lock
    lock = asyncio.Lock()
    await lock.acquire()
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, told.set)
    loop.call_later(0.1, print, "ready")
    async with asyncio.TaskGroup() as group:
        group.create_task(worker("order-1"), name="order-1")
        await told.wait()
        loop.remove_reader(sys.stdin)
        lock.release()


sys.stdout.reconfigure(line_buffering=True)
fiberback.dump_on(signal.SIGQUIT)
fiberback.run(main())
"""

BLOCKED = """\
import asyncio, time
import fiberback


def report(order):
    time.sleep(0.3)


async def worker(order):
    report(order)


async def other():
    await asyncio.sleep(0.5)


async def main():
    with fiberback.watch(threshold=0.1):
        async with asyncio.TaskGroup() as group:
            group.create_task(worker("order-1"), name="order-1")
            group.create_task(other(), name="other")


fiberback.run(main())
"""

SPINS = """\
import asyncio, faulthandler, sys
import fiberback


def spin():
    print("ready", flush=True)
    faulthandler.dump_traceback_later(0.5, exit=True)
    while True: pass


def handle(order):
    fiberback.await_(asyncio.sleep(0))
    spin()


async def worker():
    handle("order-1")


fiberback.run(worker())
"""


PROGRAMS = {"hangs.py": HANGS, "blocks.py": BLOCKED, "spins.py": SPINS}


def plain(text, folder):
    """Without what is another one each time, or with each release of Python."""
    text = text.replace(f"{folder}/", "")
    text = re.sub(r'"/[^"]*/(?:site-packages|lib/python3\.\d+)/', '"', text)
    text = re.sub(r" /\S*/(?:site-packages|lib/python3\.\d+)/", " ", text)
    text = re.sub(r'("\w+/[^"]*\.py", line) \d+', r"\1 ...", text)
    text = re.sub(r"(asyncio/\w+\.py):\d+", r"\1:...", text)
    text = re.sub(r"0x[0-9a-f]+", "0x7f...", text)
    text = re.sub(r"\b\d+\.\d+ s\b", "0.1 s", text)
    text = re.sub(r"Process \d+", "Process 4711", text)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip() + "\n"


def of_dump(folder):
    with running(["hangs.py"], folder) as process:
        process.send_signal(signal.SIGQUIT)
        lines = []
        while "".join(lines).count("await fut") < 2:  # `main`, and what hangs
            lines.append(process.stderr.readline())
    return "".join(lines)


def of_remote_dump(folder):
    with running(["hangs.py"], folder) as process:
        return said_by(sys.executable, "-m", "fiberback", "dump", str(process.pid))


def of_pstree(folder):
    with running(["hangs.py"], folder) as process:
        return said_by(sys.executable, "-m", "asyncio", "pstree", str(process.pid))


def said_at_the_end(name, code, folder):
    command = [sys.executable, name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stderr


# Where the machine is busy, a program is seen in another line, and a loop is late that nobody blocks.
ATTEMPTS = 4

# The block in the docs, the version whose words they are, what says them.
BLOCKS = {
    "dump": ("3.13", of_dump),
    "remote dump": ("3.14", of_remote_dump),
    "pstree": ("3.14", of_pstree),
    "watch": ("3.13", functools.partial(said_at_the_end, "blocks.py", 0)),
    "faulthandler": ("3.13", functools.partial(said_at_the_end, "spins.py", 1)),
}


def is_in_docs(name, kind, text):
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    block = f"```{kind}\n{text}```\n"
    if BLESS:
        replaced(begin, end, block)
    assert f"{begin}{block}{end}" in DOCS.read_text()


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_the_docs_have_each_program(name):
    is_in_docs(name, "python", PROGRAMS[name])


@pytest.mark.parametrize("name", list(BLOCKS))
def test_the_docs_have_what_is_really_said(name, tmp_path):
    version, say = BLOCKS[name]
    if version != VERSION:
        pytest.skip(f"the docs have the words of {version}")
    for file, text in PROGRAMS.items():
        (tmp_path / file).write_text(text)
    for attempt in range(ATTEMPTS):
        said = plain(say(tmp_path), tmp_path)
        try:
            is_in_docs(name, "text", said)
        except AssertionError:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            break
