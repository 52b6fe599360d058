# expect: 0
# expect-stdout: 40000 went on
"""More suspended greenlets than a process may have mappings for guard pages, which all go on."""

import fiberback.greenlet as greenlet

main = greenlet.getcurrent()


def body(number):
    return number + main.switch(number)


alive = [greenlet.greenlet(body) for _ in range(40_000)]
assert [g.switch(number) for number, g in enumerate(alive)] == list(range(len(alive)))
assert [g.switch(1) for g in reversed(alive)] == list(range(len(alive), 0, -1))
assert all(g.dead for g in alive)
print(len(alive), "went on")
