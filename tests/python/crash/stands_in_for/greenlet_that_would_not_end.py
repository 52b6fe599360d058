# expect: 0
# expect-stdout: done
# expect-stderr: GreenletExit did not kill
# expect-stderr: [fiberback:leaked-greenlet]
# leaks: on purpose
"""Greenlets that switch away whenever they are to end: by their last reference, by the collector, with their
thread."""

import gc
import threading

import fiberback
import fiberback.greenlet as greenlet


def stubborn(main):
    while True:
        try:
            main.switch()
        except greenlet.GreenletExit:
            pass


def one():
    g = greenlet.greenlet(stubborn)
    g.switch(greenlet.getcurrent())
    return g


leaked = fiberback._fiberback.stats()["stacks_leaked"]

# its last reference
one()

# the collector
g = one()
g.itself = g
del g
gc.collect()
gc.collect()
assert fiberback._fiberback.stats()["stacks_leaked"] == leaked + 1

# its thread
kept = []
thread = threading.Thread(target=lambda: kept.append(one()))
thread.start()
thread.join()
assert kept[0].dead
del kept[:]
gc.collect()
# (the thread itself counts what it leaves, when it has ended for the system, too)
assert fiberback._fiberback.stats()["stacks_leaked"] > leaked + 1
print("done")
