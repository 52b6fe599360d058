"""Tutorial, 3: a program with many tasks uses the client, with time limits; a script and a thread use it, too."""

from __future__ import annotations

import asyncio

import fiberback
from tutorial_blocking import Client
from tutorial_server import running
from tutorial_waiting import WaitingTransport


def report(port: int, keys: list[str]) -> str:
    """Synchronous: called by tasks, by threads, and where there is no event loop."""
    transport = WaitingTransport(port)
    try:
        return ", ".join(Client(transport).many(keys).values())
    finally:
        transport.close()


async def handle(port: int, number: int) -> str:
    return report(port, [f"{number}"])


async def too_slow(port: int) -> str:
    try:
        async with asyncio.timeout(0.03):
            return report(port, [str(number) for number in range(1000)])
    except TimeoutError:  # raised in `ask`, 20 s early; its `finally` has closed the connection
        return "cut short"


async def main(port: int) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(handle(port, number)) for number in range(50)]
        tasks.append(group.create_task(too_slow(port)))
        # A thread of this loop's: its waits go to the loop, and its connections live there.
        tasks.append(group.create_task(asyncio.to_thread(report, port, ["from a thread"])))
    return [task.result() for task in tasks]


def test_each_gets_its_answer() -> None:
    with running() as port:
        answers = fiberback.run(main(port))
        assert answers[:50] == [f"the value of {number}" for number in range(50)]
        assert answers[50:] == ["cut short", "the value of from a thread"]
        assert report(port, ["x"]) == "the value of x"  # no event loop here: it brings its own


if __name__ == "__main__":
    with running() as port:
        print(len(fiberback.run(main(port))), "answers")
        print("without a loop:", report(port, ["x"]))
