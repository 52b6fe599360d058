"""`fiberback.greenlet`: what greenlet documents, and what its own suite leaves out.

What holds for greenlet as well is run against both: this file run as a script is for the real one.
"""

from __future__ import annotations

import contextvars
import copy
import functools
import gc
import importlib
import importlib.util
import os
import pathlib
import pickle
import subprocess
import sys
import textwrap
import threading
import types
import weakref

import extensions
import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


@pytest.fixture
def greenlet():
    return importlib.import_module("fiberback.greenlet")


def test_the_real_one_does_the_same():
    """What is asserted here of ours is asserted of greenlet, in a process of its own."""
    if importlib.util.find_spec("greenlet") is None:
        import_or_skip("greenlet")
    env = dict(os.environ, PYTHONPATH=str(pathlib.Path(__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=100, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def both(test):
    """Marks a test that holds for the real greenlet as well."""
    BOTH.append(test)
    return test


BOTH = []


@both
def test_values_go_to_and_fro(greenlet):
    seen = []

    def run(*args, **kwargs):
        seen.append((args, kwargs))
        seen.append(main.switch())
        seen.append(main.switch(1))
        seen.append(main.switch(1, 2))
        seen.append(main.switch(a=3))
        seen.append(main.switch(1, a=3))
        return "end"

    main = greenlet.getcurrent()
    g = greenlet.greenlet(run)
    assert g.switch(1, k=2) == ()
    assert g.switch() == 1
    assert g.switch("x") == (1, 2)
    assert g.switch("x", "y") == {"a": 3}
    assert g.switch(k=5) == ((1,), {"a": 3})
    assert g.switch("x", k=5) == "end"
    assert seen == [((1,), {"k": 2}), (), "x", ("x", "y"), {"k": 5}, (("x",), {"k": 5})]
    assert g.dead and not g
    assert g.switch("to the parent") == "to the parent"
    assert main.switch("to itself") == "to itself"


@both
def test_states(greenlet):
    g = greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch())
    assert (bool(g), g.dead, g.gr_frame) == (False, False, None)
    g.switch()
    assert (bool(g), g.dead) == (True, False)
    assert g.gr_frame.f_code.co_name == "<lambda>" and g.gr_frame.f_back is None
    assert not hasattr(g, "run")
    with pytest.raises(AttributeError, match="run cannot be set after the start of the greenlet"):
        g.run = print
    g.switch()
    assert (bool(g), g.dead, g.gr_frame) == (False, True, None)
    main = greenlet.getcurrent()
    assert (bool(main), main.dead, main.parent) == (True, False, None)


@both
def test_it_is_neither_copied_nor_pickled(greenlet):
    suspended = greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch())
    suspended.switch()
    for each in (greenlet.greenlet(int), suspended, greenlet.getcurrent()):
        for way in (pickle.dumps, lambda it: pickle.dumps(it, 0), copy.copy, copy.deepcopy):
            with pytest.raises(
                TypeError, match=r"cannot (pickle|serialize) '(greenlet\.)?greenlet' object"
            ):
                way(each)


@both
def test_slots_of_a_subclass(greenlet):
    class Slotted(greenlet.greenlet):
        __slots__ = ("seen",)

        def run(self, value):
            self.seen = value
            return self.parent.switch(self.seen)

    g = Slotted()
    with pytest.raises(AttributeError):
        _ = g.seen
    g.beside = []  # there is a __dict__, too
    there = weakref.ref(g)
    assert (g.switch(there), g.seen, g.beside) == (there, there, [])
    g.beside.append(g)
    del g
    gc.collect()
    if greenlet.__name__ == "fiberback.greenlet":  # greenlet does not find such a cycle
        assert there() is None


@both
def test_run_as_a_method_attribute_or_argument(greenlet):
    class Own(greenlet.greenlet):
        def run(self, x):
            return ("method", x)

    assert Own().switch(1) == ("method", 1)
    assert Own(lambda x: ("argument", x)).switch(1) == ("method", 1)
    g = greenlet.greenlet()
    g.run = lambda x: ("attribute", x)
    assert g.switch(1) == ("attribute", 1)
    g = greenlet.greenlet(print)
    del g.run
    with pytest.raises(AttributeError):
        g.switch()


@both
def test_an_end_goes_to_the_parent(greenlet):
    main = greenlet.getcurrent()
    log = []

    def parent():
        try:
            log.append(main.switch())
            log.append(main.switch())
        except ZeroDivisionError as error:
            log.append(repr(error))
        return "parent's end"

    p = greenlet.greenlet(parent)
    p.switch()
    greenlet.greenlet(lambda: "child's end", p).switch()
    assert log == ["child's end"]
    assert greenlet.greenlet(lambda: 1 / 0, p).switch() == "parent's end"
    assert log[1:] == ["ZeroDivisionError('division by zero')"]
    # p is dead: its parent gets it
    assert greenlet.greenlet(lambda: 7, p).switch() == 7


@both
def test_throw(greenlet):
    main = greenlet.getcurrent()

    def run():
        try:
            main.switch("first")
        except KeyError as error:
            main.switch(error.args)
        return "end"

    g = greenlet.greenlet(run)
    assert g.switch() == "first"
    assert g.throw(KeyError, "k") == ("k",)
    assert isinstance(g.throw(), greenlet.GreenletExit)
    assert g.dead
    with pytest.raises(KeyError):
        g.throw(KeyError)
    never = greenlet.greenlet(print)
    with pytest.raises(KeyError):
        never.throw(KeyError("x"))
    assert never.dead
    for wrong in [(1,), (KeyError("x"), 1), (KeyError, None, 1)]:
        with pytest.raises(TypeError):
            g.throw(*wrong)
    with pytest.raises(ZeroDivisionError) as caught:
        main.throw(ZeroDivisionError)
    assert caught.value.__context__ is None


@both
def test_a_traceback_is_thrown_along(greenlet):
    try:
        raise ValueError
    except ValueError:
        kind, value, trace = sys.exc_info()
    with pytest.raises(ValueError) as caught:
        greenlet.greenlet(print).throw(kind, value, trace)
    lines = []
    at = caught.value.__traceback__
    while at is not None:
        lines.append(at.tb_lineno)
        at = at.tb_next
    assert trace.tb_lineno in lines


@both
def test_what_is_handled_is_each_greenlets_own(greenlet):
    main = greenlet.getcurrent()

    def run():
        assert sys.exc_info() == (None, None, None)
        try:
            raise KeyError
        except KeyError:
            main.switch()
            assert sys.exc_info()[0] is KeyError
        assert sys.exc_info() == (None, None, None)

    g = greenlet.greenlet(run)
    try:
        raise ValueError
    except ValueError:
        g.switch()
        assert sys.exc_info()[0] is ValueError
        g.switch()
        assert sys.exc_info()[0] is ValueError


@both
def test_contexts(greenlet):
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("main's")
    main = greenlet.getcurrent()

    def run():
        before = variable.get()
        variable.set("its own")
        main.switch(before)
        return variable.get()

    g = greenlet.greenlet(run)
    assert g.switch() == "default"
    assert variable.get() == "main's"
    assert g.gr_context[variable] == "its own"
    g.gr_context = contextvars.copy_context()
    assert g.switch() == "main's"
    with pytest.raises(TypeError, match="greenlet context must be a contextvars.Context or None"):
        g.gr_context = 1
    g = greenlet.greenlet(variable.get)
    g.gr_context = contextvars.copy_context()
    assert g.switch() == "main's"


@both
def test_trace_functions(greenlet):
    events = []
    main = greenlet.getcurrent()
    names = {main: "main"}

    def trace(event, pair):
        assert greenlet.getcurrent() is pair[1]
        events.append((event, *(names[each] for each in pair)))

    def run():
        main.switch()
        raise KeyError

    g = greenlet.greenlet(run)
    names[g] = "g"
    assert greenlet.settrace(trace) is None
    try:
        g.switch()
        with pytest.raises(KeyError):
            g.switch()
        with pytest.raises(ValueError):
            main.throw(ValueError)
    finally:
        assert greenlet.settrace(None) is trace
    assert events == [
        ("switch", "main", "g"),
        ("switch", "g", "main"),
        ("switch", "main", "g"),
        ("throw", "g", "main"),
        ("throw", "main", "main"),
    ]
    greenlet.settrace(lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        greenlet.greenlet(print).switch()
    assert greenlet.gettrace() is None


@both
def test_a_trace_function_that_switches_recurses_to_an_error(greenlet):
    def forth():
        while True:
            greenlet.getcurrent().parent.switch()

    def trace(event, pair):
        other.switch()

    def traced():
        greenlet.settrace(trace)
        one.switch()

    one, other = greenlet.greenlet(forth), greenlet.greenlet(forth)
    for call in (traced, greenlet.greenlet(traced).switch):
        with pytest.raises(RecursionError):
            call()
        assert greenlet.gettrace() is None


@both
def test_parents(greenlet):
    g, h = greenlet.greenlet(), greenlet.greenlet()
    assert g.parent is greenlet.getcurrent()
    g.parent = h
    assert g.parent is h
    with pytest.raises(ValueError, match="cyclic parent chain"):
        h.parent = g
    with pytest.raises(TypeError):
        g.parent = None
    with pytest.raises(AttributeError):
        del g.parent
    with pytest.raises(AttributeError, match="cannot set the parent of a main greenlet"):
        greenlet.getcurrent().parent = g


@both
def test_other_threads_cannot_switch(greenlet):
    errors = []
    g = greenlet.greenlet(lambda: main.switch())
    main = greenlet.getcurrent()
    g.switch()

    def other():
        assert greenlet.getcurrent() is not main
        for attempt in (g.switch, main.switch, greenlet.greenlet(print, g).switch, g.throw):
            try:
                attempt()
            except greenlet.error as error:
                errors.append(str(error)[:36])

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert errors == ["Cannot switch to a different thread\n"] * 4
    assert not g.dead
    g.switch()


@both
def test_dropped_while_suspended(greenlet):
    main = greenlet.getcurrent()
    log = []

    def run():
        try:
            main.switch()
        except greenlet.GreenletExit:
            log.append(greenlet.getcurrent().parent is main)
        finally:
            log.append("finally")

    g = greenlet.greenlet(run, greenlet.greenlet())
    g.switch()
    there = weakref.ref(g)
    del g
    assert log == [True, "finally"] and there() is None


@both
def test_dropped_by_another_thread(greenlet):
    log, main = [], greenlet.getcurrent()

    def run():
        try:
            main.switch()
        finally:
            log.append(threading.current_thread())

    box = [greenlet.greenlet(run)]
    box[0].switch()
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    assert log == []
    greenlet.getcurrent()
    assert log == [threading.current_thread()]


@both
def test_deep_recursion_is_an_error(greenlet):
    def deeper():
        return deeper()

    with pytest.raises(RecursionError):
        greenlet.greenlet(deeper).switch()

    def nested():
        return sorted([1], key=lambda x: nested())

    with pytest.raises(RecursionError):
        greenlet.greenlet(nested).switch()


# --- what only ours does ---------------------------------------------------------------------------


def test_a_cycle_through_a_suspended_frame_is_collected(greenlet):
    main = greenlet.getcurrent()
    log = []

    def run():
        mine = greenlet.getcurrent()
        mine.box = [mine]
        try:
            main.switch()
        finally:
            log.append("finally")

    g = greenlet.greenlet(run)
    g.switch()
    there = weakref.ref(g)
    del g
    gc.collect()
    assert log == ["finally"]
    gc.collect()
    assert there() is None


@pytest.mark.parametrize("way", ["method", "bound", "class's", "keyword", "forwarded", "unpacked"])
def test_what_switch_was_given_is_not_shown_twice_and_a_cycle_through_it_is_found(way):
    """Two greenlets that have switched to each other: each is what the other's caller of `switch` keeps."""
    import fiberback.greenlet as greenlet

    log = []
    there = []

    def call(target, value):
        if way == "method":
            target.switch(value)
        elif way == "bound":
            switch = target.switch
            switch(value)
        elif way == "class's":
            greenlet.greenlet.switch(target, value)
        elif way == "keyword":
            target.switch(value=value)
        elif way == "forwarded":  # the slot in front of the arguments holds what no frame owns
            functools.partial(types.MethodType(greenlet.greenlet.switch, target), value)()
        else:
            target.switch(*[value])

    def body(*args, **kwargs):
        value = [object()]
        value.append(value)
        there.append(weakref.ref(greenlet.getcurrent()))
        try:
            main.switch()
            call(others.pop(), value)
        finally:
            log.append(len(value))

    main = greenlet.getcurrent()
    pair = [greenlet.greenlet(body), greenlet.greenlet(body)]
    for each in pair:
        each.switch()
    others = list(pair)

    def home():
        for each in pair[:1]:
            each.switch()

    # the first switches to the second, that to the first, which goes home by its end
    others[:] = [greenlet.greenlet(lambda *args, **kwargs: main.switch()), pair[1]]
    home()
    del others[:], pair[:], each
    for _ in range(3):
        gc.collect()
    if way in ("method", "bound", "class's", "keyword") or sys.version_info >= (3, 14):
        assert log == [2, 2] and [one() for one in there] == [None, None]
    for _ in range(10):
        gc.collect()


def test_a_threads_end_ends_its_greenlets(greenlet):
    log, kept = [], []

    def run():
        try:
            greenlet.getcurrent().parent.switch()
        except greenlet.GreenletExit:
            log.append(threading.get_ident())
            raise

    def work():
        for _ in range(3):
            kept.append(greenlet.greenlet(run))
            kept[-1].switch()

    thread = threading.Thread(target=work)
    thread.start()
    ident = thread.ident
    thread.join()
    assert log == [ident] * 3
    assert [g.dead for g in kept] == [True] * 3
    with pytest.raises(greenlet.error, match="which happens to have exited"):
        kept[0].switch()


CALLS_IN_A_THREAD = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>

static void *body(void *callable) {
    for (int i = 0; i < 50; i++) {
        PyGILState_STATE state = PyGILState_Ensure();
        PyObject *result = PyObject_CallNoArgs(callable);
        if (!result) PyErr_Print();
        Py_XDECREF(result);
        PyGILState_Release(state);
    }
    return NULL;
}

static PyObject *call(PyObject *self, PyObject *callable) {
    (void)self;
    pthread_t thread;
    Py_BEGIN_ALLOW_THREADS
    if (pthread_create(&thread, NULL, body, callable) == 0) pthread_join(thread, NULL);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"call", call, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "calls_in_a_thread", NULL, -1, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_calls_in_a_thread(void) { return PyModule_Create(&module); }
"""


def test_each_thread_state_of_a_thread_has_greenlets_of_its_own(tmp_path):
    """Code of others that calls Python from its own thread has a new thread state each time, at the same address."""
    import fiberback.greenlet as greenlet

    source = tmp_path / "calls_in_a_thread.c"
    source.write_text(CALLS_IN_A_THREAD)
    calls = extensions.load(
        "calls_in_a_thread", extensions.compile_c("calls_in_a_thread", source, tmp_path)
    )
    mains, kept, said = [], [], []

    def run():
        try:
            mains[-1].switch("away")
        finally:
            said.append("ended")

    def called():
        mains.append(greenlet.getcurrent())
        if kept:
            said.append(kept[-1].dead)
            try:
                mains[-2].switch()
            except greenlet.error as error:
                said.append("exited" in str(error))
        kept.append(greenlet.greenlet(run))
        said.append(kept[-1].switch())

    calls.call(called)
    assert len({id(main) for main in mains}) == 50
    assert said == ["away", "ended", *[True, True, "away", "ended"] * 49]


@pytest.mark.parametrize("state", ["new", "dead", "suspended"])
def test_a_long_line_of_parents_ends_on_a_small_stack(state):
    """Each is all that keeps the next one alive: more of them than a C stack has room for calls."""
    script = """
        import sys, threading
        import fiberback.greenlet as greenlet

        def line(state):
            main = greenlet.getcurrent()
            last = None
            for _ in range(5_000):
                made = greenlet.greenlet(main.switch if state == "suspended" else int)
                if state != "new":
                    made.switch()
                if last is not None:
                    made.parent = last
                last = made
            del made
            return last

        def work():
            last = line(sys.argv[1])
            del last
            print("done")

        threading.stack_size(256 * 1024)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), state]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_parents_form_no_circle_by_an_end(greenlet):
    """A greenlet that lives on has its parent again, but not if that stands on it by now."""
    kept = []
    main = greenlet.getcurrent()
    before = greenlet.greenlet(int)

    def body():
        me = greenlet.getcurrent()
        try:
            main.switch()
        finally:
            kept.append(me)
            before.parent = me
            main.switch()

    g = greenlet.greenlet(body, before)
    g.switch()
    del g
    gc.collect()
    g = kept.pop()
    assert before.parent is g
    assert g.parent is main
    assert isinstance(g.throw(), greenlet.GreenletExit)
    greenlet.greenlet().parent = before
    assert before.switch() == 0


def test_the_c_api_refuses_what_is_no_greenlet():
    script = """
        import ctypes
        import fiberback.greenlet as greenlet

        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        table = (ctypes.c_void_p * 12).from_address(get(greenlet._C_API, b"greenlet._C_API"))
        # their numbers in greenlet.h, what they return and take
        one = [ctypes.py_object]
        functions = {
            4: (ctypes.py_object, one), 5: (ctypes.py_object, one * 4), 6: (ctypes.py_object, one * 3),
            7: (ctypes.c_int, one * 2), 8: (ctypes.c_int, one), 9: (ctypes.c_int, one),
            10: (ctypes.c_int, one), 11: (ctypes.py_object, one),
        }
        for number, (returns, takes) in functions.items():
            if number == 4:
                continue
            try:
                ctypes.PYFUNCTYPE(returns, *takes)(table[number])(*[5] * len(takes))
            except TypeError:
                continue
            print(number)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_nothing_is_copied(greenlet):
    g = greenlet.greenlet(lambda: main.switch())
    main = greenlet.getcurrent()
    g.switch()
    assert g._stack_saved == main._stack_saved == 0


def script(text):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_install():
    out = script("""
        import fiberback.greenlet
        fiberback.greenlet.install()
        fiberback.greenlet.install()
        assert fiberback.greenlet.installed()
        import sys
        assert "greenlet" not in sys.modules  # nobody has imported it yet
        import greenlet
        assert greenlet.__spec__.name == greenlet.__name__ == "fiberback.greenlet"
        import greenlet._greenlet
        from greenlet import GreenletExit, getcurrent, greenlet as kind
        assert greenlet is fiberback.greenlet
        assert kind(lambda x: x + 1).switch(1) == 2
        import fiberback
        async def main():
            return fiberback.await_(other())
        async def other():
            return kind(lambda: fiberback.await_(third())).switch()
        async def third():
            return 3
        assert fiberback.run(main()) == 3
        assert fiberback.stats()["greenlet_loaded"] == 0
        assert fiberback.stats()["greenlet_replaced"] == 1
        print("ok")
    """)
    assert out == "ok\n"


def test_only_imported_it_replaces_nothing():
    out = script("""
        import fiberback.greenlet
        print(fiberback.greenlet.installed(), fiberback.stats()["greenlet_replaced"])
    """)
    assert out == "False 0\n"


def test_a_path_file_installs_it(tmp_path):
    """What docs/greenlets.md says for programs that nobody changes."""
    path = tmp_path / "fiberback_greenlet.pth"
    path.write_text("import fiberback.greenlet; fiberback.greenlet.install()\n")
    out = script(f"""
        import site
        site.addsitedir({str(tmp_path)!r})
        import greenlet
        print(greenlet.__name__)
    """)
    assert out == "fiberback.greenlet\n"


def test_install_comes_too_late():
    out = script("""
        import sys, types
        sys.modules["greenlet"] = types.ModuleType("greenlet")
        import fiberback.greenlet
        try:
            fiberback.greenlet.install()
        except RuntimeError as error:
            print(error)
    """)
    assert "[fiberback:greenlet-loaded]" in out


if __name__ == "__main__":
    import greenlet as real

    for each in BOTH:
        each(real)
    print(len(BOTH), "passed")
