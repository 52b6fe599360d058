"""`python -m fiberback stubs`: what mypy says of the stubs that it writes, of right uses and of wrong ones."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

import_or_skip("mypy")

HERE = pathlib.Path(__file__).parent / "stubs"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("mypy"))


@pytest.fixture
def python(tmp_path, cache):
    def run(*command, code=0, both=False, **env):
        done = subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=tmp_path,
            env={**os.environ, "MYPY_CACHE_DIR": cache, **env},
        )
        assert done.returncode == code, done.stdout[-5000:] + done.stderr[-3000:]
        return done.stdout + done.stderr if code or both else done.stdout

    return run


def write_stub(python, tmp_path, source):
    (tmp_path / "faces.py").write_text(source)
    assert python("-m", "fiberback", "stubs", "faces").strip().endswith("faces.pyi")
    return (tmp_path / "faces.pyi").read_text()


def check_uses(python, tmp_path, uses):
    """mypy complains of the lines that end in `# refused`, each of them, and of nothing else."""
    (tmp_path / "uses.py").write_text(uses)
    said = python("-m", "mypy", "--strict", "uses.py", "faces.pyi", code=1)
    refused = {int(line) for line in re.findall(r"^uses\.py:(\d+): error", said, re.MULTILINE)}
    wanted = {
        number for number, line in enumerate(uses.splitlines(), 1) if line.endswith("# refused")
    }
    assert wanted and refused == wanted, said
    assert not re.search(r"^(?!uses\.py:)\S+: error", said, re.MULTILINE), said


def test_of_all_that_is_async(python, tmp_path):
    for name in ("shop.py", "faces.py"):
        shutil.copy(HERE / name, tmp_path)
    text = write_stub(python, tmp_path, (HERE / "faces.py").read_text())
    for line in (
        "class Shop(_Base):",
        "    def connect(cls, url: str, /) -> Self: ...",
        "    def find(self, key: shop.Key, many: Literal[False] = False) -> _Order | None: ...",
        "    def set(self, names: builtins.set[str]) -> builtins.set[str]: ...",
        "class _Page(Generic[_T]):",
        "    def __iter__(self) -> Iterator[_T]: ...",
    ):
        assert line in text.splitlines(), text
    assert "async def" not in text and "__aenter__" not in text
    check_uses(python, tmp_path, (HERE / "uses.py").read_text())
    # The same again: whatever the hashes, and beside the stub that is there.
    again = python("-m", "fiberback", "stubs", "faces", "-o", "-", PYTHONHASHSEED="3")
    assert again == text


def test_what_is_in_a_stub_is_there(python, tmp_path):
    """At runtime, too: each method and property of each class."""
    for name in ("shop.py", "faces.py"):
        shutil.copy(HERE / name, tmp_path)
    write_stub(python, tmp_path, (HERE / "faces.py").read_text())
    (tmp_path / "there.py").write_text(
        "import ast, pathlib, fiberback, faces, shop\n"
        "there = 0\n"
        "for node in ast.parse(pathlib.Path('faces.pyi').read_text()).body:\n"
        "    if isinstance(node, ast.ClassDef):\n"
        "        face = getattr(faces, node.name, None)\n"
        "        face = face or fiberback.syncify(getattr(shop, node.name[1:]))\n"
        "        for each in node.body:\n"
        "            if isinstance(each, ast.FunctionDef):\n"
        "                there += 1\n"
        "                assert hasattr(face, each.name), (node.name, each.name)\n"
        "assert there > 30, there\n"
    )
    python("there.py")


def test_of_an_async_module(python, tmp_path):
    """The face of the module itself, for where `syncify(module)` is kept."""
    shutil.copy(HERE / "shop.py", tmp_path)
    text = python("-m", "fiberback", "stubs", "shop")
    assert "class Shop(Base):" in text and "def open_shop(url: str) -> Shop: ..." in text
    assert not (tmp_path / "shop.pyi").exists()
    python("-m", "fiberback", "stubs", "shop", "-o", "faces.pyi")
    assert (tmp_path / "faces.pyi").read_text() == text
    (tmp_path / "faces.py").write_text(
        "import sys, fiberback, shop\nsys.modules[__name__] = fiberback.syncify(shop)\n"
    )
    check_uses(
        python,
        tmp_path,
        "from typing import assert_type\n"
        "import faces\n"
        "with faces.open_shop('url') as store:\n"
        "    assert_type(store, faces.Shop)\n"
        "    assert_type(store.find(1, True), list[faces.Order])\n"
        "faces.open_shop()  # refused\n",
    )


def test_what_cannot_be_read(python, tmp_path):
    said = python("-m", "fiberback", "stubs", "unheard_of", code=1)
    assert said == "python -m fiberback: No module named 'unheard_of'\n"
    with zipfile.ZipFile(tmp_path / "lib.zip", "w") as archive:
        archive.writestr("zipped.py", "async def function() -> None: ...\n")
    said = python("-m", "fiberback", "stubs", "zipped", code=1, PYTHONPATH="lib.zip")
    assert "[fiberback:stubs-mypy]" in said and "Traceback" not in said


def test_a_class_without_a_name_of_its_own(python, tmp_path):
    """Types are looked up by names; what has none is Any, and said to be."""
    (tmp_path / "faces.py").write_text(
        "import fiberback\n"
        "def make() -> type:\n"
        "    class Made:\n"
        "        async def method(self) -> int: return 1\n"
        "    return Made\n"
        "Made = fiberback.syncify(make())\n"
        "async def function() -> int: return 1\n"
        "sync = fiberback.syncify(function)\n"
    )
    said = python("-m", "fiberback", "stubs", "faces", "-o", "-", both=True)
    assert "[fiberback:stubs-unknown]" in said
    assert "\nMade: Any\n" in said and "\ndef sync() -> int: ...\n" in said


@pytest.mark.slow
@pytest.mark.time_limit(900)
def test_httpx(python, tmp_path):
    import_or_skip("httpx")
    source = "import fiberback\nimport httpx\n\nClient = fiberback.syncify(httpx.AsyncClient)\n"
    write_stub(python, tmp_path, source)
    check_uses(
        python,
        tmp_path,
        """\
