"""`fiberback.syncify`: the sync face of functions, classes, objects and modules, wherever sync code runs."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import inspect
import pickle
import sys
import traceback
import types
import typing
from collections.abc import AsyncIterator, Generator, Iterator

import fiberback
import pytest
from fiberback import syncify
from places import in_worker, of_block, on_portal, parked
from saying import says
from support import only_fiberback

pytestmark = only_fiberback


async def double(number: int, *, pause: float = 0) -> int:
    """Twice the number."""
    await asyncio.sleep(pause)
    return number * 2


async def count(to: int) -> AsyncIterator[int]:
    """From nothing."""
    for number in range(to):
        await asyncio.sleep(0)
        yield number


@contextlib.asynccontextmanager
async def opened(name):
    session = Session(name)
    await session.open()
    try:
        yield session
    finally:
        await session.close()


class Base:
    """What sessions have in common."""

    kind = "base"

    def describe(self):
        return f"{self.kind} {self.name}"

    @property
    def upper(self):
        """In capitals."""
        return self.name.upper()


class Session(Base):
    """A session."""

    kind = "session"
    instances: typing.ClassVar[list] = []

    def __init__(self, name: str = "s", *, parent=None) -> None:
        """Begin."""
        self.name, self.parent = name, parent
        self.is_open = False
        self.hooks = []

    def __repr__(self):
        return f"<Session {self.name}>"

    def __eq__(self, other):
        return isinstance(other, Session) and self.name == other.name

    def __hash__(self):
        return hash(self.name)

    def __len__(self):
        return len(self.name)

    def __getitem__(self, key):
        return self.name[key]

    async def open(self):
        await asyncio.sleep(0)
        self.is_open = True
        return self

    async def close(self):
        await asyncio.sleep(0)
        self.is_open = False

    async def __aenter__(self):
        return await self.open()

    async def __aexit__(self, kind, error, traceback):
        await self.close()
        return kind is KeyError

    async def __call__(self, number):
        return await double(number)

    async def child(self, name: str) -> Session:
        """A session below this one."""
        await asyncio.sleep(0)
        return type(self)(name, parent=self)

    async def children(self):
        return [await self.child("a"), {"b": await self.child("b")}, ("c", await self.child("c"))]

    async def itself(self):
        return self

    @property
    async def size(self):
        """How many there are."""
        await asyncio.sleep(0)
        return len(self.name)

    @functools.cached_property
    def cached(self):
        return object()

    @classmethod
    async def create(cls, name):
        """Make one."""
        await asyncio.sleep(0)
        return cls(name)

    @staticmethod
    async def twice(number):
        """Static."""
        return await double(number)

    async def rows(self, to):
        """One by one."""
        async for number in count(to):
            yield number

    def __aiter__(self):
        return self.rows(3)

    def later(self):
        return double(21)

    async def fail(self):
        await asyncio.sleep(0)
        raise LookupError("no")

    async def add_hook(self, hook):
        self.hooks.append(hook)

    async def run_hooks(self):
        return [await hook(self) for hook in self.hooks]

    async def key(self, function, values):
        return sorted(values, key=function)

    async def on_message(self, text):
        return f"async {text}"

    async def receive(self, text):
        return await self.on_message(text)

    def walk(self):
        yield self
        yield 1


class Cursor:
    """Its own iterator, with an end of its own."""

    def __init__(self, to=3):
        self.number, self.to = 0, to

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if self.number == self.to:
            raise StopAsyncIteration
        self.number += 1
        return self.number


class Query:
    """Awaited, iterated or refined."""

    def __init__(self, to):
        self.to = to

    def __await__(self):
        return self._all().__await__()

    async def _all(self):
        await asyncio.sleep(0)
        return list(range(self.to))

    async def __aiter__(self):
        for number in range(self.to):
            yield number

    def up_to(self, to):
        return Query(to)


class Plain:
    """Nothing of it is async."""


Face = syncify(Session)


class Derived(Face):
    """Of a face's class."""

    def __init__(self, name="derived"):
        super().__init__(name)
        self.extra = [1]

    def on_message(self, text):
        return f"sync {text} {super().on_message(text)}"

    def open_twice(self):
        return self.open().open()


