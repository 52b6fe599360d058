"""The tests' own PostgreSQL: it is real, and nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from support import only_fiberback

pytestmark = only_fiberback

# A process that is killed while its cluster runs; its output says where that was.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import postgres
cluster = postgres.Cluster(max_connections=5)
print(cluster.sql("SELECT 6 * 7")[0], cluster.host, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_databases_come_and_go(postgres):
    one, two = postgres.create_database(), postgres.create_database()
    one.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)")
    assert one.sql("SELECT sum(n), count(*) FROM t") == ["3|2"]
    assert two.sql("SELECT to_regclass('t')") == [""]
    names = f"'{one.name}', '{two.name}'"
    one.drop()
    two.drop()
    assert postgres.sql(f"SELECT * FROM pg_database WHERE datname IN ({names})") == []


def test_nothing_outlives_a_process_that_is_killed(postgres):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, os.path.dirname(__file__)], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    answer, directory = done.stdout.split()
    assert answer == "42"
    for _ in range(600):
        if not os.path.exists(directory):
            return
        time.sleep(0.05)
    raise AssertionError(f"{directory} is still there")
