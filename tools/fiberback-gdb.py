"""Shows gdb the fibers of a process: `source tools/fiberback-gdb.py`, then

    info fibers                 lists them: number, state, name, stack, and where the code is
    fiber N                     selects the stack of a suspended one: `bt`, `up`, `info locals` show it
    fiber back                  selects the thread's own stack again; do it before the process goes on
    fiber apply all COMMAND     does COMMAND on each suspended fiber: `fiber apply all bt`

For live processes on x86-64 Linux, not for core files, with gdb 10 or later; the program needs its symbols, but no debugging information.
It runs nothing in the process, and takes no lock: `fiber N` writes registers of the selected thread, and `fiber back`
what they were.

What it reads: the list of slabs (src/fiber/memory/registry.rs, `Record`), the record on each stack
(src/fiber/header.rs, `Header`; src/fiber/switch.rs, `Record`), and what corosensei leaves on a suspended stack
(its src/arch/x86_64.rs, "Stack layout"). tests/gdb.rs holds it to them.
"""

import re
import struct

import gdb

HEAD = "fiberback::fiber::memory::registry::HEAD"
LIVE = 0x6669_6265_7262_6163
WORD = 8
HEADER_SIZE = 80
RECORD_SIZE = 192


def words(address, count):
    memory = gdb.selected_inferior().read_memory(address, count * WORD)
    return struct.unpack(f"<{count}Q", bytes(memory))


def heads():
    """Addresses of the lists of slabs: one for each version of the crate in the process."""
    found = gdb.execute(f"info variables ^{HEAD}", to_string=True)
    return [int(address, 16) for address in re.findall(r"0x[0-9a-f]+", found)]


def slabs():
    """Each as its range, the size of a slot, and how far below a slot's end the fiber's record begins."""
    for head in heads():
        (record,) = words(head, 1)
        while record:
            _taken, version, start, end, stride, guard, above, record = words(record, 8)
            if version % 2 == 0 and end > start:
                yield start, end, stride, guard, above


class Fiber:
    def __init__(self, number, lowest, record):
        self.number = number
        self.lowest = lowest
        self.record = record
        _live, name, *_rest = words(record, HEADER_SIZE // WORD)
        self.name = self.read_name(name) if name else "<unnamed>"
        # corosensei keeps two stack pointers: that of the beginning, and one that is 0 while the fiber runs.
        kept = words(record + HEADER_SIZE, (RECORD_SIZE - HEADER_SIZE) // WORD)
        stack_pointers = [word for word in kept if lowest <= word < record]
        self.stack_pointer = min(stack_pointers, default=0)
        if len(stack_pointers) < 2:
            self.state = "running"
        elif len(set(stack_pointers)) == 1:
            self.state = "not begun"
        else:
            self.state = "suspended"

    @staticmethod
    def read_name(address):
        text, length = words(address, 2)
        return bytes(gdb.selected_inferior().read_memory(text, length)).decode(errors="replace")

    def registers(self):
        """What they are when the fiber has just been switched to."""
        address, rbx, rbp = words(self.stack_pointer, 3)
        return {"rip": address, "rsp": self.stack_pointer + 3 * WORD, "rbp": rbp, "rbx": rbx}


def fibers():
    found = []
    for start, end, stride, guard, above in slabs():
        for slot in range(start, end, stride):
            record = slot + stride - above
            if words(record, 1)[0] == LIVE:
                found.append(Fiber(len(found) + 1, slot + guard, record))
    return found


# The fiber that is selected on a thread, and what the thread's registers were.
selected = {}


def write_registers(values):
    for name, value in values.items():
        gdb.execute(f"set ${name} = {value}", to_string=True)
    gdb.execute("frame 0", to_string=True)


def select(fiber):
    if fiber.state != "suspended":
        raise gdb.GdbError(
            f"Fiber {fiber.number} is {fiber.state}: only a suspended one has a stack to select."
        )
    thread = gdb.selected_thread().ptid
    gdb.execute("frame 0", to_string=True)
    registers = fiber.registers()
    own = {name: int(gdb.parse_and_eval(f"(unsigned long)${name}")) for name in registers}
    _, own = selected.get(thread, (None, own))
    selected[thread] = fiber, own
    write_registers(registers)


def back():
    _, own = selected.pop(gdb.selected_thread().ptid, (None, None))
    if own is not None:
        write_registers(own)
    return own is not None


class UpToTheRoot:
    """Ends a backtrace with the stack of the selected fiber: below it lies whoever resumed it, long ago."""

    name = "fiberback"
    enabled = True
    priority = 100

    def __init__(self):
        gdb.frame_filters[self.name] = self

    def filter(self, frames):
        fiber, _ = selected.get(gdb.selected_thread().ptid, (None, None))
        for frame in frames:
            stack_pointer = int(frame.inferior_frame().read_register("rsp"))
            if fiber and not fiber.lowest <= stack_pointer < fiber.record:
                return
            yield frame


class in_c:
    """Expressions are C's meanwhile, whatever language the frame is written in."""

    def __enter__(self):
        self.language = gdb.parameter("language")
        gdb.execute("set language c", to_string=True)

    def __exit__(self, *_):
        gdb.execute(f"set language {self.language}", to_string=True)


class InfoFibers(gdb.Command):
    """Lists the fibers of the process."""

    def __init__(self):
        super().__init__("info fibers", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        with in_c():
            found = fibers()
        if not found:
            print(
                "No fibers."
                if heads()
                else f"No fibers: the program has no symbol {HEAD} (is it stripped?)."
            )
        for fiber in found:
            stack = f"{fiber.lowest:#x}-{fiber.record:#x}"
            print(f"{fiber.number:>5}  {fiber.state:9}  {fiber.name}  {stack}")


class SelectFiber(gdb.Command):
    """fiber N: selects the stack of a suspended fiber (`info fibers` lists them).
    fiber back: selects the thread's own stack again; do it before the process goes on.
    fiber apply all COMMAND: does COMMAND on each suspended fiber."""

    def __init__(self):
        super().__init__("fiber", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        if gdb.selected_thread() is None:
            raise gdb.GdbError("There is no process: `run` or `attach` first.")
        with in_c():
            self.do(argument)

    def do(self, argument):
        if argument == "back":
            if not back():
                raise gdb.GdbError("The thread's own stack is selected already.")
            return
        if applied := re.fullmatch(r"apply\s+all\s+(.+)", argument):
            return self.apply_all(applied[1])
        found = {str(fiber.number): fiber for fiber in fibers()}
        if argument not in found:
            raise gdb.GdbError(
                f"fiber N, with N from 1 to {len(found)} (`info fibers`); or: fiber back."
            )
        select(found[argument])
        print(
            f"[Fiber {argument}, {found[argument].name}. Type `fiber back` before the process goes on.]"
        )
        gdb.execute("frame")

    def apply_all(self, command):
        for fiber in fibers():
            if fiber.state != "suspended":
                continue
            print(f"\nFiber {fiber.number} ({fiber.name}):")
            try:
                select(fiber)
                gdb.execute(command)
            finally:
                back()


UpToTheRoot()
InfoFibers()
SelectFiber()
