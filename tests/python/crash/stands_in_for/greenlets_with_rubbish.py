# expect-stdout: fine
"""All that fiberback.greenlet offers with every kind of wrong argument: in the main greenlet, in another, on a portal.

What is called by its C API is called with objects that are no greenlets, too, and with none.
"""

import asyncio
import ctypes
import gc
import itertools
import sys
import threading
import warnings

import fiberback
import fiberback.greenlet as module

warnings.simplefilter("ignore")
sys.unraisablehook = lambda _: None

greenlet, getcurrent = module.greenlet, module.getcurrent
native = sys.modules["fiberback._fiberback"].greenlet


class Hostile:
    def __getattribute__(self, name):
        raise ZeroDivisionError(name)


class HostileRun(greenlet):
    def run(self):
        raise ZeroDivisionError

    def __getattribute__(self, name):
        if name == "run":
            raise ZeroDivisionError
        return super().__getattribute__(name)


class HalfMade(greenlet):
    def __init__(self):
        pass


class StartsItself(greenlet):
    """Its `run`, when looked up, begins it."""

    depth = 0

    @property
    def run(self):
        if not type(self).depth:
            type(self).depth = 1
            try:
                self.switch()
            finally:
                type(self).depth = 0
        return lambda *arguments, **named: None


class Text(str):
    def __eq__(self, other):
        raise ZeroDivisionError

    __hash__ = str.__hash__


def suspended():
    one = greenlet(lambda *_, **__: getcurrent().parent.switch())
    one.switch()
    return one


def dead():
    one = greenlet(lambda: None)
    one.switch()
    return one


def of_a_thread():
    """Of one that has ended: a greenlet that was suspended there, and its main one."""
    found = []

    def work():
        found.extend([suspended(), getcurrent()])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found


OF_A_THREAD = of_a_thread()


def things():
    return [
        None, 42, "text", Text("switch"), b"", (), (1, 2), [], {}, {1: 2}, object, Hostile(), len, type, Exception,
        Exception("x"), BaseException, module.GreenletExit, module.GreenletExit(), module.error, sys._getframe(),
        lambda *_, **__: None, greenlet, greenlet(), greenlet(len), HostileRun(), HalfMade(), StartsItself(), suspended(),
        dead(), getcurrent(), *OF_A_THREAD, native.UnswitchableGreenlet(), gc.collect, range(3), NotImplemented,
    ]  # fmt: skip


def use(call, *arguments, **named):
    """What the call does, but no death, and no error that nobody has set."""
    try:
        return call(*arguments, **named)
    except SystemError as error:
        assert "Failed to switch stacks" in str(error), error
    except BaseException:
        pass


def exercise():
    functions = [getattr(native, name) for name in dir(native) if not name.startswith("_")]
    for call in [each for each in functions if callable(each)]:
        for arguments in itertools.chain([()], ((thing,) for thing in things())):
            use(call, *arguments)
    # 'thing' as each of them, and each of them with each
    for index, name in itertools.product(range(len(things())), ["switch", "throw"]):
        for count in range(3):
            for first in range(0, len(things()), 5):
                known = things()
                arguments = [known[first], known[first - 3]][:count]
                if issubclass(type(known[index]), greenlet):
                    use(getattr(known[index], name), *arguments)
                    use(lambda: getattr(known[index], name)(*arguments, **{Text("a"): 1}))
                use(getattr(greenlet, name), known[index], *arguments)
    use(module.settrace, None)
    for index, name in itertools.product(
        range(len(things())),
        [
            "run",
            "parent",
            "gr_context",
            "gr_frame",
            "dead",
            "__dict__",
            "_stack_saved",
            "force_switch_error",
        ],
    ):
        for value in things():
            one = things()[index]
            if issubclass(type(one), greenlet):
                use(setattr, one, name, value)
                use(getattr, one, name)
                use(repr, one)
                use(bool, one)
                use(delattr, one, name)
                use(one.switch)
    for thing in things():
        use(greenlet, thing)
        use(greenlet, thing, thing)
        use(greenlet, parent=thing)
        use(greenlet.__new__, thing)
        use(greenlet.__init__, thing, thing)
        use(object.__new__, greenlet)
        one = greenlet(lambda: 1)
        use(one.__init__, thing, thing)
        use(one.switch, thing)


def by_the_c_api():
    capsule = ctypes.pythonapi.PyCapsule_GetPointer
    capsule.restype, capsule.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(capsule(module._C_API, b"greenlet._C_API"), ctypes.POINTER(ctypes.c_void_p))
    thing = ctypes.py_object
    kinds = {
        3: (thing, [thing, thing]),  # New
        4: (thing, []),  # GetCurrent
        5: (thing, [thing] * 4),  # Throw
        6: (thing, [thing] * 3),  # Switch
        7: (ctypes.c_int, [thing] * 2),  # SetParent
        8: (ctypes.c_int, [thing]),  # MAIN
        9: (ctypes.c_int, [thing]),  # STARTED
        10: (ctypes.c_int, [thing]),  # ACTIVE
        11: (ctypes.c_void_p, [thing]),  # GET_PARENT: null without an error is none
    }
    for number, (result, arguments) in kinds.items():
        call = ctypes.PYFUNCTYPE(result, *arguments)(table[number])
        null = thing()
        for index in range(len(things())):
            known = things()
            # A call with a null for each place, and with none.
            for at in range(len(arguments) + 1):
                given = [known[index - step] for step in range(len(arguments))]
                if number == 6 and type(given[1]) is not tuple:
                    given[1] = ()  # greenlet.h says a tuple
                if at < len(given):
                    given[at] = null
                use(call, *given)


async def main():
    try:
        await fiberback.with_portal_run_sync(exercise)
    except RuntimeError:
        pass
    gc.collect()


exercise()
by_the_c_api()
greenlet(exercise).switch()
asyncio.run(main())
gc.collect()
print("fine")
