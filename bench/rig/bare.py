"""The limit: mail from IMAP into a durable table by the shortest way there is in one Python process.

Several FETCH commands for sets of messages are under way at once; of each message the header block alone is parsed;
fifty messages are one transaction (WAL, synchronous=FULL); after its commit they are marked seen. Small messages lie
in the row, large ones each in a file that is synced before the commit. There are no claims, no rules, no events, no
identity beyond the UID, no bounds but one of memory, no logs and no second attempt: what a service does beyond this
is what its share of this figure pays for.

    bare.py --port 143 --user u --directory /var/tmp/bare      prints one JSON object
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sqlite3
import ssl
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path

COMMIT = 50
"""Messages of a transaction."""
INLINE = 32_768
"""Octets of the largest message that lies in its row."""
FULL, ROOM = 32_000_000, 16_000_000
"""Octets received and not yet taken: reading stops at the first, and goes on below the second."""

_FETCHED = re.compile(rb"UID (\d+) .*\{(\d+)\}$")


class Wire(asyncio.Protocol):
    """Cuts what the server says into messages and other lines."""

    def __init__(self) -> None:
        self.messages: deque[tuple[int, bytes]] = deque()
        self.answers: deque[bytes] = deque()
        """Tagged lines."""
        self.search = b""
        self._news = asyncio.Event()
        self._started = b""
        """A line whose end is still to come."""
        self._missing = 0
        """Octets of a literal that are still to come."""
        self._literal: list[memoryview] = []
        self._uid = 0
        self._waiting = 0
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._news.set()

    def data_received(self, data: bytes) -> None:
        at, end, view = 0, len(data), memoryview(data)
        while at < end:
            if self._missing:
                part = view[at : at + self._missing]
                self._literal.append(part)
                self._missing -= len(part)
                at += len(part)
                if not self._missing:
                    octets = b"".join(self._literal)
                    self._literal.clear()
                    self.messages.append((self._uid, octets))
                    self._waiting += len(octets)
                continue
            stop = data.find(b"\r\n", at)
            if stop < 0 and not (data.endswith(b"\r") or self._started):
                self._started = data[at:]
                break
            if self._started:  # rare: a line that was cut by the end of a read
                data, self._started = self._started + data[at:], b""
                at, end, view = 0, len(data), memoryview(data)
                if (stop := data.find(b"\r\n")) < 0:
                    self._started = data
                    break
            if stop < 0:
                self._started = data[at:]
                break
            self._line(data[at:stop])
            at = stop + 2
        if self._waiting > FULL:
            self.transport.pause_reading()
        self._news.set()

    def _line(self, line: bytes) -> None:
        if line.endswith(b"}") and (fetched := _FETCHED.search(line)):
            self._uid, self._missing = int(fetched[1]), int(fetched[2])
        elif line.startswith(b"* SEARCH"):
            self.search = line
        elif line and line[0] not in b"*)+ ":
            self.answers.append(line)

    def taken(self, octets: int) -> None:
        """So many octets of messages are out of our hands."""
        self._waiting -= octets
        if self._waiting < ROOM:
            self.transport.resume_reading()

    async def news(self) -> None:
        """Wait until there is a message or an answer."""
        while not (self.messages or self.answers):
            if self._lost:
                raise SystemExit("the server closed the connection")
            self._news.clear()
            await self._news.wait()

    async def command(self, text: str) -> None:
        """One command and its answer, before any FETCH is under way."""
        self.transport.write(f"x {text}\r\n".encode())
        await self.news()
        _expect(self.answers.popleft())


def _expect(answer: bytes) -> None:
    if b" OK" not in answer:
        raise SystemExit(answer.decode("ascii", "replace"))


class Table:
    """The durable table. Blocking: called in a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._database = sqlite3.connect(directory / "bare.db", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS mail (id INTEGER PRIMARY KEY, uid TEXT UNIQUE, subject TEXT, sender TEXT, "
            "size INT, octets BLOB)"
        )

    def commit(self, rows: list[tuple[str, str, str, int, bytes | None]]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("INSERT INTO mail (uid, subject, sender, size, octets) VALUES (?, ?, ?, ?, ?)", rows)
        self._database.execute("COMMIT")

    def write_file(self, uid: int, octets: bytes) -> None:
        with open(self._directory / f"{uid}.eml", "wb", buffering=0) as file:
            file.write(octets)
            os.fsync(file.fileno())

    def count(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM mail").fetchone()[0])


def header(octets: bytes, parser: BytesHeaderParser) -> Message:
    """The header block of a message."""
    return parser.parsebytes(octets[: octets.find(b"\r\n\r\n") + 4])


async def drain(
    port: int, user: str, password: str, directory: Path, *, ca_file: Path | None, per_fetch: int, in_flight: int
) -> dict[str, float]:
    """Drain a mailbox to its end."""
    loop = asyncio.get_running_loop()
    table, parser = Table(directory), BytesHeaderParser()
    writer, files = ThreadPoolExecutor(1), ThreadPoolExecutor(8)
    began = time.perf_counter()
    trust = ssl.create_default_context(cafile=ca_file) if ca_file else None
    _, wire = await loop.create_connection(Wire, "127.0.0.1", port, ssl=trust)
    await wire.command(f"LOGIN {user} {password}")
    await wire.command("SELECT INBOX")
    await wire.command("UID SEARCH UNSEEN")
    uids = wire.search.decode().split()[2:]
    sets = iter([",".join(uids[at : at + per_fetch]) for at in range(0, len(uids), per_fetch)])

    marking = 0

    def ask() -> None:
        if (some := next(sets, None)) is not None:
            wire.transport.write(f"f UID FETCH {some} (UID BODY.PEEK[])\r\n".encode())

    def heed() -> None:
        nonlocal marking
        while wire.answers:
            _expect(answer := wire.answers.popleft())
            if answer.startswith(b"f"):
                ask()
            else:
                marking -= 1

    for _ in range(in_flight):
        ask()
    rows: list[tuple[str, str, str, int, bytes | None]] = []
    batch: list[str] = []
    syncing: list[asyncio.Future[None]] = []
    received = octets_received = 0
    while received < len(uids) or marking:
        await wire.news()
        heed()
        while wire.messages and len(rows) < COMMIT:
            heed()
            uid, octets = wire.messages.popleft()
            fields = header(octets, parser)
            inline = len(octets) <= INLINE
            if not inline:
                syncing.append(loop.run_in_executor(files, table.write_file, uid, octets))
            rows.append(
                (str(uid), str(fields["subject"]), str(fields["from"]), len(octets), octets if inline else None)
            )
            batch.append(str(uid))
            received += 1
            octets_received += len(octets)
            wire.taken(len(octets))
        if len(rows) == COMMIT or (rows and received == len(uids)):
            await asyncio.gather(*syncing)
            await loop.run_in_executor(writer, table.commit, rows)
            wire.transport.write(f"s UID STORE {','.join(batch)} +FLAGS.SILENT (\\Seen)\r\n".encode())
            marking += 1
            rows, batch, syncing = [], [], []
    elapsed = time.perf_counter() - began
    return {"messages": table.count(), "octets": octets_received, "elapsed_s": elapsed}


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--port", type=int, required=True, help="the IMAP server's port on 127.0.0.1")
    reader.add_argument("--user", required=True)
    reader.add_argument("--password", default="secret")
    reader.add_argument("--directory", type=Path, required=True, help="where the table is made")
    reader.add_argument("--ca-file", type=Path, help="speak TLS and trust this certificate")
    reader.add_argument("--per-fetch", type=int, default=25, help="messages of a FETCH command (25)")
    reader.add_argument("--in-flight", type=int, default=8, help="FETCH commands under way at once (8)")
    options = reader.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    done = drain(
        options.port,
        options.user,
        options.password,
        options.directory,
        ca_file=options.ca_file,
        per_fetch=options.per_fetch,
        in_flight=options.in_flight,
    )
    print(json.dumps(asyncio.run(done)))


if __name__ == "__main__":
    main()
