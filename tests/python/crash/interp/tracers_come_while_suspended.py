# expect-stdout: fine
# python: 3.12
# parts: 4
"""Tracers, profilers and sys.monitoring's tools come and go while code that was never traced before is
suspended in portals and parked, in the middle of calls of every kind; then it goes on, or fails.

Each round has functions of its own, so that nothing is known of their code when they are suspended.
By hand: `tracers_come_while_suspended.py SEED [ROUNDS]`.
"""

import asyncio
import functools
import random
import sys
import threading

import fiberback

PARTS = len(sys.argv) == 3 and sys.argv[2] == "4"  # as test_crash.py calls it
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(1 << 32)
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 and not PARTS else 6
TASKS = 16
print("seed", SEED, flush=True)
RANDOM = random.Random(SEED)
M = sys.monitoring
E = M.events
TOOLS = (M.COVERAGE_ID, M.OPTIMIZER_ID, 4)
LOCAL_NAMES = "PY_START PY_RESUME PY_RETURN PY_YIELD CALL LINE INSTRUCTION JUMP STOP_ITERATION"
BRANCHES = "BRANCH" if sys.version_info < (3, 14) else "BRANCH_LEFT BRANCH_RIGHT"
LOCAL = tuple(getattr(E, name) for name in f"{LOCAL_NAMES} {BRANCHES}".split())
OTHER = (E.RAISE, E.EXCEPTION_HANDLED, E.PY_UNWIND, E.PY_THROW, E.RERAISE)
ANYWHERE = (*LOCAL, *OTHER)
if sys.version_info >= (3, 15):  # all of them can be set for single code objects
    LOCAL = ANYWHERE
CALLS = E.CALL | E.C_RETURN | E.C_RAISE
seen = {event: 0 for event in ANYWHERE}
traced = {"trace": 0, "profile": 0}


class Failed(Exception):
    pass


# What is suspended. `wait(n)` is `await_`; it returns n, or raises Failed.
SOURCE = """
import contextlib, functools, itertools

def plain(n):
    before = 1
    value = wait(n)
    after = 2
    return value + before - after + 1

def loops(n):
    total = 0
    for k in range(3):
        total += plain(n) if k % 2 == 0 else wait(n)
        while total < 0:
            total += 1
    return total // 3

def sort_key(n):
    return sorted([n, n], key=lambda x: wait(x) if x else 0)[0]

def nested_sorts(n):
    return max([n], key=lambda x: sorted([x], key=lambda y: min([y], key=wait))[0])

def comprehension(n):
    return [wait(x) for x in [n] if wait(x) == n][0]

def nested_comprehensions(n):
    return {k: [wait(v) for v in (k,)][0] for k in [n]}[n]

def generator(n):
    def values():
        yield n
        try:
            yield wait(n)
        finally:
            wait_anyhow(n)
    return sum(values()) // 2

def delegates(n):
    def inner():
        got = yield wait(n)
        return got
    def outer():
        return (yield from inner())
    steps = outer()
    value = next(steps)
    try:
        steps.send(value)
    except StopIteration as end:
        return end.value
    raise AssertionError

def reduces(n):
    return functools.reduce(lambda a, b: wait(a) + b, [0, 0], n)

def maps(n):
    return list(map(wait, itertools.chain(iter([n]))))[0]

class Initialised:
    def __init__(self, n):
        self.n = wait(n)
    @property
    def value(self):
        return wait(self.n)
    def __eq__(self, other):
        return wait(self.n) == other.n
    def __enter__(self):
        return wait(self.n)
    def __exit__(self, *exc):
        wait_anyhow(self.n)
    def __hash__(self):
        return wait(self.n)
    def __getattr__(self, name):
        return wait(self.n)

class Derived(Initialised):
    def __init__(self, n):
        super().__init__(n)

def instance(n):
    return Derived(n).value

def compares(n):
    return n if [Initialised(n)] == [Initialised(n)] else None

def hashes(n):
    return {Initialised(n): n}.popitem()[1]

def attribute(n):
    return Derived(n).missing

def with_block(n):
    with Initialised(n) as value:
        wait(value)
    return value

def handles(n):
    try:
        raise KeyError(n)
    except KeyError as error:
        return wait(error.args[0])
    finally:
        wait_anyhow(n)

def reraises(n):
    try:
        return wait(n)
    except Failed:
        wait_anyhow(n)
        raise

def swallows(n):
    for _ in range(4):
        try:
            wait(n)
        except Failed:
            continue
    return n

@contextlib.contextmanager
def managed(n):
    try:
        yield wait(n)
    finally:
        wait_anyhow(n)

def manages(n):
    with managed(n) as value:
        return wait(value)

def executes(n):
    scope = {"wait": wait, "n": n}
    exec("value = wait(n)\\nclass Body:\\n    value = wait(n)", scope)
    return scope["Body"].value

def closure(n):
    def inner(*args, k=n):
        nonlocal n
        n = wait(k)
        return n
    return functools.partial(inner, 1)(*(2, 3))

class Counted:
    def __init__(self, n, k):
        self.n = wait(n) if k == 29 else n
    @property
    def value(self):
        return wait(self.n) if self.n else 0
    def __getitem__(self, k):
        return wait(self.n) if k == 29 else self.n
    def __iter__(self):
        for k in range(30):
            yield wait(self.n) if k == 29 else k
    def __getattribute__(self, name):
        return object.__getattribute__(self, name)

def specialised(n):
    # Calls that are made for the specialised instructions, with the interpreter's own code between.
    for k in range(30):
        counted = Counted(n, k)
        value = counted[k]
    for k in range(30):
        last = Counted(n if k == 29 else 0, 0).value
    for item in counted:
        pass
    return value if value == last == item else None

KINDS = [plain, loops, sort_key, nested_sorts, comprehension, nested_comprehensions, generator,
         delegates, reduces, maps, instance, compares, hashes, attribute, with_block, handles,
         reraises, swallows, manages, executes, closure, specialised]
"""


