"""Mail that was accepted to be sent: rows alone, its octets are files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from sqlite3 import Connection
from typing import Any

from mailpoller.core.ports import OutboxBacklog, OutboxMail, OutboxRecipient, RecipientState
from mailpoller.ledgers.sqlite.values import clean, document, instant, instant_or_none, micros

_COLUMNS = (
    "number, id, intake, key, content, identity, mailbox, mid, message_id, sender, size, digest, accepted_at, "
    "gives_up_at, due_at, attempts"
)
_SOME = 200
"""Mails that are forgotten in one transaction."""


def accept(connection: Connection, mail: OutboxMail) -> OutboxMail:
    if mail.key and (found := known(connection, mail.intake, mail.key)) is not None:
        return found
    number = connection.execute(
        "INSERT INTO outbox (id, intake, key, content, identity, mailbox, mid, message_id, sender, size, digest, "
        "accepted_at, gives_up_at, due_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            mail.id, mail.intake, clean(mail.key) or None, mail.content, mail.identity, mail.mailbox, mail.mid,
            mail.message_id, mail.sender, mail.size, mail.digest, micros(mail.accepted_at), micros(mail.gives_up_at),
            micros(mail.due_at or mail.accepted_at),
        ),
    ).lastrowid  # fmt: skip
    connection.executemany(
        "INSERT INTO outbox_recipient (mail, number, address, state, words) VALUES (?, ?, ?, ?, '')",
        [(number, at, one.address, one.state) for at, one in enumerate(mail.recipients)],
    )
    return mail


def known(connection: Connection, intake: str, key: str) -> OutboxMail | None:
    return _one(connection, "WHERE intake = ? AND key = ?", (intake, clean(key)))


def due(connection: Connection, identity: str, limit: int, now: int) -> list[OutboxMail]:
    return _mails(
        connection, "WHERE identity = ? AND due_at <= ? ORDER BY due_at, number LIMIT ?", (identity, now, limit)
    )


def backlog(connection: Connection) -> dict[str, OutboxBacklog]:
    rows = connection.execute(
        "SELECT identity, count(*), sum(size), min(due_at) FROM outbox WHERE due_at IS NOT NULL GROUP BY identity"
    )
    return {identity: OutboxBacklog(mails, octets, instant(at)) for identity, mails, octets, at in rows}


def answered(
    connection: Connection, id: str, said: Mapping[str, tuple[RecipientState, str]], due_at: int | None, now: int
) -> None:
    (number,) = connection.execute(
        "UPDATE outbox SET due_at = ?, attempts = attempts + 1, done_at = iif(?1 IS NULL, ?, NULL) WHERE id = ? "
        "RETURNING number",
        (due_at, now, id),
    ).fetchone() or (None,)
    connection.executemany(
        "UPDATE outbox_recipient SET state = ?, words = ?, at = ? WHERE mail = ? AND address = ?",
        [(state, clean(words)[:500], now, number, address) for address, (state, words) in said.items()],
    )


def listed(connection: Connection, identity: str | None, all: bool, limit: int) -> list[OutboxMail]:
    return _mails(
        connection,
        "WHERE (?1 IS NULL OR identity = ?1) AND (?2 OR due_at IS NOT NULL) ORDER BY number LIMIT ?3",
        (identity, all, limit),
    )


def mail(connection: Connection, id: str) -> OutboxMail | None:
    if not id.isalnum():
        return None
    found = _mails(connection, "WHERE id GLOB ? LIMIT 2", (f"{id}*",))
    return found[0] if len(found) == 1 else None


def retry(connection: Connection, id: str, now: int) -> int:
    connection.execute("UPDATE outbox SET due_at = ? WHERE id = ? AND due_at IS NOT NULL", (now, id))
    return _open(connection, id)


def cancel(connection: Connection, id: str, now: int) -> int:
    count = _open(connection, id)
    connection.execute(
        "UPDATE outbox_recipient SET state = 'cancelled', at = ? WHERE state IN ('waiting', 'deferred') AND mail = "
        "(SELECT number FROM outbox WHERE id = ?)",
        (now, id),
    )
    connection.execute("UPDATE outbox SET due_at = NULL, done_at = ? WHERE id = ? AND due_at IS NOT NULL", (now, id))
    return count


def _open(connection: Connection, id: str) -> int:
    row = connection.execute(
        "SELECT count(*) FROM outbox_recipient JOIN outbox ON outbox.number = mail WHERE id = ? AND due_at IS NOT NULL "
        "AND state IN ('waiting', 'deferred')",
        (id,),
    ).fetchone()
    return int(row[0])


def done(connection: Connection, digests: Sequence[bytes]) -> list[bytes]:
    rows = connection.execute(
        "SELECT digest, due_at FROM outbox WHERE digest IN (" + ", ".join("?" * len(digests)) + ")",  # noqa: S608
        list(digests),
    ).fetchall()
    wanted = {digest for digest, due_at in rows if due_at is not None}
    return [digest for digest, _ in rows if digest not in wanted]


def forget(connection: Connection, before: int) -> int:
    some = "SELECT number FROM outbox WHERE done_at < ? ORDER BY done_at LIMIT ?"
    connection.execute(f"DELETE FROM outbox_recipient WHERE mail IN ({some})", (before, _SOME))  # noqa: S608
    return connection.execute(f"DELETE FROM outbox WHERE number IN ({some})", (before, _SOME)).rowcount  # noqa: S608


def rename(connection: Connection, former: str, name: str) -> int:
    return connection.execute(
        "UPDATE outbox SET identity = ? WHERE identity = ? AND due_at IS NOT NULL", (name, former)
    ).rowcount


def _one(connection: Connection, where: str, values: Iterable[Any]) -> OutboxMail | None:
    return next(iter(_mails(connection, where, values)), None)


def _mails(connection: Connection, where: str, values: Iterable[Any]) -> list[OutboxMail]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM outbox {where}", tuple(values)).fetchall()  # noqa: S608
    recipients: dict[int, list[OutboxRecipient]] = {row[0]: [] for row in rows}
    for number, address, state, words, at in connection.execute(
        "SELECT mail, address, state, words, at FROM outbox_recipient WHERE mail IN (SELECT value FROM json_each(?)) "
        "ORDER BY mail, number",
        (document(list(recipients)),),
    ):
        recipients[number].append(OutboxRecipient(address, state, words, instant_or_none(at)))
    return [_mail(row, recipients[row[0]]) for row in rows]


def _mail(row: tuple[Any, ...], recipients: Iterable[OutboxRecipient]) -> OutboxMail:
    (
        _, id, intake, key, content, identity, mailbox, mid, message_id, sender, size, digest, accepted_at,
        gives_up_at, due_at, attempts,
    ) = row  # fmt: skip
    return OutboxMail(
        id, intake, key or "", content, identity, mailbox, mid, message_id, sender, size, digest,
        instant(accepted_at), instant(gives_up_at), instant_or_none(due_at), attempts, tuple(recipients),
    )  # fmt: skip
