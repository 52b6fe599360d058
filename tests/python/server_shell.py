"""A shell that runs a server for this process, and ends it when the process is gone, SIGKILL included.

It waits for the end of a pipe whose other end only the process holds.
"""

from __future__ import annotations

import subprocess
from typing import Any


class NotStarted(Exception):
    """With what the shell has said."""


def start(script: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The shell that runs `script`, which says "ready" when the server answers, and then waits for the end of its
    standard input."""
    shell = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,  # not reached by the terminal's Ctrl-C
        **options,
    )
    assert shell.stdout is not None
    said = []
    for line in shell.stdout:
        if line == "ready\n":
            return shell
        said.append(line)
    end(shell)
    raise NotStarted("".join(said))


def end(shell: subprocess.Popen[str]) -> None:
    """Have the shell end the server, and wait for that."""
    assert shell.stdin is not None and shell.stdout is not None
    shell.stdin.close()
    shell.wait()
    shell.stdout.close()