async def outcome(n, fails):
    for _ in range(RANDOM.randrange(3)):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    if fails:
        raise Failed
    return n


def fresh(fails):
    """The kinds, with new code objects."""

    def wait(n):
        return fiberback.await_(outcome(n, RANDOM.random() < fails))

    def wait_anyhow(n):
        return fiberback.await_(outcome(n, False))

    scope = {"wait": wait, "wait_anyhow": wait_anyhow, "Failed": Failed, "__name__": "fresh"}
    exec(compile(SOURCE, "<fresh>", "exec"), scope)
    # So that those in between are new, too.
    for function in (wait, wait_anyhow):
        function.__code__ = function.__code__.replace()
    return scope["KINDS"]


def tracer(frame, event, arg):
    traced["trace"] += 1
    if RANDOM.randrange(8) == 0:
        frame.f_trace_opcodes = not frame.f_trace_opcodes
    return tracer


def profiler(frame, event, arg):
    traced["profile"] += 1


def callback(event):
    disabled = event in LOCAL

    def called(code, *rest):
        seen[event] += 1
        return M.DISABLE if disabled and RANDOM.randrange(6) == 0 else None

    return called


def some(events):
    chosen = sum(RANDOM.sample(events, RANDOM.randrange(len(events) + 1)))
    return chosen | (CALLS if chosen & E.CALL else 0)


def trace_frames_too():
    """What a debugger does that is attached to running code."""
    sys.settrace(tracer)
    frame = sys._getframe()
    while frame is not None:
        frame.f_trace = tracer
        frame = frame.f_back


def toggle(codes, everywhere):
    tool = RANDOM.choice(TOOLS)
    kind = RANDOM.randrange(12)
    if kind < 3:
        M.set_events(tool, some(ANYWHERE))
    elif kind == 3:
        M.set_events(tool, 0)
    elif kind == 4 and codes:
        for code in RANDOM.sample(codes, min(6, len(codes))):
            M.set_local_events(tool, code, some(LOCAL))
    elif kind == 5:
        M.restart_events()
    elif kind == 6:
        M.free_tool_id(tool)
        use(tool)
    elif kind == 7:
        (threading.settrace_all_threads if everywhere else sys.settrace)(tracer)
    elif kind == 8:
        (threading.settrace_all_threads if everywhere else sys.settrace)(None)
    elif kind == 9:
        (threading.setprofile_all_threads if everywhere else sys.setprofile)(profiler)
    elif kind == 10:
        (threading.setprofile_all_threads if everywhere else sys.setprofile)(None)
    elif not everywhere:
        trace_frames_too()


def use(tool):
    M.use_tool_id(tool, "ours")
    for event in ANYWHERE:
        M.register_callback(tool, event, callback(event))
    for event in (E.C_RETURN, E.C_RAISE):
        M.register_callback(tool, event, lambda *args: None)


def quiet():
    """Nothing is traced any more."""
    for tool in TOOLS:
        M.set_events(tool, 0)
    threading.settrace_all_threads(None)
    threading.setprofile_all_threads(None)
    threading.settrace(None)
    threading.setprofile(None)


def codes_of(kinds):
    found = []
    todo = [kind.__code__ for kind in kinds if hasattr(kind, "__code__")]
    while todo:
        code = todo.pop()
        found.append(code)
        todo += [const for const in code.co_consts if hasattr(const, "co_code")]
    return found


async def call(kind, n, with_portal):
    if with_portal:
        await fiberback.ensure_portal()
    try:
        result = kind(n)
    except Failed:
        return
    assert result == n, (kind, n, result)


async def toggles(codes, everywhere, others):
    await asyncio.sleep(0)
    while not all(task.done() for task in others):
        toggle(codes, everywhere)
        for _ in range(RANDOM.randrange(3)):
            await asyncio.sleep(0)
    quiet()


async def round_(switches, portals):
    kinds = fresh(fails=RANDOM.choice((0, 0.3, 1)))
    tasks = [
        asyncio.create_task(call(RANDOM.choice(kinds), n, RANDOM.random() < portals))
        for n in range(1, TASKS + 1)
    ]
    if switches:
        await toggles(codes_of(kinds), False, tasks)
    await asyncio.gather(*tasks)


def rounds(switches=True):
    for _ in range(ROUNDS):
        portals = RANDOM.choice((0, 0.5, 1))
        RANDOM.choice((asyncio.run, fiberback.run))(round_(switches, portals))


def from_another_thread():
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            toggle([], True)
            stop.wait(RANDOM.choice((0, 0.0001, 0.001)))
        quiet()

    watcher = threading.Thread(target=watch)
    watcher.start()
    other = threading.Thread(target=functools.partial(rounds, False))
    other.start()
    rounds(False)
    other.join()
    stop.set()
    watcher.join()


sys.setswitchinterval(1e-5)
for tool in TOOLS:
    use(tool)
rounds()
from_another_thread()
quiet()
for tool in TOOLS:
    M.free_tool_id(tool)
assert [M.get_tool(tool) for tool in range(6)] == [None] * 6
assert all(traced.values()) and sum(1 for n in seen.values() if n) > len(seen) // 2, (traced, seen)
print("fine")
