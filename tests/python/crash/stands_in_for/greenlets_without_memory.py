# expect: 0
# leaks: on purpose
# expect-stdout: MemoryError
"""No address space is left for another stack: an error, and the greenlet can be begun later."""

import resource

import fiberback
import fiberback.greenlet as greenlet

main = greenlet.getcurrent()
greenlet.greenlet(int).switch()
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
alive = []
try:
    while len(alive) < 100_000:
        alive.append(greenlet.greenlet(main.switch))
        alive[-1].switch()
except MemoryError as error:
    print(type(error).__mro__[1].__name__)
    assert isinstance(error, fiberback.StackMemoryError)
last = alive.pop()
assert not last and not last.dead
assert [g.switch(number) for number, g in enumerate(alive)] == list(range(len(alive)))
assert last.switch("now") == "now"
