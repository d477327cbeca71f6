"""A private PostgreSQL on a free port of 127.0.0.1, and PgBouncer before it.

PostgreSQL refuses to run as root, so that root becomes ``nobody`` for it. ``initdb`` takes seconds: it is done once a
process, and copied.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from servers import programs
from servers.children import die_with_parent
from servers.ports import await_silence, free_port

missing = next(
    (f"there is no {one}: {programs.lacking(one)}" for one in ("initdb", "postgres") if not programs.found(one)), ""
)
"""Why the tests of it are skipped; else empty."""

USER = "nobody"


def _unprivileged() -> dict[str, Any]:
    """What makes a program that we start be somebody else than root."""
    if os.getuid() != 0:
        return {}
    them = pwd.getpwnam(USER)
    return {"user": them.pw_uid, "group": them.pw_gid, "extra_groups": []}


def give(path: Path) -> None:
    """The server may write there."""
    if os.getuid() == 0:
        them = pwd.getpwnam(USER)
        os.chown(path, them.pw_uid, them.pw_gid)


@functools.cache
def _template() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="initdb-", dir="/tmp"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    give(directory)
    options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D", str(directory / "data")]
    subprocess.run(
        [programs.find("initdb"), *options], check=True, stdout=subprocess.DEVNULL, cwd="/", **_unprivileged()
    )
    return directory / "data"


class PostgresServer:
    """A context manager. ``settings`` are lines of postgresql.conf; ``access`` are lines of pg_hba.conf before those
    that let everybody in. One that is started again has the same port and directory."""

    def __init__(self, *settings: str, access: tuple[str, ...] = ()) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        give(self.directory)
        shutil.copytree(_template(), self.directory / "data")
        for path in (self.directory / "data", *(self.directory / "data").rglob("*")):
            give(path)
        lines = [f"port = {self.port}", "listen_addresses = '127.0.0.1'"]
        lines.append(f"unix_socket_directories = '{self.directory}'")
        with (self.directory / "data" / "postgresql.conf").open("a") as file:
            file.write("\n".join([*lines, "max_connections = 30", "shared_buffers = 16MB", *settings]) + "\n")
        hba = self.directory / "data" / "pg_hba.conf"
        hba.write_text("\n".join(access) + "\n" + hba.read_text("utf-8"), "utf-8")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        command = [programs.find("postgres"), "-D", str(self.directory / "data")]
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen(
            command, preexec_fn=die_with_parent, stdout=log, stderr=log, cwd="/", **_unprivileged()
        )
        log.close()
        import psycopg

        deadline = time.monotonic() + 30
        while True:
            try:
                return self.connect().close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.directory / "log").read_text("utf-8", "replace")
                time.sleep(0.02)

    def connect(self, **more: Any) -> Any:
        """A connection of psycopg's, as the superuser."""
        import psycopg

        where = {"host": "127.0.0.1", "port": self.port, "dbname": "postgres", "user": "postgres", **more}
        return psycopg.connect(**where, autocommit=True, connect_timeout=5)

    def ask(self, statement: str) -> list[Any]:
        """What it answers to one statement."""
        with self.connect() as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    @property
    def pids(self) -> list[int]:
        """Of the server, and of all its processes."""
        assert self._process is not None
        first = self._process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text("utf-8")
        return [first, *map(int, children.split())]

    def freeze(self) -> None:
        """It answers nothing any more, and its connections stay open."""
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):  # the first, once thawed, reaps those that had ended
                os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """End all of it as a crash would."""
        if self._process is None:
            return
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._process.wait(30)
        self._process = None
        await_silence(self.port)


class PgBouncer:
    """A context manager: transaction pooling before a server, over few connections."""

    def __init__(self, server: PostgresServer) -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir="/tmp"))
        give(self._directory)
        (self._directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
            f"listen_port={self.port}\nauth_type=any\npool_mode=transaction\ndefault_pool_size=2\nunix_socket_dir=\n"
            f"logfile={self._directory}/log\n",
            "utf-8",
        )

    def __enter__(self) -> Self:
        command = [programs.find("pgbouncer"), str(self._directory / "pgbouncer.ini")]
        self._process = subprocess.Popen(
            command,
            preexec_fn=die_with_parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **_unprivileged(),
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert time.monotonic() < deadline, (self._directory / "log").read_text("utf-8")
                time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(30)
        shutil.rmtree(self._directory, ignore_errors=True)
