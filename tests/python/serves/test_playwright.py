"""`fiberback.playwright`: Playwright's sync API in tasks, against real pages in a browser of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.slow]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Serves pages after a while, on the loop that the browser's user runs on.
COMMON = """
import asyncio, shutil, sys, time
import fiberback

if sys.argv[2] == "ours":
    import fiberback.greenlet
    fiberback.greenlet.install()
import fiberback.playwright
fiberback.playwright.install()
fiberback.playwright.install()
from playwright.sync_api import Error, TimeoutError, sync_playwright

BROWSER = next(filter(None, map(shutil.which, sys.argv[3:])))


def launch(playwright):
    return playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])


async def serve(reader, writer):
    path = (await reader.readuntil(b"\\r\\n\\r\\n")).split()[1].decode()
    await asyncio.sleep(0.2)
    body = f"<title>page {path}</title><p id=path>{path}</p>".encode()
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/html\\r\\nConnection: close\\r\\n")
    writer.write(b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
    await writer.drain()
    writer.close()


def run(main):
    (fiberback.run if sys.argv[1] == "portals" else asyncio.run)(main())
"""


@pytest.fixture(params=["portals", "parked"])
def way(request):
    return request.param


@pytest.fixture(params=["ours", "greenlet"])
def script(request, way):
    import_or_skip("playwright")
    import_or_skip("greenlet")
    if not any(map(shutil.which, BROWSERS)):
        pytest.skip("no Chromium on this machine (apt-get install chromium)")

    def run(text):
        command = [sys.executable, "-c", COMMON + textwrap.dedent(text), way, request.param]
        done = subprocess.run(
            [*command, *BROWSERS], capture_output=True, text=True, timeout=150, env=dict(os.environ)
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


def test_two_tasks_in_pages_of_their_own(script):
    said = script("""
        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            spans, ticks = [], []

            async def ticker():
                while True:
                    ticks.append(1)
                    await asyncio.sleep(0.001)

            async def task(browser, number):
                begin = time.monotonic()
                page = browser.new_page()
                texts = []
                # a handler that calls the sync API itself
                page.on("response", lambda response: texts.append(response.text()))
                page.goto(f"http://127.0.0.1:{port}/{number}")
                spans.append((begin, time.monotonic()))
                found = page.title(), page.inner_text("#path")
                page.wait_for_timeout(50)
                page.close()
                return *found, f"page /{number}" in texts[0]

            ticking = asyncio.ensure_future(ticker())
            with sync_playwright() as playwright:
                browser = launch(playwright)
                for found in await asyncio.gather(task(browser, 1), task(browser, 2)):
                    print(*found)
                browser.close()
            print("overlap", max(begin for begin, _ in spans) < min(end for _, end in spans))
            print("ticks", len(ticks) > 20)
            ticking.cancel()
            server.close()

        run(main)
    """)
    assert said == [
        "page /1 /1 True",
        "page /2 /2 True",
        "overlap True",
        "ticks True",
    ]


def test_routes_events_functions_timeouts_and_cancellation(script):
    said = script("""
        async def main():
            playwright = sync_playwright().start()
            browser = launch(playwright)

            async def routes():
                page = browser.new_page()

                def handle(route):
                    is_data = "data" in route.request.url
                    title = page.evaluate("'from the page'") if is_data else "document"
                    route.fulfill(content_type="text/html", body=f"<title>{title}</title>")

                page.route("**/*", handle)
                page.goto("http://nowhere.test/")
                print(page.title())
                print(page.evaluate("fetch('/data').then(answer => answer.text())"))
                with page.expect_response("**/data2") as response:
                    page.evaluate("fetch('/data2')")
                print(response.value.status)
                page.expose_function("twice", lambda x: 2 * x)
                print(page.evaluate("twice(21)"))

            async def waits():
                page = browser.new_page()
                try:
                    page.wait_for_selector("#never", timeout=100)
                except TimeoutError:
                    print("timeout")
                page.wait_for_timeout(60_000)

            await asyncio.create_task(routes())
            task = asyncio.create_task(waits())
            await asyncio.sleep(1)
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            print(type(ended).__name__)
            page = browser.new_page()
            page.set_content("<p>goes on</p>")
            print(page.inner_text("p"))
            browser.close()
            playwright.stop()
            try:
                browser.new_page()
            except Error:
                print("closed")

        run(main)
    """)
    assert said == [
        "document",
        "<title>from the page</title>",
        "200",
        "42",
        "timeout",
        "CancelledError",
        "goes on",
        "closed",
    ]


def test_without_a_loop_playwright_does_as_before(script):
    said = script("""
        with sync_playwright() as playwright:
            page = launch(playwright).new_page()
            page.set_content("<p>here</p>")
            print(page.inner_text("p"))
    """)
    assert said == ["here"]


def test_a_playwright_that_is_another_within(tmp_path):
    for name in ("__init__.py", "_impl/__init__.py", "sync_api/__init__.py"):
        path = tmp_path / "playwright" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("class Playwright: pass\n")
    script = """
        import fiberback.greenlet
        fiberback.greenlet.install()
        try:
            import fiberback.playwright
        except ImportError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=100,
        env=dict(os.environ, PYTHONPATH=str(tmp_path)),
    )
    assert "[fiberback:playwright-version]" in done.stdout, done.stderr
