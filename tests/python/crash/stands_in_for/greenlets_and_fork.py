# expect: 0
# leaks: on purpose
# expect-stdout: child: [0, 1, 2, 'thread is no more']
# expect-stdout: parent: [0, 1, 2, 'thread goes on']
"""A process forks, in a greenlet, with greenlets suspended: both sides go on with them."""

import os
import threading
import warnings

import fiberback.greenlet as greenlet

warnings.simplefilter("ignore", DeprecationWarning)  # fork() with threads
main = greenlet.getcurrent()
there = []
ready, over = threading.Event(), threading.Event()


def in_thread():
    there.append(greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch()))
    there[0].switch()
    ready.set()
    over.wait()


thread = threading.Thread(target=in_thread)
thread.start()
ready.wait()
alive = [greenlet.greenlet(lambda number: main.switch() or number) for _ in range(3)]
for number, g in enumerate(alive):
    g.switch(number)
child = greenlet.greenlet(os.fork).switch()
found = [g.switch() for g in alive]
try:
    there[0].switch()
except greenlet.error as error:
    found.append("thread is no more" if "exited" in str(error) else "thread goes on")
os.write(1, f"{'parent' if child else 'child'}: {found}\n".encode())
if child:
    over.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
else:
    there.clear()
    os._exit(0)
