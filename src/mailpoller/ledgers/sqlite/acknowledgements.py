"""Acknowledgements: owed, sent, or not to be sent. Who had one is known by the row of the one that he had."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from datetime import datetime
from sqlite3 import Connection
from typing import Any

from mailpoller.core.acknowledgement import Acknowledgement
from mailpoller.core.ports import OutboxMail
from mailpoller.ledgers.sqlite import outbox
from mailpoller.ledgers.sqlite.values import clean, document, instant, micros

_SOME = 1000
"""Rows that are forgotten in one transaction."""


def owe(connection: Connection, owed: Iterable[Acknowledgement], now: int) -> None:
    """Once for a mid, whatever becomes of its message later."""
    connection.executemany(
        "INSERT OR IGNORE INTO acknowledgement (mid, mailbox, address, received, words, owed_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        [
            (one.mid, one.mailbox, clean(one.address).casefold(), micros(one.received), _written(one), now)
            for one in owed
        ],
    )


def _written(one: Acknowledgement) -> str:
    said = {
        "address": one.address,
        "rule": one.rule,
        "subject": one.subject,
        "name": one.name,
        "to": one.to,
        "message_id": one.message_id,
        "references": list(one.references),
        "language": one.language,
        "conversation": one.conversation,
    }
    return clean(document(said))


def since(connection: Connection, mailboxes: Collection[str], now: int) -> dict[str, datetime]:
    names = document(sorted(mailboxes))
    connection.execute("DELETE FROM acknowledging WHERE mailbox NOT IN (SELECT value FROM json_each(?))", (names,))
    connection.execute(
        "INSERT OR IGNORE INTO acknowledging (mailbox, since) SELECT value, ? FROM json_each(?)", (now, names)
    )
    return {mailbox: instant(at) for mailbox, at in connection.execute("SELECT mailbox, since FROM acknowledging")}


def owed(connection: Connection, limit: int, but: Collection[str] = ()) -> list[Acknowledgement]:
    rows = connection.execute(
        "SELECT mid, mailbox, received, words FROM acknowledgement WHERE decided_at IS NULL AND mailbox NOT IN "
        "(SELECT value FROM json_each(?)) ORDER BY owed_at, mid LIMIT ?",
        (json.dumps(sorted(but)), limit),
    )
    return [_read(*row) for row in rows]


def _read(mid: str, mailbox: str, received: int, words: str) -> Acknowledgement:
    said: dict[str, Any] = json.loads(words)
    return Acknowledgement(
        mid=mid, mailbox=mailbox, received=instant(received), **{**said, "references": tuple(said["references"])}
    )


def had_one(connection: Connection, mailbox: str, address: str, after: int) -> bool:
    found = connection.execute(
        "SELECT 1 FROM acknowledgement WHERE mailbox = ? AND address = ? AND decided_at > ? AND sent LIMIT 1",
        (mailbox, clean(address).casefold(), after),
    ).fetchone()
    return found is not None


def count(connection: Connection, after: int) -> int:
    row = connection.execute("SELECT count(*) FROM acknowledgement WHERE decided_at > ? AND sent", (after,)).fetchone()
    return int(row[0])


def decide(connection: Connection, mid: str, mail: OutboxMail | None, now: int) -> bool:
    decided = connection.execute(
        # What it was to say is a stranger's words, and nobody needs them any more.
        "UPDATE acknowledgement SET decided_at = ?, sent = ?, words = '' WHERE mid = ? AND decided_at IS NULL",
        (now, mail is not None, mid),
    ).rowcount
    if decided and mail is not None:
        outbox.accept(connection, mail)
    return bool(decided)


def rename(connection: Connection, old: str, new: str) -> None:
    """Whom the mailbox told when it was called ``old`` has been told by ``new``."""
    connection.execute("UPDATE acknowledgement SET mailbox = ?2 WHERE mailbox = ?1 AND sent", (old, new))


def forget(connection: Connection, before: int) -> int:
    return connection.execute(
        "DELETE FROM acknowledgement WHERE mid IN "
        "(SELECT mid FROM acknowledgement WHERE decided_at < ? ORDER BY decided_at LIMIT ?)",
        (before, _SOME),
    ).rowcount


def erase(connection: Connection, mids: Collection[str], address: str) -> int:
    """Forget these messages' senders, and this address. What was owed to them is not sent."""
    return connection.execute(
        "DELETE FROM acknowledgement WHERE mid IN (SELECT value FROM json_each(?1)) OR (?2 <> '' AND address = ?2)",
        (document(sorted(mids)), address.casefold()),
    ).rowcount
