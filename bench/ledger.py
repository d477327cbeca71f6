"""A ledger of many messages: what operators ask, what a claim waits for beside a pruning, opening, and the migration
of 0.1's.

The rows are made by SQL as the ledger of 0.1 had them, one mailbox with --rows settled messages, a tenth of them old
enough to be pruned; then the ledger is opened, which migrates it. Files need about 1 KB a row while the copy for the
way back is there, which is removed at once.

    ledger.py                       a million messages
    ledger.py --rows 20000000       twenty million: some 15 GB and half an hour
    ledger.py --directory /srv      where the file is made, instead of the directory for temporary files
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import tempfile
import time
from collections.abc import Awaitable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import structlog
from rig.options import heading, reader, say
from rig.table import percentile, table

from mailpoller.core.delivery import LEAVE, Outcome
from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Account, Claim, Folder, MessageRef
from mailpoller.engine.clock import SystemClock
from mailpoller.ledgers.sqlite import LedgerReader, SqliteLedger
from mailpoller.ledgers.sqlite.schema import SCHEMA
from mailpoller.ledgers.sqlite.values import micros, mid_octets

T = TypeVar("T")

ACCOUNT = Account(type="imap", host="mail.example.com", user="support")
INBOX = Folder("support", "INBOX", "imap:mail.example.com:support:INBOX:1700000000")
KEEP = timedelta(days=90)
BATCH = 50
"""Messages that are claimed at once."""

_FILL = """
WITH RECURSIVE number (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < ?2)
INSERT INTO message (folder, uid, state, mid, listed, claimed_at, receipts, outcome, settled_at, disposition,
    disposition_state,
    disposed_at, size, fingerprint, mark, message_id, sender)
SELECT 1, CAST(n AS TEXT), 'settled', mid(n), 4000 + n % 9000, ?3 + n * ?4, '{"support":"row ' || n || '"}',
    'delivered',
    ?3 + n * ?4, '{"seen":true}', 'applied', ?3 + n * ?4, 4000 + n % 9000, randomblob(32), n * 2654435761 % 4294967296,
    '<' || hex(n * 2654435761 % 4294967296) || '.' || n || '@example.org>', 'sender-' || (n % 50000) || '@example.org'
