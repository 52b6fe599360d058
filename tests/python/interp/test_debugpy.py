"""`await_` in what debugpy (pydevd: Visual Studio Code, PyCharm) is told to evaluate at a breakpoint."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

PROGRAM = """
import asyncio, sys
import debugpy
import fiberback

print(*debugpy.listen(("127.0.0.1", 0)), flush=True)
debugpy.wait_for_client()

ticks = 0

async def waits(value):
    while ticks < 2:  # the loop goes on
        await asyncio.sleep(0.001)
    return value

def work():
    first = fiberback.await_(waits(1))
    return first + 1  # a breakpoint

async def main():
    global ticks

    async def calls():
        return work()

    task = asyncio.create_task(calls())
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1
    print(await task, ticks > 1, fiberback.stats()["stacks_leaked"], flush=True)

{"asyncio.run": asyncio.run, "fiberback.run": fiberback.run}[sys.argv[1]](main())
"""


class Client:
    """Speaks the Debug Adapter Protocol, as far as it is needed here."""

    def __init__(self, address):
        self.socket = socket.create_connection(address)
        self.socket.settimeout(60)
        self.stream = self.socket.makefile("rb")
        self.sequence = 0
        self.unseen = []

    def send(self, command, **arguments):
        self.sequence += 1
        message = {"seq": self.sequence, "type": "request", "command": command}
        body = json.dumps(message | {"arguments": arguments}).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self.sequence

    def receive(self):
        length = 0
        while line := self.stream.readline().strip():
            name, value = line.split(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return json.loads(self.stream.read(length))

    def wait_for(self, wanted):
        for message in self.unseen:
            if wanted(message):
                self.unseen.remove(message)
                return message
        while not wanted(message := self.receive()):
            self.unseen.append(message)
        return message

    def event(self, name):
        return self.wait_for(lambda message: message.get("event") == name)

    def ask(self, command, **arguments):
        number = self.send(command, **arguments)
        answer = self.wait_for(lambda message: message.get("request_seq") == number)
        assert answer["success"], answer
        return answer.get("body")


@pytest.mark.parametrize("runner", ["asyncio.run", "fiberback.run"])
def test_evaluates_what_awaits(runner, tmp_path):
    import_or_skip("debugpy")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    line = 1 + PROGRAM.splitlines().index("    return first + 1  # a breakpoint")
    process = subprocess.Popen(
        [sys.executable, "-Xfrozen_modules=off", str(program), runner],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    try:
        host, port = process.stdout.readline().split()
        client = Client((host, int(port)))
        client.send("initialize", adapterID="test", pathFormat="path", linesStartAt1=True)
        client.send("attach", justMyCode=True)
        client.event("initialized")
        breakpoints = [{"line": line}]
        client.ask("setBreakpoints", source={"path": str(program)}, breakpoints=breakpoints)
        client.send("configurationDone")
        thread = client.event("stopped")["body"]["threadId"]
        frame = client.ask("stackTrace", threadId=thread)["stackFrames"][0]
        assert (frame["name"], frame["line"]) == ("work", line)
        for expression, value in {
            "first": "1",
            "fiberback.await_(waits(40))": "40",
            "fiberback.await_(asyncio.sleep(0.01, 41)) + first": "42",
        }.items():
            asked = {"expression": expression, "frameId": frame["id"], "context": "repl"}
            assert client.ask("evaluate", **asked)["result"] == value
        client.send("continue", threadId=thread)
        client.event("terminated")
        client.send("disconnect")
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert output.splitlines()[-1] == "2 True 0", output
