"""A private Redis server on a socket of its own: started by the process that uses it, gone when it is.

Where Redis is not installed the tests of it are skipped, and say so; `.ci/redis` installs it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest
import server_shell

# Says "ready" when the server answers, and waits for the end of its standard input.
SHELL = r"""
dir=$1
trap '' INT TERM HUP PIPE
# The system may have a server that is to be started as a service; the configuration is ours alone.
redis-server --port 0 --unixsocket "$dir/socket" --dir "$dir" --save "" --appendonly yes >"$dir/log" 2>&1 &
server=$!
while ! redis-cli -s "$dir/socket" ping 2>/dev/null | grep -q PONG; do
    kill -0 $server 2>/dev/null || { tail -n 20 "$dir/log"; exit 1; }
    sleep 0.05
done
echo ready
cat >/dev/null
redis-cli -s "$dir/socket" shutdown >/dev/null 2>&1 || kill -KILL $server
wait $server
"""


class Server:
    """`start` and `stop` any number of times; what was stored stays."""

    def __init__(self) -> None:
        # The path of a socket has 107 bytes at most, unix(7).
        base = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"
        self._dir = tempfile.mkdtemp(prefix="fiberback-redis-", dir=base)
        self.socket = f"{self._dir}/socket"
        self.start()

    def url(self, database: int) -> str:
        return f"redis+socket://{self.socket}?virtual_host={database}"

    def start(self) -> None:
        self._shell = server_shell.start(SHELL, self._dir)

    def stop(self) -> None:
        server_shell.end(self._shell)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._dir)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed; `.ci/redis` installs it")
    server = Server()
    yield server
    server.remove()