@pytest.fixture(params=[on_portal, parked, in_worker, of_block], ids=lambda each: each.__name__)
def place(request):
    return request.param


# --- functions -----------------------------------------------------------------------------------------


def test_functions(place):
    def function():
        with syncify(opened)("one") as session:
            assert session.is_open and session.child("two").name == "two"
        return syncify(double)(4), list(syncify(count)(3)), session.is_open

    assert place(function) == (8, [0, 1, 2], False)


def test_a_function_s_face_is_a_function():
    face = syncify(double)
    assert inspect.isfunction(face) and not inspect.iscoroutinefunction(face)
    assert (face.__name__, face.__doc__, face.asyn) == ("double", "Twice the number.", double)
    assert str(inspect.signature(face)) == "(number: 'int', *, pause: 'float' = 0) -> 'int'"
    assert str(inspect.signature(syncify(count))) == "(to: 'int') -> 'Iterator[int]'"

    async def typed() -> typing.AsyncIterator[int]:
        yield 1

    for asyn, sync in (
        (typing.AsyncIterator[int], Iterator[int]),
        (typing.AsyncGenerator[int, str], Generator[int, str, None]),
    ):
        typed.__annotations__["return"] = asyn
        assert inspect.signature(syncify(typed)).return_annotation == sync


def test_a_lambda_and_a_partial(place):
    assert place(lambda: syncify(lambda number: double(number))(2)) == 4
    assert place(lambda: syncify(functools.partial(double, 3))()) == 6


def test_generators_take_and_throw(place):
    async def echo():
        got = []
        while True:
            try:
                got.append((yield len(got)))
            except KeyError:
                got.append("caught")
            except GeneratorExit:
                ended.append(got)
                raise

    ended = []

    def function():
        generator = syncify(echo)()
        assert next(generator) == 0
        assert generator.send("sent") == 1
        assert generator.throw(KeyError()) == 2
        generator.close()
        assert list(generator) == []

    place(function)
    assert ended == [["sent", "caught"]]


# --- classes and objects -------------------------------------------------------------------------------


def test_methods_wait_and_what_they_return_has_a_face(place):
    def function():
        session = Face("x")
        with session as entered:
            assert entered is session and session.is_open
            child = session.child("y")
            assert isinstance(child, Face) and child.parent is session
            assert child.child("z").parent is child
        assert not session.is_open
        first, second, (_, third) = session.children()
        assert [first.name, second["b"].name, third.name] == ["a", "b", "c"]
        assert all(type(each) is Face for each in (first, second["b"], third))
        assert session.itself() is session
        assert session(4) == 8
        assert session.later() == 42
        assert session.size == 1
        assert list(session) == list(session.rows(3)) == [0, 1, 2]
        assert list(session.walk()) == [session, 1]

    place(function)


def test_class_and_static_methods(place):
    def function():
        made = Face.create("made")
        assert type(made) is Face and made.name == "made"
        assert type(made.create("again")) is Face
        assert Face.twice(2) == made.twice(2) == 4
        assert Derived.twice(3) == 6

    place(function)


def test_an_object(place):
    def function():
        session = Session("object")
        face = syncify(session)
        assert syncify(session) is face and syncify(face) is face
        assert face.asyn is session and face.child("c").parent is face

    place(function)


def test_isinstance_goes_both_ways():
    face = Face("x")
    for cls in (Session, Base, Face, syncify(Base)):
        assert isinstance(face, cls), cls
    assert issubclass(Face, syncify(Base)) and not isinstance(face, Cursor)
    assert type(face) is Face and face.__class__ is Session
    assert isinstance(syncify(Cursor()), AsyncIterator)
    assert syncify(Session) is Face and syncify(Face) is Face and Face.asyn is Session


