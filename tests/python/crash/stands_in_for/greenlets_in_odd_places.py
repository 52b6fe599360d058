# expect: 0
# expect-stdout: ok
# leaks: on purpose
# Greenlets where a thread ends, a collection runs, tracers come and go, a process forks, and the interpreter exits.
import ctypes
import faulthandler
import gc
import os
import sys
import threading
import time

import fiberback.greenlet as greenlet

faulthandler.enable()
G = greenlet.greenlet
getc = greenlet.getcurrent
threading.stack_size(2 * 1024 * 1024)


# 1 thread-local destructors that use greenlets when the thread state is going
class Late:
    def __del__(self):
        G(lambda: None).switch()
        g = G(lambda: getc().parent.switch())
        g.switch()
        late.append(g)


late = []
local = threading.local()


def t1():
    local.x = Late()
    g = G(lambda: getc().parent.switch())
    g.switch()
    local.g = g
    local.y = Late()


for _ in range(20):
    t = threading.Thread(target=t1)
    t.start()
    t.join()
for g in late:
    repr(g), g.dead, g.gr_frame
del late[:]
gc.collect()


# 2 switches in __del__ during a collection, and away from it
class Del:
    def __init__(self):
        self.me = self

    def __del__(self):
        x = G(lambda: getc().parent.switch(1))
        x.switch()
        kept.append(x)
        if getc().parent is not None:
            getc().parent.switch("in del")


kept = []


def body():
    Del()
    gc.collect()
    return "end"


main = getc()
for _ in range(50):
    g = G(body)
    r = g.switch()
    while not g.dead:
        r = g.switch()
del kept[:]
# 3 tracing and profiling on and off while suspended
events = [0]


def tracer(frame, event, arg):
    events[0] += 1
    return tracer


def deep(n):
    return deep(n - 1) if n else getc().parent.switch()


gs = [G(lambda: [deep(5) for _ in range(6)]) for _ in range(20)]
for _ in range(6):
    for j, g in enumerate(gs):
        if j % 3 == 0:
            sys.settrace(tracer)
        if j % 3 == 1:
            sys.setprofile(tracer)
        g.switch()
        sys.settrace(None)
        sys.setprofile(None)
    gc.collect()
if hasattr(sys, "monitoring"):
    m = sys.monitoring
    m.use_tool_id(2, "x")
    for e in ("PY_START", "PY_RETURN", "CALL", "LINE", "RAISE", "JUMP"):
        m.register_callback(
            2, getattr(m.events, e), lambda *a: events.__setitem__(0, events[0] + 1)
        )
    gs = [G(lambda: [deep(5) for _ in range(6)]) for _ in range(20)]
    for i in range(6):
        for j, g in enumerate(gs):
            m.set_events(
                2,
                [
                    0,
                    m.events.LINE | m.events.CALL,
                    m.events.PY_START | m.events.PY_RETURN | m.events.RAISE,
                ][(i + j) % 3],
            )
            g.switch()
    m.set_events(2, 0)
    m.free_tool_id(2)


def tr(f, e, a):
    G(lambda: None).switch()
    return tr


def traced():
    x = 1
    return x


sys.settrace(tr)
traced()
sys.settrace(None)


def tr2(f, e, a):  # away in the middle of a tracer
    sys.settrace(None)
    main.switch("in tracer")
    return None


def runs():
    sys.settrace(tr2)
    traced()
    return "end"


g = G(runs)
assert g.switch() == "in tracer"
assert g.switch() == "end"
# 4 asynchronous exceptions
stop = False


def spin():
    try:
        while not stop:
            G(lambda: getc().parent.switch()).switch()
    except KeyError:
        hit.append(1)


hit = []
t = threading.Thread(target=spin)
t.start()
time.sleep(0.05)
ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(t.ident), ctypes.py_object(KeyError))
t.join(10)
# 5 greenlets of threads dropped elsewhere while they run
box = []


def t5():
    for _ in range(300):
        g = G(lambda: getc().parent.switch())
        g.me = g
        g.switch()
        box.append(g)
        if len(box) > 5:
            box.pop(0)


ts = [threading.Thread(target=t5) for _ in range(4)]
[t.start() for t in ts]
while any(t.is_alive() for t in ts):
    box and box.pop(0) if box else None
    gc.collect()
del box[:]
gc.collect()


# 6 frames that outlive their greenlet
def fr():
    loc = [1]
    main.switch(sys._getframe())
    return loc


g = G(fr)
f = g.switch()
f2 = g.gr_frame
del g
gc.collect()
print(f.f_locals, f2.f_back, f.f_lineno, file=sys.stderr)
f.clear()
# 7 forks
for inside in (0, 1):

    def forks():
        other = G(lambda: getc().parent.switch())
        other.switch()
        pid = os.fork()
        if pid == 0:
            other.switch()
            G(lambda: None).switch()
            gc.collect()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    ev = threading.Event()

    def holder():
        g = G(lambda: getc().parent.switch())
        g.me = g
        g.switch()
        ev.wait()

    t = threading.Thread(target=holder)
    t.start()
    time.sleep(0.02)
    (G(forks).switch if inside else forks)()
    ev.set()
    t.join()


# 8 daemon threads in greenlets at exit
def d():
    def b():
        while True:
            getc().parent.switch()
            time.sleep(0.001)

    g = G(b)
    while True:
        g.switch()


for _ in range(4):
    threading.Thread(target=d, daemon=True).start()


def d2():
    G(lambda: time.sleep(100)).switch()


threading.Thread(target=d2, daemon=True).start()
for _ in range(1000):
    time.sleep(0.05)
    if events[0] > 100:
        break
assert events[0] > 100
print("ok", flush=True)
G(lambda: sys.exit(0)).switch()
