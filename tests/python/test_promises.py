"""What README and PARKING.md promise of `await_` is shown by tests, sentence by sentence.

`promises.txt` beside this file has a line for each: how the sentence begins, and which tests, crash scripts or
benchmarks show it; or, after a dash, why nothing is promised in it. A sentence without a line fails here,
and so does a line without its sentence, or one that names a test that is not there.
"""

from __future__ import annotations

import asyncio
import gc
import pathlib
import re
import subprocess
import sys
import threading
import time
import weakref

import pytest
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

TESTS = pathlib.Path(__file__).parent
ROOT = TESTS.parents[1]
# Each with the part of it that is about where `await_` works, what it refuses, and what it costs.
PAGES = {
    "PARKING.md": ("pyext/PARKING.md", None, None),
    "README.md": ("README.md", "In Python, `fiberback.await_(x)` is the one", "| Python: you want"),
}


def part(page):
    name, begin, end = PAGES[page]
    text = (ROOT / name).read_text(encoding="utf-8")
    return text[text.index(begin) if begin else 0 : text.index(end) if end else len(text)]


def sentences(text):
    """Rows of tables are one each; headings and code are none."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n\s*\n|\n(?=- )|\n(?=\|)|(?<=\|)\n", text):
        block = " ".join(block.split())
        if not block or block.startswith("#") or re.fullmatch(r"\|[-| ]+\|", block):
            continue
        if block.startswith("|"):
            yield block
            continue
        yield from re.split(r"(?<=[.!?])(?:\*\*)?\)?\s+(?=[A-Z`*(])", block.removeprefix("- "))


def lines():
    for line in (TESTS / "promises.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            begin, _, shown = line.partition(" => ")
            yield begin, shown


def untrue(shown):
    """Those of the tests named that are not there."""
    if shown.startswith("- ") and len(shown) > 10:
        return []
    wrong = []
    for each in shown.split(", "):
        file, _, function = each.partition("::")
        path = ROOT / file if file.startswith("benches/") else TESTS / file
        is_script = not function and file.startswith(("crash/", "benches/"))
        if not path.is_file() or not (
            is_script or re.search(rf"^(?:async )?def {function}\(", path.read_text(), re.MULTILINE)
        ):
            wrong.append(each)
    return wrong


def test_each_sentence_is_shown_by_a_test():
    known = dict(lines())
    found = [sentence for page in PAGES for sentence in sentences(part(page))]
    assert len(found) > 80
    without = [s for s in found if sum(s.startswith(begin) for begin in known) != 1]
    assert without == [], "each needs one line of promises.txt"
    unused = [begin for begin in known if not any(s.startswith(begin) for s in found)]
    assert unused == []
    assert [wrong for shown in known.values() for wrong in untrue(shown)] == []


def test_what_is_not_there_is_found():
    assert untrue("test_promises.py::test_what_is_not_there_is_found") == []
    gone = "test_promises.py::test_gone"
    assert untrue(f"{gone}, crash/gone.py, test_promises.py") == [
        gone,
        "crash/gone.py",
        "test_promises.py",
    ]
    assert untrue("-") == ["-"]
    text = "# Head\n\nOne is `so`. Two\nis (not). `Three`.\n\n- Four.\n\n| a | b |\n|---|---|\n| c | d |\n"
    assert list(sentences(text)) == [
        "One is `so`.",
        "Two is (not).",
        "`Three`.",
        "Four.",
        "| a | b |",
        "| c | d |",
    ]


# --- sentences that no other test is about ---------------------------------------------------------


async def on_a_runner(fb, function):
    """`function()` while another caller has parked on the host."""
    done = asyncio.get_running_loop().create_future()
    holder = asyncio.create_task(call(fb.await_, done))
    await asyncio.sleep(0)
    try:
        return await function()
    finally:
        done.set_result(None)
        await holder


async def call(function, *arguments):
    return function(*arguments)


def test_a_caller_on_the_host_that_goes_on_waiting_is_cancelled_again(fb):
    loop, cancelled = asyncio.new_event_loop(), []

    async def holds():
        while len(cancelled) < 2:
            try:
                fb.await_(asyncio.sleep(1000))
            except asyncio.CancelledError:
                cancelled.append(time.monotonic())

    task = loop.create_task(holds())
    with pytest.warns(RuntimeWarning, match="holds"):
        loop.run_until_complete(asyncio.sleep(0))
    first, second = cancelled
    assert second - first >= 5
    assert task.done()
    loop.close()


def test_a_list_that_is_sorted_is_empty_meanwhile(fb):
    def key(value):
        fb.await_(asyncio.sleep(0))
        return value

    async def main():
        numbers, seen = [3, 1, 2], []
        asyncio.get_running_loop().call_soon(lambda: seen.append(list(numbers)))
        numbers.sort(key=key)
        return seen, numbers

    assert asyncio.run(main()) == ([[]], [1, 2, 3])


def test_a_lock_is_held_meanwhile(fb):
    lock = threading.Lock()

    def locked():
        with lock:
            fb.await_(asyncio.sleep(0))

    async def main():
        seen = []
        asyncio.get_running_loop().call_soon(lambda: seen.append(lock.acquire(blocking=False)))
        locked()
        return seen, lock.locked()

    assert asyncio.run(main()) == ([False], False)


def test_the_stack_of_a_parked_task_is_its_coroutine(fb):
    async def main():
        done = asyncio.get_running_loop().create_future()

        def parked_function():
            fb.await_(done)

        async def parks():
            parked_function()

        async def look():
            task = asyncio.create_task(parks())
            await asyncio.sleep(0)
            names = [frame.f_code.co_name for frame in task.get_stack()]
            done.set_result(None)
            await task
            return names

        return await on_a_runner(fb, look)

    names = asyncio.run(main())
    assert names[-1] == "parks"
    assert "parked_function" not in names


def test_a_parked_task_that_nobody_knows_is_not_collected(fb):
    async def main():
        async def parks():
            future = asyncio.get_running_loop().create_future()
            futures.append(weakref.ref(future))
            fb.await_(future)

        async def look():
            task = weakref.ref(asyncio.create_task(parks()))
            await asyncio.sleep(0)
            gc.collect()
            assert task() is not None
            futures[0]().set_result(None)
            await task()

        futures = []
        await on_a_runner(fb, look)

    asyncio.run(main())


def in_a_greenlet(function):
    greenlet = import_or_skip("greenlet")
    return greenlet.greenlet(function).switch()


@pytest.mark.parametrize("place", ["task", "callback", "thread"])
def test_await_in_a_greenlet_without_a_portal(fb, place):
    def waits():
        return in_a_greenlet(lambda: fb.await_(asyncio.sleep(0.001, "waited")))

    async def main():
        ticked = asyncio.create_task(asyncio.sleep(0))
        if place == "task":
            result = waits()
        else:
            answer = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(lambda: answer.set_result(waits()))
            result = await answer
        assert ticked.done()
        return result

    assert (waits() if place == "thread" else asyncio.run(main())) == "waited"


@pytest.mark.parametrize("library", ["uvloop", "trio"])
def test_await_in_a_greenlet_where_nobody_can_wait(fb, library):
    module = import_or_skip(library)

    async def main():
        with pytest.raises(RuntimeError) as info:
            in_a_greenlet(lambda: fb.await_(call(int)))
        return info.value

    error = module.run(main()) if library == "uvloop" else module.run(main)
    code = "loop-no-portal" if library == "uvloop" else "trio-no-portal"
    says(error, code, "await fiberback.ensure_portal()")


DROPPED_IN_A_TRACER = """
import sys, fiberback, greenlet

ended = []

def body():
    try:
        greenlet.getcurrent().parent.switch()
    finally:
        ended.append(True)

def noticed():
    pass

def traced():
    target = [greenlet.greenlet(body)]
    target[0].switch()

    def tracer(frame, event, argument):
        if target and frame.f_code is noticed.__code__:
            target.clear()
            seen.append(bool(ended))
        elif frame.f_code is body.__code__:
            seen.append("traced")

    seen = []
    sys.setprofile(tracer)
    noticed()
    sys.setprofile(None)
    return seen

async def main():
    return traced()

print(fiberback.run(main()), ended)
"""


def test_a_greenlet_that_is_dropped_in_a_trace_function(tmp_path):
    """It ends at once, and untraced, as all that a trace function does. (Traced, it died on 3.15.)"""
    import_or_skip("greenlet")
    done = subprocess.run(
        [sys.executable, "-c", DROPPED_IN_A_TRACER],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.stdout == "[True] [True]\n", done.stdout + done.stderr
