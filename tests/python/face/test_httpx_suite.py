"""httpx's own tests of its sync client, out of its sdist on PyPI, run against the sync face of its async one.

The sdist is downloaded when this test runs (`sdists`). What passes with httpx's own client passes with the
face, but for what is named here: without an event loop, and with all of it called in a running one.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys

import pytest
import sdists
from support import import_or_skip, only_fiberback, takes_long

for package in ("httpx", "uvicorn", "trio", "h2", "trustme", "chardet"):
    import_or_skip(package)

pytestmark = [only_fiberback, pytest.mark.slow]

# A plugin: puts the faces in the places of the sync classes, leaves out what is async, and says how all ended.
PLUGIN = """
import inspect, json, os
import httpcore, httpx, fiberback

if os.environ["CLIENT"] == "face":
    httpx.Client = httpx._api.Client = fiberback.syncify(httpx.AsyncClient)
    httpx.Client.__name__ = "Client"  # of which pytest makes the names of tests
    httpx.BaseTransport = fiberback.syncify(httpx.AsyncBaseTransport)
    httpx.HTTPTransport = fiberback.syncify(httpx.AsyncHTTPTransport)
    # What some look for in a transport.
    httpcore.HTTPProxy, httpcore.SOCKSProxy = httpcore.AsyncHTTPProxy, httpcore.AsyncSOCKSProxy

ends = {}

def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if not inspect.iscoroutinefunction(item.function)]

def pytest_runtest_logreport(report):
    if report.when == "call" or not report.passed:
        ends[report.nodeid] = report.outcome

def pytest_sessionfinish():
    with open("ends.json", "w") as file:
        json.dump(ends, file)
"""

IN_A_LOOP = """
import asyncio, sys
import fiberback, pytest

async def main():
    return pytest.main(sys.argv[2:])

sys.exit({"portal": fiberback.run, "parked": asyncio.run}[sys.argv[1]](main()))
"""
WAYS = {
    "no loop": ["-m", "pytest"],
    "portal": ["-c", IN_A_LOOP, "portal"],
    "parked": ["-c", IN_A_LOOP, "parked"],
}

# The others are about requests, responses, and what is sync only: WSGI, how httpcore's exceptions are mapped.
FILES = ["tests/client", "tests/test_api.py", "tests/test_timeouts.py"]

# What is otherwise with the face, and why.
OTHERWISE = {
    "tests/client/test_auth.py::test_sync_auth": (
        "the auth has a flow for sync clients and one for async ones, and an async client asks for the latter"
    ),
    "tests/client/test_client.py::test_cannot_stream_async_request": (
        "asserts that async iterators are refused as content"
    ),
    "tests/client/test_client.py::test_context_managed_transport": (
        "a class derived from a face's whose __init__ does not call that of the base"
    ),
    "tests/client/test_client.py::test_context_managed_transport_and_mount": (
        "a class derived from a face's whose __init__ does not call that of the base"
    ),
    "tests/client/test_redirects.py::test_cannot_redirect_streaming_body": (
        "its transport reads the content in handle_request, and an async client asks for handle_async_request"
    ),
    "tests/test_api.py::test_post_byte_stream": (
        "content that is a SyncByteStream, which httpx's async client refuses"
    ),
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = sdists.unpack("httpx", "0.28.1", tmp_path_factory.mktemp("httpx"))
    # What is tested is the httpx that is installed.
    (folder / "httpx").rename(folder / "not_this_one")
    (folder / "put_faces.py").write_text(PLUGIN)
    return folder


def run(suite, client, way):
    """How each test ended, and what pytest said."""
    takes_long()
    # The server's port is 8000; where that is taken its fixture waits for ever for it to start.
    conftest = suite / "tests" / "conftest.py"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        config = f'Config(app=app, port={unused.getsockname()[1]}, lifespan="off"'
    text, places = re.subn(r'Config\(app=app, .*lifespan="off"', config, conftest.read_text())
    assert places == 1
    conftest.write_text(text)
    command = [sys.executable, "-X", "faulthandler", *WAYS[way], "-q", "-p", "put_faces"]
    command += ["-p", "no:cacheprovider", "-p", "no:asyncio", "-o", "faulthandler_timeout=100"]
    # Those that are marked `network` need the internet.
    command += ["-m", "not network", *FILES]
    done = subprocess.run(
        command,
        cwd=suite,
        env=dict(os.environ, CLIENT=client, PYTHONPATH=str(suite)),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode in (0, 1), done.stdout[-5000:] + done.stderr
    return json.loads((suite / "ends.json").read_text()), done.stdout


@pytest.fixture(scope="module")
def passes_with_httpxs(suite):
    ends, output = run(suite, "httpx's", "no loop")
    passes = {name for name, end in ends.items() if end == "passed"}
    assert len(passes) >= 170, output
    return passes


@pytest.mark.parametrize("way", WAYS)
def test_httpxs_own_tests(suite, passes_with_httpxs, way):
    ends, output = run(suite, "face", way)
    otherwise = {name for name in passes_with_httpxs if ends.get(name) != "passed"}
    assert otherwise == OTHERWISE.keys(), output
