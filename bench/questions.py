"""Every question of docs/operations.md beside a daemon: how long each command takes that an operator waits for.

A ledger is made by SQL with --rows settled messages of 90 days, evenly, in --mailboxes Maildirs that a daemon polls.
What lists a mailbox or changes something is left out.

questions.py                     a million messages, 1,000 mailboxes
questions.py --rows 5000000      five million: 2 GB, and some minutes until the first answer
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from ledger import KEEP, mid_octets
from rig.options import heading, reader, rounds, say
from rig.process import Failed
from rig.service import Service
from rig.table import median, table

from mailpoller.core.identity import mint_mid
from mailpoller.engine.clock import SystemClock
from mailpoller.ledgers.sqlite import SqliteLedger
from mailpoller.ledgers.sqlite.clues import shelve_all
from mailpoller.ledgers.sqlite.schema import SCHEMA
from mailpoller.ledgers.sqlite.values import micros

LIMIT_S = 1.0
_FILL = """
WITH RECURSIVE number (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < ?2)
INSERT INTO message (folder, uid, state, mid, listed, claimed_at, receipts, outcome, settled_at, disposition,
    disposition_state, disposed_at, size, fingerprint, identity, mark, message_id, sender)
SELECT ?5, CAST(n AS TEXT), 'settled', mid(?5, n), 4000 + n % 9000, ?3 + n * ?4,
    '{"support":"row ' || n || '"}', iif(n % 50, 'delivered', 'quarantined'), ?3 + n * ?4, '{"seen":true}', 'applied',
    ?3 + n * ?4, 4000 + n % 9000, randomblob(32), randomblob(16), (?5 * 7919 + n) * 2654435761 % 4294967296,
    '<' || ?5 || '.' || n || '@example.org>', 'sender-' || ((?5 + n) % 1000) || '@example.org'
FROM number
"""
_ASKED = (
    "messages support-7 --outcome quarantined",
    "messages --sender sender-17@example.org",
    "messages --histogram --since 3d",
    "messages --histogram --since 14d",
    "trace sender-17@example.org",
    "erase --address sender-17@example.org --dry-run",
)
"""Beside those of the table, which name what is not there."""
_LEFT_OUT = (
    "reconcile", "backfill", "explain", "trace MID", "redeliver", "quarantine", "queue", "poll", "pause", "resume",
)  # fmt: skip


def name_of(number: int) -> str:
    return "support" if number == 1 else f"support-{number}"


def fill(path: Path, rows: int, mailboxes: int) -> None:
    """The rows of a ledger that was just made. Evenly over 90 days, in every mailbox at once."""
    asyncio.run(_made(path))
    each = max(1, rows // mailboxes)
    begin, step = micros(datetime.now(UTC) - KEEP), int(KEEP.total_seconds() * 1e6 / each)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.create_function(
            "mid", 2, lambda box, n: mid_octets(mint_mid(name_of(box), "new", "bench", str(n))), deterministic=True
        )
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-400000"):
            connection.execute(f"PRAGMA {pragma}")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'message' AND sql IS NOT NULL"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")  # and made at the end, sorted
        for box in range(1, mailboxes + 1):
            connection.execute(
                "INSERT INTO folder (id, mailbox, name, epoch, type, host, user, turn, opened_at, baseline_at, "
                "position, complete) VALUES (?, ?, 'former', 'bench', 'maildir', 'localhost', ?, 1, ?, ?, 'p', 1)",
                (box, name_of(box), name_of(box), begin, begin),
            )
            connection.execute("INSERT INTO mailbox VALUES (?, ?)", (name_of(box), micros(datetime.now(UTC))))
            connection.execute(_FILL, (0, each, begin + box * step // mailboxes, step, box))
        say("the rows are made")
        for _, statement in indexes:
            connection.execute(statement)
        connection.execute("BEGIN")
        shelve_all(connection, lambda done, total: None)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")
    say("and found by what they are asked for")


async def _made(path: Path) -> None:
    ledger = await SqliteLedger.open(path, SystemClock())
    await ledger.close()
    assert SCHEMA.version


def asked() -> list[str]:
    """The commands of the table that ask, and more."""
    page = (Path(__file__).parents[1] / "docs/operations.md").read_text("utf-8")
    cells = page.split("## Every question one command", 1)[1].split("\n## ", 1)[0]
    found = [words.removeprefix("mailpoller ") for words in re.findall(r"`(mailpoller [^`]+)`", cells)]
    known = [
        one.replace("ada@customer", "sender-17@customer").replace("customer.example", "example.org") for one in found
    ]
    return [*dict.fromkeys((*(one for one in known if not one.startswith(_LEFT_OUT)), *_ASKED))]


def timed(argv: list[str], log: Path) -> tuple[float, float]:
    """Seconds, and those of the processor. Whatever the answer is, there has to be one."""
    began = time.perf_counter()
    with log.open("wb") as said:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1, 2):  # health may have something to say
        raise Failed(f"{shlex.join(argv)} exited with {child.returncode}: {log.read_text()[-500:]}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


@contextlib.contextmanager
def daemon(site: Service) -> Iterator[None]:
    """It runs, and has polled everything."""
    with (
        (site.directory / "log").open("wb") as log,
        subprocess.Popen(site.command("run"), stdout=log, stderr=log) as process,
    ):
        try:
            until = time.monotonic() + 120
            while subprocess.run(site.command("status", "--json"), capture_output=True, check=False).returncode or any(
                not box["last_poll_at"] for box in _status(site)["mailboxes"]
            ):
                if process.poll() is not None or time.monotonic() > until:
                    raise Failed(f"the daemon does not poll: {(site.directory / 'log').read_text()[-2000:]}")
                time.sleep(1)
            yield
        finally:
            process.terminate()


def _status(site: Service) -> dict[str, list[dict[str, object]]]:
    found = subprocess.run(site.command("status", "--json"), capture_output=True, check=True)
    return dict(json.loads(found.stdout))


def main() -> None:
    arguments = reader(__doc__, repeat=3)
    arguments.add_argument("--rows", type=int, metavar="N", help="settled messages (a million; quick 20,000)")
    arguments.add_argument("--mailboxes", type=int, metavar="N", help="that are polled (1,000; quick 20)")
    arguments.add_argument("--directory", type=Path, help="where the files are made and removed")
    options = arguments.parse_args()
    rows = options.rows or (20_000 if options.quick else 1_000_000)
    mailboxes = options.mailboxes or (20 if options.quick else 1_000)
    heading(f"questions beside {mailboxes:,} mailboxes and a ledger of {rows:,} messages")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as name:
        site = Service(Path(name) / "site")
        for number in range(1, mailboxes + 1):
            box = Path(name) / "boxes" / str(number)
            for folder in ("new", "cur", "tmp"):
                (box / folder).mkdir(parents=True)
            site.add(
                "mailboxes", name_of(number), type="maildir", path=str(box), default_queue="support",
                poll_interval="5m", start="all",
            )  # fmt: skip
        fill(site.directory / "ledger.db", rows, mailboxes)
        with daemon(site):
            found: list[list[str | float | None]] = []
            for words in asked():
                costs = [timed(site.command(*shlex.split(words)), site.log) for _ in range(rounds(options))]
                found.append([words, *(median(several) for several in zip(*costs, strict=True)), LIMIT_S])
                say(f"{words}: {found[-1][2]:.2f} s of the processor")
    print(table(["command", "seconds", "CPU s", "limit"], found))


if __name__ == "__main__":
    main()
