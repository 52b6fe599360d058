"""`%load_ext fiberback`, in real kernels and in IPython's terminal."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from kernels import PATIENCE, Kernel, with_ipykernel
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

ALWAYS = 'c.InteractiveShellApp.extensions = ["fiberback"]\n'
# A background task that counts, and sync code that waits.
BEFORE = """
import asyncio, fiberback, signal, sys, threading, time

async def answer(value=42):
    await asyncio.sleep(0.01)
    return value

ticks = []

async def tick():
    while True:
        ticks.append(1)
        await asyncio.sleep(0.005)

ticker = asyncio.get_running_loop().create_task(tick())
"""


IPYKERNEL_6 = "6.31.0"  # the last one


@pytest.fixture(
    scope="module", params=["installed", pytest.param(IPYKERNEL_6, marks=pytest.mark.slow)]
)
def python(request, tmp_path_factory):
    """What runs the kernel: this Python, or one with another ipykernel."""
    if request.param == "installed":
        return sys.executable
    return with_ipykernel(request.param, tmp_path_factory.mktemp("ipykernel"))


def is_6(kernel):
    return kernel.run("import ipykernel; ipykernel.version_info[0]") == "6"


@pytest.fixture(scope="module")
def shared(python, tmp_path_factory):
    """One kernel for what leaves it as it was."""
    with Kernel(tmp_path_factory.mktemp("kernel"), python=python) as kernel:
        assert kernel.run("%load_ext fiberback") == ""
        kernel.run(BEFORE)
        yield kernel


@pytest.fixture
def kernel(shared):
    yield shared
    # It is alive, so is the background task, and nothing of an interrupt is left.
    shared.run("seen = len(ticks); fiberback.await_(asyncio.sleep(0.05)); assert len(ticks) > seen")
    shared.run("assert signal.getsignal(signal.SIGINT) is signal.default_int_handler")
    shared.run("assert not ticker.done() and asyncio.current_task().cancelling() == 0")


def test_sync_code_in_cells(kernel):
    assert kernel.run("fiberback.await_(answer())") == "42"
    assert kernel.run("print(asyncio.run(answer(1))); asyncio.run(answer(2))") == "1\n2"
    assert kernel.run("asyncio.get_event_loop().run_until_complete(answer(3))") == "3"
    assert kernel.run("sorted([2, 1], key=lambda n: fiberback.await_(answer(n)))") == "[1, 2]"
    assert kernel.run("await answer(4)") == "4"
    assert (
        kernel.run("import _asyncio; isinstance(asyncio.current_task(), _asyncio.Task)") == "True"
    )
    # What `asyncio.run` has begun ends with it.
    kernel.run("async def leaves():\n    global left\n    left = asyncio.create_task(tick())")
    assert kernel.run("asyncio.run(leaves()); left.cancelled()") == "True"


def test_interrupted_while_it_waits(kernel):
    cell = kernel.begin("print('begins', flush=True); fiberback.await_(asyncio.sleep(1000))")
    cell.shown(until="begins")
    kernel.interrupt()
    name, shown = cell.failed()
    assert name == "KeyboardInterrupt" and "fiberback/" not in shown


@pytest.mark.slow
def test_interrupted_in_the_middle(kernel):
    """Code above the wait may catch it; what is awaited is cancelled and ends first."""
    cell = kernel.begin(
        "async def main():\n"
        "    try:\n"
        "        print('begins', flush=True)\n"
        "        await asyncio.sleep(1000)\n"
        "    except asyncio.CancelledError:\n"
        "        print('cancelled')\n"
        "        raise\n"
        "    finally:\n"
        "        await answer()\n"
        "        print('cleaned')\n"
        "try:\n"
        "    asyncio.run(main())\n"
        "except KeyboardInterrupt:\n"
        "    print('caught')\n"
        "print(fiberback.await_(answer('goes on')))"
    )
    cell.shown(until="begins")
    time.sleep(0.1)  # so that it waits; where it does not yet, the first line is another one
    kernel.interrupt()
    assert cell.reply()["status"] == "ok"
    assert cell.shown().split() == ["begins", "cancelled", "cleaned", "caught", "goes", "on"]


@pytest.mark.slow
def test_interrupted_while_another_task_is_busy(kernel):
    """The second one ends that, as with `asyncio.run`; the kernel lives."""
    cell = kernel.begin(
        "async def busy():\n"
        "    print('busy', flush=True)\n"
        "    while True: pass\n"
        "async def main():\n"
        "    await asyncio.create_task(busy())\n"
        "asyncio.run(main())"
    )
    cell.shown(until="busy")
    kernel.interrupt()
    time.sleep(0.5)
    kernel.interrupt()
    name, _ = cell.failed()
    assert name == "KeyboardInterrupt"


@pytest.mark.slow
def test_interrupted_where_it_was_always_possible(kernel):
    for code, expected in [
        ("print('begins', flush=True)\nwhile True: pass", "KeyboardInterrupt"),
        ("print('begins', flush=True)\nawait asyncio.sleep(1000)", "CancelledError"),
        (
            "print('begins', flush=True)\nawait answer()\nfiberback.await_(asyncio.sleep(1000))",
            "CancelledError",
        ),
    ]:
        cell = kernel.begin(code)
        cell.shown(until="begins")
        time.sleep(0.1)
        kernel.interrupt()
        assert cell.failed()[0] == expected


@pytest.mark.slow
def test_the_control_channel_interrupts(kernel):
    cell = kernel.begin("print('begins', flush=True); fiberback.await_(asyncio.sleep(1000))")
    cell.shown(until="begins")
    message = kernel.client.session.msg("interrupt_request", {})
    kernel.client.control_channel.send(message)
    assert kernel.client.get_control_msg(timeout=PATIENCE)["content"]["status"] == "ok"
    assert cell.failed()[0] == "KeyboardInterrupt"


def test_the_next_cell_begins_when_this_one_has_ended(kernel):
    first = kernel.begin("fiberback.await_(asyncio.sleep(0.2)); print('first'); order = ['first']")
    second = kernel.begin("order.append('second'); print('second')")
    third = kernel.begin("order.append('third'); order")
    assert third.reply()["status"] == "ok"
    assert first.shown() == "first\n"
    assert second.shown() == "second\n"
    assert third.shown() == "['first', 'second', 'third']"


@pytest.mark.slow
def test_cells_that_wait_for_an_interrupted_one_are_aborted(kernel):
    cell = kernel.begin(
        "print('begins', flush=True); fiberback.await_(asyncio.sleep(1000))", stop_on_error=True
    )
    waiting = kernel.begin("raise SystemError('must not run')")
    cell.shown(until="begins")
    kernel.interrupt()
    assert cell.reply()["status"] == "error"
    assert waiting.reply()["status"] == "aborted"


@pytest.mark.slow
def test_tracebacks_have_no_frames_of_ours(kernel):
    kernel.run("async def bad():\n    await answer()\n    raise ValueError('bad')")
    for call in ("fiberback.await_(bad())", "asyncio.run(bad())", "fiberback.run(bad())"):
        name, shown = kernel.fails(f"def called():\n    {call}\ncalled()")
        assert name == "ValueError"
        assert re.findall(r"^-+> +\d+ +(.*)$", shown, re.M) == [
            "called()",
            call,
            "raise ValueError('bad')",
        ]
        assert "File" not in shown.replace("File <", "")
    name, shown = kernel.fails("fiberback.await_(42)")
    assert name == "TypeError" and "site-packages/fiberback" not in shown


@pytest.mark.slow
def test_magics(kernel):
    assert "Wall time" in kernel.run("%time fiberback.await_(answer())")
    assert "per loop" in kernel.run("%timeit -n 2 -r 2 fiberback.await_(answer())")
    assert "per loop" in kernel.run("%%timeit -n 2 -r 2\nasyncio.run(answer())")
    assert "IPython autoawait is `on`, and set to use `asyncio`" in kernel.run("%autoawait")
    kernel.run("%autoawait off")
    assert kernel.run("fiberback.await_(answer())") == "42"
    kernel.run("%autoawait asyncio")
    assert kernel.run("await answer()") == "42"


@pytest.mark.slow
def test_events_of_widgets(kernel):
    """Their callbacks wait, from ipykernel 7.4 on also while a cell does, and a cell may wait for one."""
    kernel.run(
        "import comm\n"
        "comms, heard = {}, []\n"
        "def on_message(message):\n"
        "    heard.append(fiberback.await_(answer(message['content']['data'])))\n"
        "def opened(channel, message):\n"
        "    comms[channel.comm_id] = channel\n"
        "    channel.on_msg(on_message)\n"
        "comm.get_comm_manager().register_target('test', opened)"
    )

    def send(kind, **content):
        kernel.client.shell_channel.send(kernel.client.session.msg(kind, content))

    send("comm_open", comm_id="one", target_name="test", data={})
    send("comm_msg", comm_id="one", data="between cells")
    # (Right after the other message, ipykernel handles it beside whatever comes next.)
    assert kernel.run("while not heard: fiberback.await_(answer())\nheard") == "['between cells']"
    both = "['between cells', 'meanwhile']"
    if is_6(kernel):  # it handles the message after the cell
        waits, meanwhile = "fiberback.await_(asyncio.sleep(0.2))", "['between cells']"
    else:
        waits, meanwhile = "while len(heard) < 2: fiberback.await_(answer())", both
    cell = kernel.begin(f"print('waits', flush=True)\n{waits}\nheard")
    cell.shown(until="waits")
    send("comm_msg", comm_id="one", data="meanwhile")
    assert cell.reply()["status"] == "ok"
    assert cell.shown() == f"waits\n{meanwhile}"
    assert kernel.run("heard") == both


@pytest.mark.slow
def test_an_event_of_a_widget_is_interrupted(kernel):
    """The interrupt is for what the kernel is busy with; the kernel lives, and says so in its log."""
    kernel.run(
        "import comm\n"
        "waits = []\n"
        "def on_message(message):\n"
        "    try:\n"
        "        print('waits', flush=True); fiberback.await_(asyncio.sleep(1000))\n"
        "    except KeyboardInterrupt:\n"
        "        waits.append('interrupted')\n"
        "def opened(channel, message): channel.on_msg(on_message)\n"
        "comm.get_comm_manager().register_target('endless', opened)"
    )
    session, channel = kernel.client.session, kernel.client.shell_channel
    channel.send(session.msg("comm_open", {"comm_id": "2", "target_name": "endless", "data": {}}))
    kernel.run("'opened'")
    message = session.msg("comm_msg", {"comm_id": "2", "data": {}})
    channel.send(message)
    while (answer := kernel.client.get_iopub_msg(timeout=PATIENCE))["msg_type"] != "stream":
        pass
    assert answer["content"]["text"] == "waits\n"
    kernel.interrupt()
    assert kernel.run("waits") == "['interrupted']"


@pytest.mark.slow
def test_input_and_debugger(kernel):
    def answers(cell, *lines):
        for line in lines:
            assert kernel.client.get_stdin_msg(timeout=PATIENCE)["msg_type"] == "input_request"
            kernel.client.input(line)
        reply = cell.reply()
        assert reply["status"] == "ok", cell.shown()
        return cell.shown()

    cell = kernel.begin("fiberback.await_(answer()); input('? ')", allow_stdin=True)
    assert answers(cell, "typed") == "'typed'"
    kernel.run("async def bad():\n    raise ValueError('bad')")
    kernel.fails("def called():\n    local = 7\n    asyncio.run(bad())\ncalled()")
    cell = kernel.begin("%debug", allow_stdin=True)
    shown = answers(cell, "up", "p local + fiberback.await_(answer(1))", "q")
    assert "raise ValueError('bad')" in shown and "\n8\n" in shown


@pytest.mark.slow
def test_nest_asyncio2_finds_all_done(kernel):
    """ipykernel applies it in some event loops of GUIs."""
    kernel.run(
        "import nest_asyncio2\n"
        "nest_asyncio2.apply()\n"
        "assert asyncio.run.__module__ == 'fiberback.nest'\n"
        "assert asyncio.Task.__module__ == '_asyncio'\n"
        "assert asyncio.run(answer()) == 42"
    )


@pytest.mark.slow
def test_unloaded_and_loaded_again(kernel):
    kernel.run("%unload_ext fiberback")
    assert kernel.fails("refused = answer(); asyncio.run(refused)")[0] == "RuntimeError"
    kernel.run("refused.close()")
    kernel.run("assert 'showtraceback' not in vars(get_ipython())")
    kernel.run("assert not hasattr(asyncio, '_nest_patched')")
    assert kernel.run("fiberback.await_(answer())") == "42"  # parked
    kernel.run("%load_ext fiberback")
    kernel.run("%load_ext fiberback")  # says that it is
    kernel.run("%reload_ext fiberback")
    assert kernel.run("asyncio.run(answer())") == "42"


def test_the_page(shared):
    """The cells of docs/jupyter.md."""
    page = (pathlib.Path(__file__).parents[3] / "docs/jupyter.md").read_text()
    cells = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(cells) > 3
    for cell in cells:
        shown = shared.run(cell)
        said = re.findall(r"^# -> (.*)$", cell, re.MULTILINE)
        assert shown.splitlines() == said or not said, (cell, shown)


# --- kernels of their own ----------------------------------------------------------------------------


@pytest.mark.slow
def test_loaded_always(tmp_path, python):
    with Kernel(tmp_path, config=ALWAYS, python=python) as kernel:
        kernel.run(BEFORE)
        assert kernel.run("asyncio.run(answer())") == "42"
        cell = kernel.begin("print('begins', flush=True); asyncio.run(asyncio.sleep(1000))")
        cell.shown(until="begins")
        kernel.interrupt()
        assert cell.failed()[0] == "KeyboardInterrupt"
        assert kernel.run("asyncio.run(answer())") == "42"


UVLOOP = """
import asyncio, uvloop
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
"""


@pytest.mark.slow
def test_on_uvloop(tmp_path):
    import_or_skip("uvloop")
    if sys.version_info >= (3, 14):
        pytest.skip("a policy, which makes the kernel's loop one of uvloop's, is deprecated")
    with Kernel(tmp_path, config=ALWAYS, before=UVLOOP) as kernel:
        kernel.run(BEFORE)
        assert "uvloop" in kernel.run("type(asyncio.get_running_loop())")
        assert kernel.run("fiberback.await_(answer())") == "42"
        assert kernel.run("asyncio.run(answer())") == "42"
        cell = kernel.begin("print('begins', flush=True); asyncio.run(asyncio.sleep(1000))")
        cell.shown(until="begins")
        kernel.interrupt()
        assert cell.failed()[0] == "KeyboardInterrupt"
        assert kernel.run("assert not ticker.done()\nasyncio.run(answer())") == "42"


@pytest.mark.slow
def test_subshells(tmp_path):
    """Each runs on a loop of its own thread, while the main one waits."""
    with Kernel(tmp_path, config=ALWAYS) as kernel:
        kernel.run(BEFORE)
        client = kernel.client
        client.control_channel.send(client.session.msg("create_subshell_request", {}))
        subshell = client.get_control_msg(timeout=PATIENCE)["content"]["subshell_id"]
        cell = kernel.begin(
            "print('waits', flush=True)\ngo = threading.Event()\n"
            "while not go.is_set(): fiberback.await_(answer())\n'gone on'"
        )
        cell.shown(until="waits")
        code = "value = asyncio.run(answer()), fiberback.await_(answer(1)); go.set()"
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        message = client.session.msg("execute_request", content)
        message["header"]["subshell_id"] = subshell
        client.shell_channel.send(message)
        statuses = [client.get_shell_msg(timeout=PATIENCE)["content"] for _ in range(2)]
        assert [each["status"] for each in statuses] == ["ok", "ok"], statuses
        assert kernel.run("value") == "(42, 1)"


# A Tk without a screen: as ipykernel's loop for it uses it.
TK = """
import sys, time, types

