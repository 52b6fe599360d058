# expect: 0
# expect-stdout: thread's finally
# expect-stdout: exits
"""The interpreter exits with suspended greenlets: in cycles, in other threads, and one that is running."""

import atexit
import sys
import threading

import fiberback.greenlet as greenlet


def body():
    mine = greenlet.getcurrent()
    mine.itself = mine
    try:
        greenlet.getcurrent().parent.switch()
    finally:
        print("never at exit" if threading.current_thread() is main_thread else "thread's finally")


main_thread = threading.main_thread()
kept = [greenlet.greenlet(body) for _ in range(10)]
for each in kept:
    each.switch()
everlasting = threading.Event()


def in_thread(waits):
    g = greenlet.greenlet(body)
    g.switch()
    kept.append(g)
    if waits:
        everlasting.wait()


threading.Thread(target=in_thread, args=(True,), daemon=True).start()
ending = threading.Thread(target=in_thread, args=(False,))
ending.start()
ending.join()


@atexit.register
def last():
    assert greenlet.getcurrent() is not None
    assert greenlet.greenlet(lambda: 7).switch() == 7


def leave():
    print("exits")
    sys.exit(0)


greenlet.greenlet(leave).switch()
