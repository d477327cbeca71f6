"""How fast the outbox sends, beside a bare loop: aiosmtplib, and a commit with synchronous=FULL for every answer.

Both send the same mails (4 KB, one recipient each) to the same sink over as many connections, in one run; the rounds
take turns. ``smtp-sink`` (of Debian's postfix) is the sink.

accepted  mails a second that eight programs hand in: read, made, synced and committed
sent      mails a second from the outbox to the sink, each answer committed
bare      mails a second of the bare loop
share     sent / bare

  outbox.py                    2,000 mails, two rounds
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
def sink() -> Iterator[int]:
    """The port of a sink."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        [programs.find("smtp-sink"), "-u", "nobody", f"inet:127.0.0.1:{port}", "1000"], stderr=subprocess.DEVNULL
    )
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


async def ours(directory: Path, port: int, mails: int) -> tuple[float, float]:
    """Seconds to accept, and to send."""
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
    began = time.perf_counter()
    task = asyncio.create_task(postman.run(stop))
    while await ledger.outbox_backlog():
        await asyncio.sleep(0.02)
    sent = time.perf_counter() - began
    stop.set()
    await task
    await outgoing.close()
    await ledger.close()
    return accepted, sent


async def bare(directory: Path, port: int, mails: int) -> float:
    """Seconds of the loop that it is compared with."""
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

    began = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(CONNECTIONS)))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mails", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--directory", type=Path, help="on the disk that is to be measured")
    wanted = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with sink() as port:
        for _ in range(wanted.rounds):
            with tempfile.TemporaryDirectory(dir=wanted.directory) as directory:
                accepted, sent = asyncio.run(ours(Path(directory), port, wanted.mails))
                other = asyncio.run(bare(Path(directory), port, wanted.mails))
            mails = wanted.mails
            print(
                f"accepted {mails / accepted:6.0f}/s   sent {mails / sent:6.0f}/s   bare {mails / other:6.0f}/s   "
                f"share {100 * other / sent:4.0f} %"
            )


if __name__ == "__main__":
    main()