class Tk:
    def __init__(self): self.calls, self.is_over = [], False
    def withdraw(self): pass
    def after(self, milliseconds, function):
        self.calls.append((time.monotonic() + milliseconds / 1000, function))
    def destroy(self): self.is_over = True
    quit = destroy
    def mainloop(self):
        while not self.is_over:
            due = [each for each in self.calls if each[0] <= time.monotonic()]
            self.calls = [each for each in self.calls if each not in due]
            for _, function in due: function()
            time.sleep(0.001)
    def __getattr__(self, name):
        raise AttributeError(name)

sys.modules["tkinter"] = types.SimpleNamespace(Tk=Tk, READABLE=2, __name__="tkinter")
"""


# What a program does that has nest_asyncio's and nest-asyncio2's users have ours.
UNDER_THEIR_NAMES = """
import sys, fiberback.nest
sys.modules["nest_asyncio"] = sys.modules["nest_asyncio2"] = fiberback.nest
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["extension", "under their names"])
def test_the_loop_that_ipykernel_applies_nest_asyncio2_for(tmp_path, python, way):
    """That of Tk where it takes no files: it calls `run_until_complete` inside the kernel's loop.

    (ipykernel 6 applies nest_asyncio.)
    """
    is_extension = way == "extension"
    options = {"config": ALWAYS} if is_extension else {"before": UNDER_THEIR_NAMES}
    with Kernel(tmp_path, python=python, **options) as kernel:
        kernel.run(BEFORE)
        kernel.run(TK)
        if not is_extension:
            assert kernel.run("asyncio.run.__module__") == "'asyncio.runners'"
        applied = "nest_asyncio" if is_6(kernel) else "nest_asyncio2"
        kernel.run("%gui tk")
        # The loop begins when ipykernel comes to it, which may be after the next cell.
        begun = f"'{applied}' in sys.modules and asyncio.run.__module__ == 'fiberback.nest'"
        while kernel.run(begun) != "True":
            pass
        assert kernel.run("asyncio.run(answer())") == "42"
        assert kernel.run("asyncio.run.__module__, asyncio.Task.__module__") == (
            "('fiberback.nest', '_asyncio')"
        )
        assert kernel.run(f"sys.modules['{applied}'].__name__") == (
            repr(applied) if is_extension else "'fiberback.nest'"
        )
        assert kernel.run("fiberback.await_(answer(1))") == "1"
        assert (
            kernel.run("seen = len(ticks); fiberback.await_(answer()); not ticker.done()") == "True"
        )


