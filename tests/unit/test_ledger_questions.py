"""What operators ask of a ledger costs by what is asked, and not by what the ledger holds. Counted in steps of SQLite's
machine, which are the same on every machine."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sink_runtime import HandClock

from mailpoller.core.ports import Wanted
from mailpoller.ledgers.sqlite import LedgerReader, SqliteLedger
from mailpoller.ledgers.sqlite.clues import shelve_all
from mailpoller.ledgers.sqlite.values import micros

ROWS, DAYS, MAILBOXES = 100_000, 90, 10
STEPS = 1_000
"""Between two looks at what a question costs."""
BOUND = 400_000
"""Steps of a question: a walk through all rows takes twice as many at least."""
_FILL = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO message (folder, uid, state, mid, listed, claimed_at, receipts, outcome, settled_at, size, message_id,
    sender)
SELECT 1 + n % :boxes, CAST(n AS TEXT), 'settled', randomblob(16), 4000, :begin + n * :step, '{"q":"1"}',
    iif(n % 50, 'delivered', 'quarantined'), :begin + n * :step, 4000, '<' || n || '@x>',
    iif(n % 3, 'sender-' || (n % 1000), 'prolific') || '@example.org'
FROM number
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of 100,000 messages, evenly over ninety days."""
    path = tmp_path_factory.mktemp("large") / "ledger.db"
    asyncio.run(_made(path))
    begin = micros(datetime.now(UTC) - timedelta(days=DAYS))
    values = {"rows": ROWS, "boxes": MAILBOXES, "begin": begin, "step": DAYS * 86_400_000_000 // ROWS}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for box in range(1, MAILBOXES + 1):
            connection.execute(
                "INSERT INTO folder (id, mailbox, name, epoch, type, host, user, turn, opened_at, baseline_at, "
                "position, complete) VALUES (?1, 'box-' || ?1, 'INBOX', '1', 'imap', 'h', 'u', 1, ?2, ?2, 'p', 1)",
                (box, begin),
            )
        connection.execute(_FILL, values)
        shelve_all(connection, lambda done, total: None)
        connection.execute("COMMIT")
    return path


async def _made(path: Path) -> None:
    await (await SqliteLedger.open(path, HandClock())).close()


@pytest.fixture
def reader(large: Path) -> Iterator[LedgerReader]:
    with LedgerReader.open(large) as opened:
        yield opened


def ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


QUESTIONS: dict[str, Callable[[LedgerReader], object]] = {
    "trace": lambda ledger: ledger.trace("sender-17@example.org"),
    "trace of a mid": lambda ledger: ledger.trace("5b1c9f0e-4a3d-5f5b-8c2e-0d8a5b3f9f6a"),
    "trace of a Message-ID": lambda ledger: ledger.trace("<500@x>"),
    "trace, all of one sender": lambda ledger: ledger.trace("sender-17@example.org", limit=100_000),
    "messages": lambda ledger: ledger.messages(Wanted(ago(DAYS))),
    "messages, quarantined": lambda ledger: ledger.messages(Wanted(ago(DAYS), outcome="quarantined")),
    "messages, sender": lambda ledger: ledger.messages(Wanted(ago(DAYS), sender="sender-17@example.org")),
    "messages, prolific sender": lambda ledger: ledger.messages(Wanted(ago(DAYS), sender="prolific@example.org")),
    "messages, nobody": lambda ledger: ledger.messages(Wanted(ago(DAYS), sender="nobody@example.org")),
    "messages, domain": lambda ledger: ledger.messages(Wanted(ago(1), domain="nowhere.example")),
    "messages, mailbox": lambda ledger: ledger.messages(Wanted(ago(1), mailbox="box-7", queue="other")),
    "per_hour": lambda ledger: ledger.per_hour(Wanted(ago(14))),
    "per_hour, sender": lambda ledger: ledger.per_hour(Wanted(ago(DAYS), sender="sender-17@example.org")),
    "deferred": lambda ledger: ledger.deferred(),
    "faults": lambda ledger: ledger.faults(None),
    "alarms": lambda ledger: ledger.alarms(),
    "standings": lambda ledger: ledger.standings(),
    "changes": lambda ledger: ledger.changes(ago(1)),
    "pauses": lambda ledger: ledger.pauses(),
    "queue_mark": lambda ledger: ledger.queue_mark("q"),
    "outbox": lambda ledger: ledger.outbox(),
    "outbox_mail": lambda ledger: ledger.outbox_mail("x"),
    "last_polls": lambda ledger: ledger.last_polls(),
    "stuck": lambda ledger: ledger.stuck(ago(1), ago(0)),
    "mailboxes": lambda ledger: ledger.mailboxes(),
    "folders": lambda ledger: ledger.folders(),
}
NO_QUESTIONS = {"open", "close", "connection"}
SLOW = {"aged", "counts"}
"""What goes through a mailbox: of ``check``, and of tests."""


def test_every_question_of_a_reader_is_among_these() -> None:
    public = {name for name, _ in inspect.getmembers(LedgerReader) if not name.startswith("_")}
    assert public - NO_QUESTIONS - SLOW == {name.partition(",")[0].partition(" ")[0] for name in QUESTIONS}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_goes_through_no_more_than_it_is_about(reader: LedgerReader, question: str) -> None:
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    reader.connection.set_progress_handler(look, STEPS)
    QUESTIONS[question](reader)
    reader.connection.set_progress_handler(None, 0)
    assert looks * STEPS < BOUND, f"{looks * STEPS:,} steps of SQLite's machine"
