"""A private MariaDB server, gone when the process that uses it is. (`tests/support/mariadb.rs` is the same in Rust.)"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile

import pytest
import server_shell

# Starts the server, says "ready", and waits for the end of its standard input. Without grant tables an empty data
# directory will do. A hundred clients that greet it in one turn of a loop are late on a busy machine.
SHELL = r"""
bin=$1 dir=$2
trap '' INT TERM HUP
mkdir -p "$dir/data/mysql"
(trap - INT TERM HUP; exec "$bin" --no-defaults --datadir="$dir/data" --socket="$dir/socket" \
    --pid-file="$dir/pid" --skip-networking --skip-grant-tables --innodb-buffer-pool-size=16M \
    --innodb-log-file-size=8M --innodb-use-native-aio=0 --max-connections=200 \
    --connect-timeout=170) \
    </dev/null >"$dir/log" 2>&1 &
server=$!
tries=0
until [ -S "$dir/socket" ] && grep -q "ready for connections" "$dir/log"; do
    tries=$((tries + 1))
    if [ $tries -gt 600 ] || ! kill -0 $server 2>/dev/null; then
        kill -9 $server 2>/dev/null
        tail -n 20 "$dir/log"
        rm -rf "$dir"
        exit 1
    fi
    sleep 0.1
done
echo ready
cat >/dev/null
kill -9 $server
wait $server 2>/dev/null
rm -rf "$dir"
"""


@contextlib.contextmanager
def running():
    """The path of its socket."""
    program = shutil.which("mariadbd", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        # FIBERBACK_REQUIRE_MARIADB is about this machine, which the chroot of newer interpreters is not.
        pytest.skip("mariadbd is not installed; `.ci/mariadb` installs it")
    folder = tempfile.mkdtemp(prefix="fiberback-my-", dir="/tmp")
    identity = {}
    if os.getuid() == 0:
        account = pwd.getpwnam("nobody")
        os.chown(folder, account.pw_uid, account.pw_gid)
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    shell = server_shell.start(SHELL, program, folder, cwd=folder, **identity)
    try:
        yield folder + "/socket"
    finally:
        server_shell.end(shell)
