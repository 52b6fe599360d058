"""A private PostgreSQL cluster: made and started by the process that uses it, gone when it is.

The fixtures `postgres` (the process's one cluster) and `database` (a database of one test's own) are
available to all tests. Where PostgreSQL is not installed their tests are skipped, and say so in the
summary; with `FIBERBACK_REQUIRE_POSTGRES` set they fail. `.ci/postgres` installs it.

Uses the system's `initdb` and `pg_ctl`. Nothing is left behind whatever becomes of the process,
SIGKILL included: the shell that runs the server then stops it and removes its directory
(`server_shell.py`). (`tests/support/postgres.rs` is the same in Rust.)
"""

from __future__ import annotations

import itertools
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import server_shell

# Starts the server, says "ready", and waits for the end of its standard input.
SHELL = r"""
bin=$1 dir=$2 options=$3
trap '' INT TERM HUP PIPE
"$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$dir/log" 2>&1 &&
"$bin/pg_ctl" start -w -s -t 60 -D "$dir/data" -l "$dir/log" -o "$options" >>"$dir/log" 2>&1 ||
    { tail -n 20 "$dir/log"; rm -rf "$dir"; exit 1; }
echo ready
cat >/dev/null
"$bin/pg_ctl" stop -w -s -m immediate -D "$dir/data" >>"$dir/log" 2>&1
rm -rf "$dir"
"""


class NoPostgres(Exception):
    """Says why there is no server."""


class Cluster:
    """A running server. Its superuser is `postgres`, without a password."""

    user = "postgres"

    def __init__(self, max_connections: int = 120) -> None:
        self._bin = _binaries()
        account = _account_for_server()
        # The path of a socket has 107 bytes at most, unix(7).
        base = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"
        # Data, log, and the socket: as a host name it leads drivers there.
        self.host = tempfile.mkdtemp(prefix="fiberback-pg-", dir=base)
        identity: dict[str, Any] = {}
        if account is not None:
            os.chown(self.host, account.pw_uid, account.pw_gid)
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        options = (
            f"-c listen_addresses='' -c unix_socket_directories='{self.host}' "
            f"-c max_connections={max_connections} -c max_prepared_transactions=10 -c fsync=off "
            "-c full_page_writes=off -c synchronous_commit=off -c autovacuum=off "
            "-c shared_buffers=32MB -c max_wal_size=256MB -c logging_collector=off"
        )
        try:
            self._shell = server_shell.start(
                SHELL, str(self._bin), self.host, options, cwd=self.host, **identity
            )
        except server_shell.NotStarted as error:
            raise NoPostgres(f"PostgreSQL in {self._bin} did not start:\n{error}") from None
        self._numbers = itertools.count()

    def stop(self) -> None:
        server_shell.end(self._shell)

    def dsn(self, database: str = "postgres") -> str:
        """What libpq, psycopg and asyncpg connect to."""
        return f"postgresql://{self.user}@/{database}?host={self.host}"

    def url(self, driver: str, database: str = "postgres") -> str:
        """The same for SQLAlchemy, `driver` being "asyncpg", "psycopg" and the like."""
        return self.dsn(database).replace("postgresql:", f"postgresql+{driver}:", 1)

    def sql(self, statements: str, database: str = "postgres") -> list[str]:
        """Runs statements through `psql`, the superuser's way around the driver under test.

        The result's rows, their columns separated by "|".
        """
        psql = self._bin / "psql"
        done = subprocess.run(
            [
                psql if psql.exists() else "psql",
                "-qAtX",
                "-v",
                "ON_ERROR_STOP=1",
                self.dsn(database),
            ],
            input=statements,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{statements}: {done.stderr}")
        return done.stdout.splitlines()

    def create_database(self) -> Database:
        name = f"scratch_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return Database(self, name)


class Database:
    """A database of its own. `drop` closes the connections that are left."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.dsn = cluster.dsn(name)

    def url(self, driver: str) -> str:
        return self.cluster.url(driver, self.name)

    def sql(self, statements: str) -> list[str]:
        return self.cluster.sql(statements, self.name)

    def drop(self) -> None:
        self.cluster.sql(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")


def _binaries() -> pathlib.Path:
    """Where `initdb` and `pg_ctl` are."""
    places = []
    if shutil.which("pg_config"):
        told = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True)
        places.append(pathlib.Path(told.stdout.strip()))
    initdb = shutil.which("initdb")
    if initdb:
        places.append(pathlib.Path(initdb).resolve().parent)  # links lead to where they all are
    versions = [
        path for path in pathlib.Path("/usr/lib/postgresql").glob("*") if path.name.isdigit()
    ]
    places += [path / "bin" for path in sorted(versions, key=lambda path: -int(path.name))]
    for place in places:
        if all((place / name).is_file() for name in ("initdb", "pg_ctl", "postgres")):
            return place
    raise NoPostgres(
        "PostgreSQL is not installed (no initdb, pg_ctl and postgres in `pg_config --bindir`, PATH or "
        "/usr/lib/postgresql/*/bin): `.ci/postgres` installs it"
    )


def _account_for_server() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: `postgres`, or else `nobody`, does it instead."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    raise NoPostgres("running as root, and there is no account `postgres` or `nobody`")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """The cluster of this process (one for each worker of pytest-xdist)."""
    try:
        cluster = Cluster()
    except NoPostgres as reason:
        if os.environ.get("FIBERBACK_REQUIRE_POSTGRES"):
            pytest.fail(f"FIBERBACK_REQUIRE_POSTGRES is set, but: {reason}")
        pytest.skip(str(reason))
    yield cluster
    cluster.stop()


@pytest.fixture
def database(postgres: Cluster) -> Iterator[Database]:
    """A new, empty database for one test."""
    made = postgres.create_database()
    yield made
    made.drop()
