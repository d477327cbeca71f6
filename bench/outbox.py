"""How fast the outbox sends, beside a bare loop: aiosmtplib, and a commit with synchronous=FULL for every answer.

Both send the same mails (4 KB, one recipient each) to the same sink over as many connections, in one run; the rounds
take turns. ``smtp-sink`` (of Debian's postfix) is the sink.

accepted  mails a second that eight programs hand in: read, made, synced and committed
sent      mails a second from the outbox to the sink, each answer committed
bare      mails a second of the bare loop
share     sent / bare
cpu       milliseconds of processor time for each mail that is sent, ours and the bare loop's
memory    megabytes that the process grew by while it sent

  outbox.py                    2,000 mails, two rounds
  outbox.py --pause 30         with a sink of this file's, which thinks for 30 ms about each mail before it takes it
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from aiosmtplib import SMTP

from mailpoller.core.component import Runtime
from mailpoller.core.record import record
from mailpoller.core.sender import Sender
from mailpoller.core.spool import Spool
from mailpoller.engine.acceptance import Acceptance, OutboxBounds
from mailpoller.engine.alarm import Alarm
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.outbox_room import OutboxRoom
from mailpoller.engine.postman import Postman
from mailpoller.engine.senders import Identity, Intake, Senders
from mailpoller.ledgers.sqlite import SqliteLedgerConfig
from mailpoller.outgoings.smtp import SmtpConfig
from mailpoller.storage.octet_files import OctetFiles

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from servers import programs

TEXT = "\n".join(["A line of some words that somebody wrote to a customer, one of many."] * 50)
CONNECTIONS = 2
PROGRAMS = 8


@contextmanager
def sink(pause: float) -> Iterator[int]:
    """The port of a sink. ``pause``: see :func:`thinking`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [programs.find("smtp-sink"), "-u", "nobody", f"inet:127.0.0.1:{port}", "1000"]
    if pause:
        command = [sys.executable, __file__, "--think", str(pause), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as wire:
                if wire.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


async def thinking(port: int, pause: float) -> None:
    """A sink that thinks about each mail for so many seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                writer.write(b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            elif verb == b"DATA":
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                await asyncio.sleep(pause)
                writer.write(b"250 taken\r\n")
            else:
                writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 well\r\n")

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


def resident() -> float:
    """Megabytes of this process."""
    found = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(found.split()[1]) / 1024


@record
class Sent:
    """Of a run: seconds to accept, seconds and processor seconds to send, megabytes that it grew by."""

    accepted: float
    seconds: float
    processor: float
    grown: float = 0.0


async def ours(directory: Path, port: int, mails: int) -> Sent:
    clock = SystemClock()
    ledger = await SqliteLedgerConfig(type="sqlite", path=directory / "ledger.db").open(clock)
    block = SmtpConfig.model_validate(
        {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "s@x.example", "timeout": "30s"}
    )
    outgoing = block.build("relay", Runtime(clock, Spool(directory / "spool"), directory))
    identity = Identity("relay", Sender("s@x.example"), lanes=CONNECTIONS, departments=frozenset(("root",)))
    senders = Senders({"relay": identity}, {}, {"root": "relay"}, {"desk": Intake("desk", ("root",))})
    files, room = OctetFiles(directory / "outbox"), OutboxRoom()
    alarm = Alarm(ledger, None, (), clock)
    postman = Postman(ledger, files, {"relay": outgoing}, senders, alarm, clock, room)
    acceptance = Acceptance(ledger, files, senders, clock, OutboxBounds(), room, postman.wake)
    began = time.perf_counter()
    waiting = iter(range(mails))

    async def program() -> None:
        for number in waiting:
            entry = {"to": f"customer{number}@x.example", "subject": f"Re: {number}", "text": TEXT}
            await acceptance.hand_in({"octets": json.dumps(entry).encode(), "peer": "root"})

    await asyncio.gather(*(program() for _ in range(PROGRAMS)))
    accepted = time.perf_counter() - began
    stop = asyncio.Event()
    began, busy, small, large = time.perf_counter(), time.process_time(), resident(), 0.0
    task = asyncio.create_task(postman.run(stop))
    while await ledger.outbox_backlog():
        large = max(large, resident())
        await asyncio.sleep(0.1)
    sent = Sent(accepted, time.perf_counter() - began, time.process_time() - busy, max(0.0, large - small))
    stop.set()
    await task
    await outgoing.close()
    await ledger.close()
    return sent


async def bare(directory: Path, port: int, mails: int) -> Sent:
    """The loop that it is compared with."""
    database = sqlite3.connect(directory / "bare.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE mail (number INTEGER PRIMARY KEY, answer TEXT)")
    octets = f"From: s@x.example\nTo: c@x.example\nSubject: Re\n\n{TEXT}\n".replace("\n", "\r\n")
    database.executemany("INSERT INTO mail (number) VALUES (?)", [(number,) for number in range(mails)])
    waiting = iter(range(mails))

    async def lane() -> None:
        client = SMTP(hostname="127.0.0.1", port=port, start_tls=False, use_tls=False)
        await client.connect()
        for number in waiting:
            _, answer = await client.sendmail("s@x.example", [f"customer{number}@x.example"], octets)
            database.execute("UPDATE mail SET answer = ? WHERE number = ?", (answer, number))
        await client.quit()

    began, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(lane() for _ in range(CONNECTIONS)))
    return Sent(0.0, time.perf_counter() - began, time.process_time() - busy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mails", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--directory", type=Path, help="on the disk that is to be measured")
    parser.add_argument("--pause", type=int, default=0, help="milliseconds that the sink thinks about each mail")
    parser.add_argument("--think", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.think is not None:
        asyncio.run(thinking(wanted.port, wanted.think))
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with sink(wanted.pause / 1000) as port:
        for _ in range(wanted.rounds):
            with tempfile.TemporaryDirectory(dir=wanted.directory) as directory:
                sent = asyncio.run(ours(Path(directory), port, wanted.mails))
                other = asyncio.run(bare(Path(directory), port, wanted.mails))
            mails = wanted.mails
            print(
                f"accepted {mails / sent.accepted:5.0f}/s   sent {mails / sent.seconds:5.0f}/s   "
                f"bare {mails / other.seconds:5.0f}/s   share {100 * other.seconds / sent.seconds:4.0f} %   "
                f"cpu {1000 * sent.processor / mails:.1f} and {1000 * other.processor / mails:.1f} ms   "
                f"memory +{sent.grown:.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