def test_the_class_is_described_as_the_async_one_is():
    assert (Face.__name__, Face.__qualname__, Face.__module__) == ("Session", "Session", __name__)
    assert Face.__doc__ == "A session." and Face.child.__doc__ == "A session below this one."
    assert Face.upper.__doc__ == "In capitals." and Face.size.__doc__ == "How many there are."
    assert Face.create.__doc__ == "Make one." and Face.twice.__doc__ == "Static."
    assert inspect.signature(Face) == inspect.signature(Session)
    for name in ("child", "create", "twice", "rows"):
        assert inspect.signature(getattr(Face, name)) == inspect.signature(getattr(Session, name))
        assert not inspect.iscoroutinefunction(getattr(Face, name))
    assert inspect.signature(Face().child) == inspect.signature(Session().child)
    assert repr(Face) == f"fiberback.syncify({Session!r})"
    assert "child" in dir(Face) and {"child", "name", "is_open"} <= set(dir(Face()))
    assert "A session below" in __import__("pydoc").render_doc(Face)


def test_attributes_are_the_object_s():
    face = Face("x")
    assert (face.name, face.kind, Face.kind, face.upper) == ("x", "session", "session", "X")
    face.name = "y"
    assert face.asyn.name == "y" and face.describe() == "session y"
    other = Face("z")
    face.parent = other
    assert face.asyn.parent is other.asyn and face.parent is other
    del face.parent
    assert not hasattr(face, "parent") and not hasattr(face.asyn, "parent")
    with pytest.raises(AttributeError, match="'Session' object has no attribute 'nothing'"):
        face.nothing  # noqa: B018
    assert face.cached is face.cached is face.asyn.cached
    with pytest.raises(AttributeError):
        face.upper = "no"


def test_dunder_methods_are_the_object_s():
    face = Face("name")
    assert (repr(face), len(face), face[1], bool(Face(""))) == ("<Session name>", 4, "a", False)
    assert face == Session("name") == face == Face("name") and face != Face("other")
    assert hash(face) == hash("name") and {face: 1}[Face("name")] == 1


def test_what_is_replaced_is_found(monkeypatch):
    async def other(self, name):
        return f"other {name}"

    async def own(name):
        return f"own {name}"

    face = Face("x")
    monkeypatch.setattr(Session, "child", other)
    assert face.child("y") == "other y"
    face.asyn.child = own
    assert face.child("y") == "own y"
    monkeypatch.setattr(Session, "new", other, raising=False)
    assert face.new("z") == "other z"


def test_iterators_of_their_own(place):
    def function():
        assert list(syncify(Cursor)(2)) == [1, 2]
        cursor = syncify(Cursor(3))
        assert iter(cursor) is cursor
        assert next(cursor) == 1
        assert list(cursor) == [2, 3]
        assert next(cursor, "end") == "end"

    place(function)


def test_what_can_be_awaited_and_iterated_is_an_object(place):
    def function():
        query = syncify(Query)(5)
        assert list(query) == query() == [0, 1, 2, 3, 4]
        assert list(query.up_to(2)) == query.up_to(2)() == [0, 1]
        assert fiberback.sync(query) == [0, 1, 2, 3, 4]
        with pytest.raises(AttributeError) as info:
            query.nothing  # noqa: B018
        says("".join(info.value.__notes__), "face-call")

    place(function)


def test_futures(place):
    class Holder:
        def __init__(self):
            self.future = asyncio.get_running_loop().create_future()

        def submit(self, value):
            asyncio.get_running_loop().call_soon(self.future.set_result, value)
            return self.future

        async def handle(self):
            return self.future

    def function():
        holder = syncify(Holder)()
        assert not holder.future.done()  # kept there: reading it does not wait
        assert holder.submit(5) == 5
        handle = holder.handle()
        assert handle.done() and handle() == 5

    place(function)


def test_async_code_can_use_a_face(place):
    async def main():
        face = Face("x")
        async with face as entered:
            assert entered is face.asyn
        return [number async for number in face], await face.asyn.child("y")

    numbers, child = place(lambda: fiberback.sync(main()))
    assert numbers == [0, 1, 2] and child.name == "y"


def test_values_that_have_no_face_are_the_same():
    class Holder:
        async def give(self, value):
            return value

    face = syncify(Holder())
    for value in ([1, [2]], {"a": (1,)}, Plain(), Plain, ValueError("x"), {1}, open, int, len):
        assert face.give(value) is value