FROM number
"""


def mid_of(number: int) -> str:
    """The mid of the message with this uid."""
    return mint_mid(INBOX.mailbox, INBOX.name, INBOX.epoch, str(number))


def fill(path: Path, rows: int) -> None:
    """Make the ledger of 0.1 (version 2) at ``path``. The first tenth of its messages was settled before what is
    kept."""
    now = datetime.now(UTC)
    begin, step = micros(now - KEEP * 1.11), int(KEEP.total_seconds() * 1e6 * 1.11 / rows)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.create_function("mid", 1, lambda number: mid_octets(mid_of(number)), deterministic=True)
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-400000")
        for script in SCHEMA.migrations[:2]:
            connection.executescript(script)
        connection.execute("DROP INDEX message_mark")  # and made at the end, sorted
        connection.execute(f"PRAGMA application_id={SCHEMA.application_id}")
        connection.execute("PRAGMA user_version=2")
        connection.execute(
            "INSERT INTO folder (id, mailbox, name, epoch, type, host, user, turn, opened_at, baseline_at, "
            "position, complete) VALUES (1, ?, ?, ?, ?, ?, ?, 1, 0, 0, 'p', 1)",
            (INBOX.mailbox, INBOX.name, INBOX.epoch, ACCOUNT.type, ACCOUNT.host, ACCOUNT.user),
        )
        # Uids are texts: those with the same number of digits are made one after the other, in the order of the rows.
        for first in range(0, rows, 1_000_000):
            connection.execute(_FILL, (first, min(rows, first + 1_000_000), begin, step))
            say(f"{min(rows, first + 1_000_000):,} rows are made")
        connection.execute("CREATE INDEX message_mark ON message (mark) WHERE mark IS NOT NULL")


async def timed(what: Awaitable[T]) -> tuple[float, T]:
    """Seconds, and what came."""
    began = time.perf_counter()
    value = await what
    return time.perf_counter() - began, value


def ref(number: int) -> MessageRef:
    return MessageRef(INBOX, str(number), 5000, datetime.now(UTC))


async def carry(ledger: SqliteLedger, stop: asyncio.Event, first: int) -> list[float]:
    """Claim and settle new messages until ``stop``: how long each claim took, in seconds."""
    waits: list[float] = []
    number = first
    while not stop.is_set():
        wait, answers = await timed(ledger.claim([ref(number + one) for one in range(BATCH)]))
        waits.append(wait)
        await ledger.settle(
            [
                Outcome(
                    claim=claim,
                    kind="delivered",
                    disposition=LEAVE,
                    receipts={"support": "row"},
                    fingerprint=hashlib.sha256(claim.ref.uid.encode()).digest(),
                    size=5000,
                    message_id=f"<{claim.ref.uid}@new.example.org>",
                    sender="somebody@example.org",
                    identity=bytes(16),
                )
                for claim in answers
                if isinstance(claim, Claim)
            ]
        )
        number += BATCH
        await asyncio.sleep(0.01)
    return waits


def ask(path: Path, rows: int) -> list[list[str | float]]:
    """What ``status`` and ``trace`` ask, each by a reader of its own, as the commands do."""
    found: list[list[str | float]] = []

    def measure(what: str, term: str | None) -> None:
        began = time.perf_counter()
        with LedgerReader.open(path) as opened:
            if term is None:
                answer = dict(opened.counts(INBOX.mailbox)) | {
                    "folders": len(opened.folders()),
                    "alarms": len(opened.alarms()),
                }
                assert answer["settled"] >= rows * 0.8, answer
            else:
                assert opened.trace(term), f"{what} found nothing"
        found.append([what, 1000 * (time.perf_counter() - began)])

    with LedgerReader.open(path) as opened:
        middle = rows // 2 + 1
        message_id, sender = opened.connection.execute(
            "SELECT message_id, sender FROM message WHERE folder = 1 AND uid = ?", (str(middle),)
        ).fetchone()
    measure("status", None)
    measure("trace, by mid", mid_of(middle))
    measure("trace, by Message-ID", message_id)
    measure("trace, by sender", sender)
    measure("trace, by uid", str(middle))
    return found


async def measure(directory: Path, rows: int) -> None:
    path = directory / "ledger.db"
    fill(path, rows)
    before = path.stat().st_size
    took, ledger = await timed(SqliteLedger.open(path, SystemClock()))
    for copy in directory.glob("*.backup"):
        copy.unlink()
    found: list[list[str | float]] = [["migration of 0.1's, copy included", 1000 * took]]
    await ledger.close()
    say(f"migrated in {took:.0f} s")
    took, ledger = await timed(SqliteLedger.open(path, SystemClock()))
    found.append(["opening", 1000 * took])
    await ledger.open_folder(INBOX, ACCOUNT)
    found += ask(path, rows)
    middle = mid_of(rows // 2 + 1)
    took, _ = await timed(ledger.reopen(middle))
    found.append(["redeliver", 1000 * took])

    stop = asyncio.Event()
    idle = asyncio.create_task(carry(ledger, stop, 10 * rows))
    await asyncio.sleep(5)
    stop.set()
    beside: list[tuple[str, list[float]]] = [("alone", await idle)]
    # The first pruning notes what it misses, the second, a day later, forgets it.
    for what, first in (("beside a pruning that misses", 11 * rows), ("beside a pruning that forgets", 12 * rows)):
        stop = asyncio.Event()
        beating = asyncio.create_task(carry(ledger, stop, first))
        took, forgotten = await timed(ledger.prune(INBOX, set(), before=datetime.now(UTC) - KEEP))
        stop.set()
        beside.append((f"{what}: {forgotten:,} forgotten in {took:.1f} s", await beating))
        with closing(sqlite3.connect(path)) as connection:  # a day passes
            day = int(timedelta(days=1, minutes=1).total_seconds() * 1e6)
            connection.execute("UPDATE message SET absent_at = absent_at - ? WHERE absent_at IS NOT NULL", (day,))
            connection.commit()
    found += [
        [what.replace("trace", "trace, after the prunings"), ms]
        for what, ms in ask(path, rows)
        if "mid" not in str(what)
    ]
    took, _ = await timed(ledger.close())
    print(f"{rows:,} messages, {before / 1e9:.2f} GB in 0.1, {path.stat().st_size / 1e9:.2f} GB now\n")
    print(table(["what", "ms"], found) + "\n")
    rows_of = [
        [what, len(waits), *(1000 * percentile(waits, share) for share in (0.5, 0.99, 1.0))] for what, waits in beside
    ]
    print(table([f"a claim of {BATCH}", "claims", "p50 ms", "p99 ms", "worst ms"], rows_of), flush=True)


def main() -> None:
    arguments = reader(__doc__, repeat=0)
    arguments.add_argument("--rows", type=int, metavar="N", help="settled messages (a million; quick 50,000)")
    arguments.add_argument("--directory", type=Path, help="where the file is made and removed")
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    heading("the ledger")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as name:
        asyncio.run(measure(Path(name), options.rows or (50_000 if options.quick else 1_000_000)))


if __name__ == "__main__":
    main()
