"""Mail that was accepted to be sent: rows alone, its octets are files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from sqlite3 import Connection
from typing import Any

from mailpoller.core.classification import Bounce
from mailpoller.core.ports import (
    Draft,
    OutboxBacklog,
    OutboxEvent,
    OutboxMail,
    OutboxMark,
    OutboxRecipient,
    RecipientState,
)
from mailpoller.core.ports.ledger.outbox import OUTBOX_WAITS_AT_MOST, OutboxEventKind
from mailpoller.ledgers.sqlite.values import MICROSECOND, clean, document, instant, instant_or_none, micros, undocument

_COLUMNS = (
    "number, id, intake, key, content, identity, mailbox, mid, message_id, sender, size, digest, accepted_at, "
    "gives_up_at, due_at, attempts, draft"
)
_KINDS: Mapping[OutboxEventKind, tuple[RecipientState, ...]] = {
    "sent": ("accepted",),
    "deferred": ("deferred",),
    "failed": ("refused",),
}
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
    found = _mails(
        connection, "WHERE identity = ? AND due_at <= ? ORDER BY due_at, number LIMIT ?", (identity, now, limit)
    )
    if len(found) < limit:  # in two steps, for either goes by the index
        found += _mails(
            connection,
            "WHERE identity = ? AND due_at > ? ORDER BY due_at, number LIMIT ?",
            (identity, now + OUTBOX_WAITS_AT_MOST // MICROSECOND, limit - len(found)),
        )
    return found


def backlog(connection: Connection) -> dict[str, OutboxBacklog]:
    rows = connection.execute(
        "SELECT identity, count(*), sum(size), min(due_at) FROM outbox WHERE due_at IS NOT NULL GROUP BY identity"
    )
    return {identity: OutboxBacklog(mails, octets, instant(at)) for identity, mails, octets, at in rows}


def waiting(connection: Connection) -> dict[str, tuple[int, datetime]]:
    rows = connection.execute(
        "SELECT identity, count(*), min(accepted_at) FROM outbox WHERE due_at IS NOT NULL GROUP BY identity"
    )
    return {identity: (mails, instant(at)) for identity, mails, at in rows}


def answered(
    connection: Connection,
    id: str,
    said: Mapping[str, tuple[RecipientState, str]],
    due_at: int | None,
    now: int,
    *,
    tell: bool = False,
) -> None:
    number, attempt = connection.execute(
        "UPDATE outbox SET due_at = ?, attempts = attempts + 1, done_at = iif(?1 IS NULL, ?, NULL) WHERE id = ? "
        "RETURNING number, attempts",
        (due_at, now, id),
    ).fetchone() or (None, 0)
    connection.executemany(
        "UPDATE outbox_recipient SET state = ?, words = ?, at = ? WHERE mail = ? AND address = ?",
        [(state, clean(words)[:500], now, number, address) for address, (state, words) in said.items()],
    )
    if tell and number is not None:
        for kind, states in _KINDS.items():
            owe(
                connection,
                number,
                kind,
                attempt,
                {to: words for to, (state, words) in said.items() if state in states},
                now,
            )


def note_draft(connection: Connection, id: str, draft: Draft | None) -> None:
    """A bounce and the customer's answer know the mail by the draft's Message-ID."""
    if draft is None:
        connection.execute("UPDATE outbox SET draft = NULL WHERE id = ?", (id,))
        return
    missed = None if draft.missed_at is None else micros(draft.missed_at)
    kept = document([clean(draft.id), clean(draft.message_id), draft.place, list(draft.recipients), missed])
    connection.execute(
        "UPDATE outbox SET draft = ?, message_id = coalesce(nullif(?, ''), message_id) WHERE id = ?",
        (kept, clean(draft.message_id), id),
    )


def _draft(kept: str | None) -> Draft | None:
    if kept is None:
        return None
    id, message_id, place, recipients, missed = undocument(kept)
    return Draft(id, message_id, place, tuple(recipients), instant_or_none(missed))


def owe(
    connection: Connection, number: int, kind: OutboxEventKind, attempt: int, said: Mapping[str, str], now: int
) -> None:
    """An event about these recipients, if there are any."""
    if said:
        words = {address: clean(one)[:500] for address, one in said.items()}
        connection.execute(
            "INSERT INTO outbox_event (mail, kind, attempt, said, at) VALUES (?, ?, ?, ?, ?)",
            (number, kind, attempt, document(words), now),
        )


def events(connection: Connection, but: Collection[str], limit: int) -> list[OutboxEvent]:
    rows = connection.execute(
        "SELECT event.number, kind, attempt, said, at, mail FROM outbox_event AS event JOIN outbox ON outbox.number = "
        "mail WHERE intake NOT IN (SELECT value FROM json_each(?)) ORDER BY event.number LIMIT ?",
        (document(sorted(but)), limit),
    ).fetchall()
    wanted = document(list({row[-1] for row in rows}))
    mails = _by_number(connection, "WHERE number IN (SELECT value FROM json_each(?))", (wanted,))
    return [
        OutboxEvent(number, kind, mails[mail], attempt, instant(at), undocument(said))
        for number, kind, attempt, said, at, mail in rows
    ]


def told(connection: Connection, numbers: Sequence[int]) -> None:
    connection.execute(
        "DELETE FROM outbox_event WHERE number IN (SELECT value FROM json_each(?))", (document(list(numbers)),)
    )


def bounced(connection: Connection, bounce: Bounce, now: int) -> None:
    """Tie a bounce to the mail whose envelope id or Message-ID it bears. Who has the mail knows these: so only who is
    said to have it can be said not to. Where it names nobody whom we wrote to, the only recipient is meant; of several,
    nobody."""
    for number, attempts in connection.execute(
        "SELECT number, attempts FROM outbox WHERE id = nullif(?1, '') UNION "
        "SELECT number, attempts FROM outbox WHERE message_id = nullif(?2, '')",
        (clean(bounce.envelope_id), clean(bounce.message_id)),
    ).fetchall():
        taken = {
            address.casefold(): address
            for (address,) in connection.execute(
                "SELECT address FROM outbox_recipient WHERE mail = ? AND state = 'accepted'", (number,)
            )
        }
        total = connection.execute("SELECT count(*) FROM outbox_recipient WHERE mail = ?", (number,)).fetchone()[0]
        said = {}
        for one in bounce.recipients:
            if one.action in ("failed", ""):
                words = one.diagnostic or one.status or "bounced"
                for named in (one.original_recipient, one.final_recipient):
                    if (address := taken.get(named.casefold())) is not None:
                        said[address] = words
        if (address := taken.get(bounce.recipient.casefold())) is not None:
            said.setdefault(address, "bounced")
        failed = not bounce.recipients or any(one.action in ("failed", "") for one in bounce.recipients)
        if not said and failed and total == len(taken) == 1:
            words = next((one.diagnostic or one.status for one in bounce.recipients), "")
            said = {next(iter(taken.values())): words or "bounced"}
        connection.executemany(
            "UPDATE outbox_recipient SET state = 'bounced', words = ?, at = ? WHERE mail = ? AND address = ?",
            [(clean(words)[:500], now, number, address) for address, words in said.items()],
        )
        owe(connection, number, "bounced", attempts, said, now)


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
    for number, attempts, addresses in connection.execute(
        "SELECT number, attempts, (SELECT json_group_object(address, 'cancelled') FROM outbox_recipient WHERE mail = "
        "outbox.number AND state IN ('waiting', 'deferred')) FROM outbox WHERE id = ? AND due_at IS NOT NULL",
        (id,),
    ).fetchall():
        owe(connection, number, "failed", attempts, undocument(addresses), now)
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
    some = (
        "SELECT number FROM outbox WHERE done_at < ? AND number NOT IN (SELECT mail FROM outbox_event) "
        "ORDER BY done_at LIMIT ?"
    )
    connection.execute(f"DELETE FROM outbox_recipient WHERE mail IN ({some})", (before, _SOME))  # noqa: S608
    return connection.execute(f"DELETE FROM outbox WHERE number IN ({some})", (before, _SOME)).rowcount  # noqa: S608


def rename(connection: Connection, former: str, name: str) -> int:
    return connection.execute(
        "UPDATE outbox SET identity = ? WHERE identity = ? AND due_at IS NOT NULL", (name, former)
    ).rowcount


def mark(connection: Connection) -> OutboxMark | None:
    row = connection.execute("SELECT identity, height, machine, place FROM outbox_mark").fetchone()
    return None if row is None else OutboxMark(*row)


def note_mark(connection: Connection, mark: OutboxMark) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO outbox_mark (one, identity, height, machine, place) VALUES (1, ?, ?, ?, ?)",
        (mark.identity, mark.height, mark.machine, clean(mark.place)),
    )


def _one(connection: Connection, where: str, values: Iterable[Any]) -> OutboxMail | None:
    return next(iter(_mails(connection, where, values)), None)


def _mails(connection: Connection, where: str, values: Iterable[Any]) -> list[OutboxMail]:
    return list(_by_number(connection, where, values).values())


def _by_number(connection: Connection, where: str, values: Iterable[Any]) -> dict[int, OutboxMail]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM outbox {where}", tuple(values)).fetchall()  # noqa: S608
    recipients: dict[int, list[OutboxRecipient]] = {row[0]: [] for row in rows}
    for number, address, state, words, at in connection.execute(
        "SELECT mail, address, state, words, at FROM outbox_recipient WHERE mail IN (SELECT value FROM json_each(?)) "
        "ORDER BY mail, number",
        (document(list(recipients)),),
    ):
        recipients[number].append(OutboxRecipient(address, state, words, instant_or_none(at)))
    return {row[0]: _mail(row, recipients[row[0]]) for row in rows}


def _mail(row: tuple[Any, ...], recipients: Iterable[OutboxRecipient]) -> OutboxMail:
    (
        _, id, intake, key, content, identity, mailbox, mid, message_id, sender, size, digest, accepted_at,
        gives_up_at, due_at, attempts, draft,
    ) = row  # fmt: skip
    return OutboxMail(
        id, intake, key or "", content, identity, mailbox, mid, message_id, sender, size, digest,
        instant(accepted_at), instant(gives_up_at), instant_or_none(due_at), attempts, tuple(recipients),
        _draft(draft),
    )  # fmt: skip