from collections.abc import Iterator
from typing import assert_type
import httpx
from faces import Client

with Client(base_url="http://localhost", timeout=5) as client:
    response = client.get("/", params={"a": 1})
    assert_type(response.status_code, int)
    assert_type(response.read(), bytes)
    assert_type(response.headers, httpx.Headers)
    assert_type(client.timeout, httpx.Timeout)
    client.timeout = 3.0
    with client.stream("POST", "/", json={}) as streamed:
        assert_type(streamed.iter_lines(), Iterator[str])
        for line in streamed.aiter_lines():
            assert_type(line, str)
    client.send(client.build_request("GET", "/"), stream=True).close()
    client.post("/", content=(part for part in [b"a"]))
    client.get(1)  # refused
    client.get("/", unheard_of=1)  # refused
    response.iter_pages()  # refused
    assert_type(response.status_code, str)  # refused


async def wrongly_async() -> None:
    await client.get("/")  # refused
    async with client:  # refused
        pass
client.close()
""",
    )


@pytest.mark.slow
@pytest.mark.time_limit(900)
def test_redis(python, tmp_path):
    import_or_skip("redis")
    source = (
        "import fiberback\nimport redis.asyncio\n\nRedis = fiberback.syncify(redis.asyncio.Redis)\n"
    )
    write_stub(python, tmp_path, source)
    check_uses(
        python,
        tmp_path,
        """\
from typing import assert_type
from faces import Redis

with Redis(host="localhost", port=6379, decode_responses=True) as client:
    assert_type(client.get("key"), bytes | str | None)
    assert_type(client.exists("key"), int)
    assert_type(client.ping(), bool)
    for key in client.scan_iter("a*"):
        print(key)
    with client.pipeline(transaction=True) as pipe:
        pipe.set("a", 1)
        pipe.execute()
    subscriber = client.pubsub()
    subscriber.subscribe("channel")
    for message in subscriber.listen():
        print(message)
    with client.lock("name", timeout=1) as lock:
        lock.extend(1)
    client.get()  # refused
    client.get(["a"])  # refused
    client.unheard_of()  # refused
    len(client.exists("key"))  # refused
client.close()


async def wrongly_async() -> None:
    await client.get("key")  # refused
    async for key in client.scan_iter():  # refused
        pass
""",
    )


@pytest.mark.slow
@pytest.mark.time_limit(900)
def test_mcp(python, tmp_path):
    import_or_skip("mcp")
    source = "import fiberback\nimport mcp\n\nSession = fiberback.syncify(mcp.ClientSession)\n"
    write_stub(python, tmp_path, source)
    check_uses(
        python,
        tmp_path,
        """\
from typing import assert_type
import mcp.types as types
from faces import Session
from mcp import ClientSession


def on_log(params: types.LoggingMessageNotificationParams) -> None: ...
def wrong(params: int) -> None: ...
async def on_log_async(params: types.LoggingMessageNotificationParams) -> None: ...


with Session(None, None, logging_callback=on_log) as session:
    session.initialize()
    tools = session.list_tools()
    assert_type(tools, types.ListToolsResult)
    assert_type([tool.name for tool in tools.tools], list[str])
    result = session.call_tool("name", {"argument": 1})
    assert_type(session.asyn, ClientSession)
    session.call_tool()  # refused
    session.call_tool(1)  # refused
    tools.unheard_of  # refused
Session(None, None, logging_callback=on_log_async)
Session(None, None, logging_callback=wrong)  # refused


async def wrongly_async() -> None:
    await session.list_tools()  # refused
    async with session:  # refused
        pass
""",
    )