def test_exceptions_and_their_tracebacks(place):
    with pytest.raises(LookupError, match="^'?no'?$") as info:
        place(lambda: Face("x").fail())
    frames = traceback.extract_tb(info.value.__traceback__)
    assert frames[-1].name == "fail" and "raise LookupError" in frames[-1].line

    def swallowed():
        with Face("x"):
            raise KeyError
        return True

    assert place(swallowed)

    def raised():
        with Face("x"):
            raise IndexError

    with pytest.raises(IndexError):
        place(raised)


def test_arguments_that_are_faces_arrive_as_what_they_stand_for(place):
    class Taker:
        async def take(self, *values, **named):
            first, cls, (second,), *_ = values
            assert type(first) is type(second) is cls is Session
            assert issubclass(type(named["parent"]), Session)
            return first, [second, 1]

    def function():
        session = Face("x")
        first, seconds = syncify(Taker)().take(session, Face, [session], parent=Derived())
        assert first is session and seconds[0] is session
        return Face("y", parent=session).asyn.parent is session.asyn

    assert place(function)


def test_callbacks(place):
    def hook(session):
        assert type(session) is Face
        return session.child("hooked").name  # waits

    async def async_hook(session):
        assert type(session) is Session
        return "async"

    class Bound:
        def hook(self, session):
            return session

    bound = Bound()

    def function():
        session = Face("x")
        for each in (hook, async_hook, bound.hook, functools.partial(hook), lambda _: 1):
            session.add_hook(each)
        assert session.hooks[0] is hook and session.hooks[2] == bound.hook
        assert session.key(lambda value: -value, [1, 3, 2]) == [3, 2, 1]
        assert session.run_hooks() == ["hooked", "async", session, "hooked", 1]
        session.hooks = [session.child, Face]
        assert session.asyn.hooks == [session.asyn.child, Session]
        with pytest.raises(ZeroDivisionError):
            session.hooks = [lambda _: 1 // 0]
            session.run_hooks()

    place(function)


class AsyncCall(typing.Protocol):
    async def __call__(self, number: int) -> int: ...


class Annotated:
    """It says what it takes: a task, or a loop, could do nothing with what is not async."""

    async def start(self, function: typing.Callable[[int], typing.Awaitable[int]] | None = None):
        return await asyncio.create_task(function(1))

    async def protocol(self, *, function: AsyncCall | None):
        return await asyncio.gather(function(1), function(2))

    async def either(
        self, function: typing.Callable[[int], int] | typing.Callable[[int], typing.Awaitable[int]]
    ):
        result = function(1)
        return await result if inspect.isawaitable(result) else result

    async def send(self, parts: typing.Iterable[int] | typing.AsyncIterable[int]):
        return [part async for part in parts] if hasattr(parts, "__aiter__") else "sync"

    async def unresolved(self, parts: Nowhere | typing.AsyncIterable[int]):  # noqa: F821
        return [part async for part in parts]

    async def sync(self, parts: typing.Iterable[int]):
        return list(parts)


def test_arguments_in_the_form_that_is_asked_for(place):
    def function():
        face = syncify(Annotated)()

        def work(number):
            return syncify(double)(number)  # waits

        def parts(to):
            try:
                for number in range(to):
                    yield work(number)
            finally:
                ended.append(to)

        assert face.start(work) == 2
        assert face.protocol(function=work) == [2, 4]
        assert face.either(work) == 2
        assert face.send(parts(3)) == face.unresolved(parts(3)) == [0, 2, 4]
        assert face.send([1]) == "sync" and face.sync(parts(2)) == [0, 2]

    ended = []
    place(function)
    assert ended == [3, 3, 2]


# --- derived classes -----------------------------------------------------------------------------------


def test_derived_classes(place):
    def function():
        derived = Derived("d")
        assert isinstance(derived, (Face, Session)) or isinstance(derived, Derived)
        assert isinstance(derived, Session) and type(derived) is Derived
        assert derived.name == "d" and derived.extra == [1]
        assert derived.open_twice() is derived and derived.is_open
        # The async side calls what is overridden.
        assert derived.receive("hi") == derived.on_message("hi") == "sync hi async hi"
        assert type(derived.child("c")) is Derived
        assert type(Derived.create("e")) is Derived
        with derived as entered:
            assert entered is derived

    place(function)


def test_a_derived_class_without_its_beginning():
    class Forgets(Face):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError) as info:
        Forgets().name  # noqa: B018
    says(info.value, "face-init", "Forgets")