# --- the terminal ------------------------------------------------------------------------------------


class Terminal:
    """IPython at a prompt, fed by lines."""

    def __init__(self, folder, config=""):
        import_or_skip("IPython")
        (folder / "ipython_config.py").write_text(config)
        command = [
            sys.executable,
            "-m",
            "IPython",
            "--simple-prompt",
            "--no-banner",
            "--colors=NoColor",
        ]
        self.process = subprocess.Popen(
            [*command, f"--config={folder}/ipython_config.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**os.environ, "IPYTHONDIR": str(folder)},
        )

    def type(self, *lines):
        self.process.stdin.write("".join(f"{line}\n" for line in lines))
        self.process.stdin.flush()

    def read_until(self, word):
        read = ""
        while word not in read:
            character = self.process.stdout.read(1)
            assert character, read
            read += character
        return read

    def end(self):
        read, _ = self.process.communicate("exit\n", timeout=PATIENCE)
        assert self.process.returncode == 0, read
        return read


@pytest.mark.slow
def test_in_the_terminal(tmp_path):
    terminal = Terminal(tmp_path, ALWAYS)
    terminal.type(
        "import asyncio, fiberback",
        "async def answer(value): await asyncio.sleep(0.01); return value",
        "",
        "async def loop(): return asyncio.get_running_loop()",
        "",
        # A cell that awaits, and one that does not, have one loop.
        "here = await loop()",
        "there = fiberback.await_(loop())",
        "print('one loop', here is there)",
        "opened = asyncio.Queue(); task = here.create_task(opened.put('by a task'))",
        "print(fiberback.await_(opened.get()))",
        "print('run', asyncio.run(answer(1)), fiberback.run(answer(2)))",
        "print('nested', await answer(asyncio.run(answer(3))))",
        "async def bad(): raise ValueError('bad')",
        "",
        "fiberback.await_(bad())",
        "asyncio.run(bad())",
        "%unload_ext fiberback",
        "print('its own', fiberback.await_(loop()) is not here)",
        "print('as before', await loop() is here)",
    )
    shown = terminal.end()
    for words in (
        "one loop True",
        "by a task",
        "run 1 2",
        "nested 3",
        "its own True",
        "as before True",
    ):
        assert words in shown, shown
    assert shown.count("\nValueError: bad") == 2 and "site-packages/fiberback" not in shown, shown


@pytest.mark.slow
def test_interrupted_in_the_terminal(tmp_path):
    terminal = Terminal(tmp_path, ALWAYS)
    terminal.type(
        "import asyncio, fiberback",
        "print('beg' + 'ins', flush=True); fiberback.await_(asyncio.sleep(1000))",
    )
    terminal.read_until("begins")
    time.sleep(0.3)
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until("KeyboardInterrupt")
    terminal.type("print('go' + 'es on', fiberback.await_(asyncio.sleep(0, 1)))")
    assert "goes on 1" in terminal.end()
