"""The app of the workers that test_celery.py and test_celery_faults.py start."""

from __future__ import annotations

import asyncio
import os
import pathlib
import threading
import time
from contextvars import ContextVar
from typing import Any

import fiberback
from celery import Celery, current_task, signals
from celery.exceptions import SoftTimeLimitExceeded
from meeting import come, meet

app = Celery("celery_tasks", set_as_current=False)
app.conf.update(
    broker_url=os.environ.get("CELERY_TEST_BROKER"),
    result_backend=os.environ.get("CELERY_TEST_RESULTS"),
    broker_connection_retry_on_startup=True,
    result_backend_always_retry=True,
    task_acks_late=bool(os.environ.get("CELERY_TEST_ACKS_LATE")),
    task_send_sent_event=False,
    worker_send_task_events=True,
    worker_prefetch_multiplier=int(os.environ.get("CELERY_TEST_PREFETCH", 4)),
    result_extended=True,
    broker_transport_options={
        "visibility_timeout": float(os.environ.get("CELERY_TEST_VISIBILITY", 3600)),
        **(
            {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
            if (folder := os.environ.get("CELERY_TEST_FOLDER"))
            else {}
        ),
    },
)

signalled: list[tuple[str, str | None]] = []


@signals.task_prerun.connect
def on_prerun(task_id: str, **_: Any) -> None:
    signalled.append((task_id, current_task.request.id))


# What receivers were sent, in its order: the signal, the task's id, its name, and what `on_prerun` set for that task.
received: list[tuple[str, str, str, str | None]] = []
set_in_prerun: ContextVar[str | None] = ContextVar("set_in_prerun", default=None)


def receive(name: str) -> None:
    def receiver(
        sender: Any = None, task_id: str | None = None, request: Any = None, **_: Any
    ) -> None:
        if task_id is None:
            task_id = request.id if request is not None else sender.request.id
        received.append((name, str(task_id), sender.name, set_in_prerun.get()))

    getattr(signals, f"task_{name}").connect(receiver, weak=False)


for each in ("prerun", "success", "failure", "retry", "revoked", "postrun"):
    receive(each)


@signals.task_prerun.connect
def set_for_the_task(task_id: str, **_: Any) -> None:
    """After the receiver above, which sees what others have left there: nothing."""
    set_in_prerun.set(task_id)


@app.task
def waits_for_others(key: str, count: int) -> str:
    fiberback.await_(meet(key, count))
    return threading.current_thread().name


@app.task
async def awaits_others(key: str, count: int) -> str:
    await meet(key, count)
    return threading.current_thread().name


@app.task(in_thread=True)
def blocks_for_others(key: str, count: int) -> str:
    barrier = barriers.setdefault(key, threading.Barrier(count))
    barrier.wait(60)
    return fiberback.await_(asyncio.sleep(0, threading.current_thread().name))


barriers: dict[str, threading.Barrier] = {}


@app.task(bind=True)
async def who(self: Any, key: str, count: int) -> list[Any]:
    async def child() -> Any:
        seen = self.request.id, current_task.name
        await meet(key + " child", 2 * count)
        assert seen == (self.request.id, current_task.name)
        return self.request.id

    await meet(key, count)
    children = await asyncio.gather(child(), child())
    thread = await asyncio.to_thread(lambda: self.request.id)
    own = [each for each in signalled if each[0] == self.request.id]
    return [self.request.id, *children, thread, *own[0]]


@app.task
async def sees_what_was_set(key: str, count: int) -> list[str | None]:
    """Itself, a task that it starts, and a thread."""
    await meet(key, count)
    child = asyncio.create_task(asyncio.sleep(0, set_in_prerun.get()))
    return [set_in_prerun.get(), await child, await asyncio.to_thread(set_in_prerun.get)]


@app.task
def signals_of(task_id: str) -> list[Any]:
    return [each for each in received if each[1] == task_id]


@app.task
def now() -> float:
    return time.time()


@app.task(rate_limit="1/h")
def once_an_hour() -> None:
    pass


@app.task
async def add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def adds_by_others(count: int) -> int:
    return sum(result.get(timeout=60) for result in [add.delay(n, 1) for n in range(count)])


@app.task
async def calls_another() -> list[Any]:
    return [await add(1, 2), total([3, 4])]


@app.task(bind=True, autoretry_for=(ConnectionError,), default_retry_delay=0, max_retries=5)
async def fails_at_first(self: Any) -> int:
    await asyncio.sleep(0)
    if self.request.retries < 2:
        raise ConnectionError("again")
    return int(self.request.retries)


@app.task
async def raises() -> None:
    await asyncio.sleep(0)
    raise LookupError("nothing there")


@app.task(soft_time_limit=0.2)
def has_a_soft_limit(key: str, catches: bool) -> str:
    try:
        fiberback.await_(meet(key, 2))
    except SoftTimeLimitExceeded:
        if not catches:
            raise
        fiberback.await_(asyncio.sleep(0))
        task = asyncio.current_task()
        return f"cleaned up {task.cancelling() if task else None}"
    return "not reached"


@app.task(soft_time_limit=0.2)
async def awaits_with_a_soft_limit(key: str) -> str:
    try:
        async with asyncio.timeout(60):
            await meet(key, 2)
    except SoftTimeLimitExceeded as error:
        return type(error).__name__
    return "not reached"


@app.task(soft_time_limit=0.2, in_thread=True)
def thread_has_a_soft_limit(key: str) -> None:
    fiberback.await_(meet(key, 2))


ended: dict[str, str] = {}


@app.task(time_limit=0.2)
def has_a_limit(key: str) -> None:
    goes_on_until_ended(key)


@app.task
def goes_on_until_ended(key: str) -> None:
    come[key] = 1
    try:
        fiberback.await_(meet(key, 3))
    except BaseException as error:
        ended[key] = type(error).__name__
        raise


@app.task
def how_it_ended(key: str) -> list[Any]:
    return [come.get(key), ended.get(key)]


@app.task
def swallows(key: str) -> str:
    come[key] = 1
    try:
        fiberback.await_(meet(key, 3))
    except asyncio.CancelledError:
        ended[key] = "swallowed"
    return "as if nothing had been"


@app.task
def exits() -> None:
    raise SystemExit(3)


@app.task
def note(path: str, name: str, seconds: float) -> None:
    """Two lines: when it begins, and when it ends."""
    with pathlib.Path(path).open("a") as file:
        file.write(f"begin {name}\n")
    fiberback.await_(asyncio.sleep(seconds))
    with pathlib.Path(path).open("a") as file:
        file.write(f"end {name}\n")


@app.task
def blocks_the_loop(seconds: float = 1.5) -> None:
    time.sleep(seconds)


@app.task(in_thread=True)
def blocks_a_thread(seconds: float) -> None:
    print("blocks a thread", flush=True)
    time.sleep(seconds)


@app.task
def waits_for_file(path: str) -> None:
    while not os.path.exists(path):
        fiberback.await_(asyncio.sleep(0.05))


@app.task
def publishes(path: str) -> str:
    """When there is that file."""
    waits_for_file(path)
    print("publishes now", flush=True)
    try:
        nothing.apply_async(ignore_result=True)
    except Exception:  # OperationalError, or what kombu makes of a connection that is gone
        return "could not"
    return "could"


@app.task
def nothing() -> None:
    pass


@app.task
def memory() -> int:
    """Bytes that are this process's own."""
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(text.split("VmRSS:")[1].split()[0])