def test_derived_iterators_and_managers(place):
    class Three(syncify(Cursor)):
        def __next__(self):
            if self.number >= 3:
                raise StopIteration
            self.number += 1
            return self.number * 10

        def __iter__(self):
            return self

    class Logged(Face):
        def __enter__(self):
            log.append("enter")
            return super().__enter__()

        def __exit__(self, *exc):
            log.append("exit")
            return super().__exit__(*exc)

    log = []

    async def use(logged, cursor):
        async with logged as entered:
            assert entered is logged
        return [number async for number in cursor]

    def function():
        assert syncify(use)(Logged(), Three()) == [10, 20, 30]
        with Logged():
            log.append("in")

    place(function)
    assert log == ["enter", "exit", "enter", "in", "exit"]


# --- copies and pickles --------------------------------------------------------------------------------


def test_pickles_and_copies():
    for face in (Face("x"), Derived("x")):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            back = pickle.loads(pickle.dumps(face, protocol))
            assert type(back) is type(face) and back == face and back.asyn is not face.asyn
        for copied in (copy.copy(face), copy.deepcopy(face)):
            assert type(copied) is type(face) and copied == face and copied.asyn is not face.asyn
        assert back.child("y").parent is back
    assert pickle.loads(pickle.dumps(Face)) is Face
    assert pickle.loads(pickle.dumps(Derived)) is Derived


# --- modules -------------------------------------------------------------------------------------------


def module():
    made = types.ModuleType("a_module", "Its docstring.")
    exec(
        "import asyncio\n"
        "class Client:\n"
        "    async def get(self): return 'got'\n"
        "class Error(Exception): pass\n"
        "async def fetch(): return Client()\n"
        "def connect(): return Client()\n"
        "shared = Client()\n"
        "VERSION = '1'\n",
        vars(made),
    )
    return made


def test_a_module(place):
    def function():
        asyn = module()
        face = syncify(asyn)
        assert isinstance(face, types.ModuleType) and face.asyn is asyn
        assert (face.__name__, face.__doc__, face.VERSION) == ("a_module", "Its docstring.", "1")
        assert face.Client().get() == face.fetch().get() == face.connect().get() == "got"
        assert face.shared.get() == "got" and face.shared is face.shared
        assert face.Client is syncify(asyn.Client) and face.fetch is face.fetch
        assert face.Error is asyn.Error and face.asyncio is asyncio
        face.VERSION = "2"
        assert asyn.VERSION == "2" and "Client" in dir(face)
        with pytest.raises(AttributeError, match="a_module"):
            face.nothing  # noqa: B018

    place(function)


def test_submodules():
    face = syncify(asyncio)
    assert face.queues.Queue is face.Queue is syncify(asyncio.Queue)
    assert face.sys is sys

    def function():
        queue = face.Queue()
        queue.put(1)
        return queue.get()

    assert parked(function) == of_block(function) == 1
    assert syncify(syncify(asyncio)) is syncify(asyncio) is face
    assert pickle.loads(pickle.dumps(face)).Queue is face.Queue


# --- what it takes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 1, "text", [double]])
def test_what_has_no_face(value):
    with pytest.raises(TypeError) as info:
        syncify(value)
    says(info.value, "face-what")


def test_a_coroutine_is_refused_and_closed():
    with pytest.raises(TypeError) as info:
        syncify(double(1))
    says(info.value, "face-what", "fiberback.sync(coroutine)")
    with pytest.raises(ValueError) as info:
        syncify(double, fallback="sometimes")
    says(info.value, "sync-fallback")


def test_as_asyncer_has_it():
    """By position, too."""
    for face in (syncify(double, True), syncify(double, raise_sync_error=True)):
        with pytest.raises(RuntimeError) as info:
            face(1)
        says(info.value, "face-no-loop")
        assert (
            parked(lambda: face(1))
            == on_portal(lambda: face(2)) - 2
            == in_worker(lambda: face(1))
            == 2
        )
    assert syncify(double, False)(1) == 2
