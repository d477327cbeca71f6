"""What an operator asks of single messages: their stories, their number, and to have one once more."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from sqlite3 import Connection
from typing import Any

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import MessageGone
from mailpoller.core.identity import next_generation
from mailpoller.core.message import Folder, MessageRef
from mailpoller.core.ports import FormerOutcome, Standing, Story
from mailpoller.ledgers.sqlite import clues
from mailpoller.ledgers.sqlite.values import (
    Key,
    disposition_of,
    document,
    instant,
    instant_or_none,
    mid_octets,
    mid_text,
    sender_sum,
    undocument,
)

FORMER_KEPT = 20
"""Former outcomes of a message that are kept: the latest ones."""

_MID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


STORIES = """
SELECT mid, mailbox, name, epoch, uid, state, outcome, reason, rules, receipts, disposition, disposition_state,
    disposition_reason, size, listed, message_id, sender, repeat_of, strikes, attempts, claimed_at, due_at, settled_at,
    disposed_at, former, delivered_to
FROM {source} JOIN folder ON folder.id = message.folder
WHERE {where} ORDER BY coalesce(settled_at, claimed_at) DESC, claimed_at DESC LIMIT ?2
"""
"""What :func:`story` is made of."""


def is_mid(term: str) -> bool:
    """True if ``term`` has the shape of a mid."""
    return _MID.fullmatch(term) is not None


def trace(connection: Connection, term: str, limit: int) -> list[Story]:
    """See :meth:`Ledger.trace`. Senders are compared without case. Of a prolific sender the newest messages are
    sought among those that were settled last."""
    term = mid_of(term)
    if is_mid(term):
        keys = _candidates(connection, [clues.of_mid(term)], limit)
        rows = connection.execute(_BY_MID, (document(keys), limit, mid_octets(term)))
    else:
        hashed = sender_sum(term)
        keys = _candidates(connection, [clues.of_text(term), clues.of_text(hashed)], limit)
        keys += connection.execute(
            "SELECT folder.id, message.uid FROM folder CROSS JOIN message ON message.folder = folder.id AND "
            "message.uid = ?",
            (term,),
        ).fetchall()
        rows = connection.execute(_BY_TERM, (document(keys), limit, term, hashed))
    return [story(*row) for row in rows]


def mid_of(term: str) -> str:
    """A mid in the letters that it is kept in; any other term as it is."""
    return term.lower() if is_mid(term.lower()) else term


CONSIDERED = 1_000
"""Messages with the same Message-ID or sender that are looked at to find the newest, at least."""


def _candidates(connection: Connection, marks: list[str], limit: int) -> list[Key]:
    """Rows that may be meant: of what is settled those that the clues name, and all of what is not."""
    return clues.find(connection, marks, max(CONSIDERED, limit)) + connection.execute(_UNSETTLED).fetchall()


_UNSETTLED = """
SELECT folder, uid FROM message INDEXED BY message_due
WHERE state IN ('claimed', 'suspect', 'deferred') AND due_at IS NOT NULL
"""
# CROSS JOIN, because the planner would walk through a folder for a list of names.
KEYED = """(
    SELECT DISTINCT json_extract(value, '$[0]') AS its_folder, json_extract(value, '$[1]') AS its_uid FROM json_each(?1)
) AS wanted CROSS JOIN message ON message.folder = its_folder AND message.uid = its_uid"""
"""The messages of a list of names, ``?1``."""
_FIND = f"SELECT message.folder, message.uid FROM {KEYED} WHERE mid = ?2"  # noqa: S608
_BY_MID = STORIES.format(source=KEYED, where="mid = ?3")
_BY_TERM = STORIES.format(
    source=KEYED, where="(message.uid = ?3 OR message_id = ?3 OR sender = ?3 COLLATE NOCASE OR sender = ?4)"
)
_DEFERRED = STORIES.format(source="message", where="state = 'deferred' AND due_at IS NOT NULL AND ?1 IS NULL")


def deferred(connection: Connection) -> list[Story]:
    """The stories of all messages that are put off."""
    rows = connection.execute(_DEFERRED, (None, -1))
    return [story(*row) for row in rows]


_OWED = """
SELECT mid FROM message INDEXED BY message_due
WHERE state IN ('claimed', 'suspect', 'deferred') AND due_at IS NOT NULL
"""


def still_owed(connection: Connection, mids: Collection[str]) -> list[str]:
    """See :meth:`Ledger.still_owed`. Goes once through all that is not settled."""
    wanted = {mid_octets(mid) for mid in mids}
    return [mid_text(mid) for (mid,) in connection.execute(_OWED) if mid in wanted]


def story(
    mid: bytes,
    mailbox: str,
    folder: str,
    epoch: str,
    uid: str,
    state: str,
    outcome: str | None,
    reason: str,
    rules: str | None,
    receipts: str | None,
    disposition: str | None,
    disposition_state: str | None,
    disposition_reason: str | None,
    size: int | None,
    listed: int | None,
    message_id: str | None,
    sender: str | None,
    repeat_of: str | None,
    strikes: int,
    attempts: int,
    claimed_at: int,
    due_at: int | None,
    settled_at: int | None,
    disposed_at: int | None,
    former: str | None,
    delivered_to: str | None,
) -> Story:
    return Story(
        mid=mid_text(mid),
        mailbox=mailbox,
        folder=folder,
        epoch=epoch,
        uid=uid,
        state=state,
        outcome=outcome or "",
        reason=reason,
        rules=tuple(undocument(rules)) if rules else (),
        receipts=undocument(receipts) if receipts else {},
        disposition="" if disposition is None else describe(disposition_of(disposition)),
        disposition_state=disposition_state or "",
        disposition_reason=disposition_reason or "",
        size=listed if size is None else size,
        message_id=message_id or "",
        sender=sender or "",
        repeat_of=repeat_of,
        strikes=strikes,
        attempts=attempts,
        claimed_at=instant_or_none(claimed_at),
        # A claim's due_at is the index's business: nothing is due that is in hand.
        due_at=None if state == "claimed" else instant_or_none(due_at),
        settled_at=instant_or_none(settled_at),
        disposed_at=instant_or_none(disposed_at) if disposition_state == "applied" else None,
        former=[_former(one) for one in undocument(former)] if former else (),
        delivered_to=delivered_to or "",
    )


def _former(written: Mapping[str, Any]) -> FormerOutcome:
    """What :func:`reopen` wrote."""
    return FormerOutcome(
        settled_at=instant(written["settled_at"]),
        outcome=written["outcome"],
        reason=written["reason"],
        rules=tuple(written["rules"]),
        receipts=written["receipts"],
    )


def describe(disposition: Disposition) -> str:
    """A disposition in words, as it is written in the configuration: ``seen, move Processed``."""
    words = ["seen"] if disposition.seen else []
    words += [f"flag {flag}" for flag in disposition.flags]
    if disposition.move is not None:
        words.append(f"move {disposition.move}")
    if disposition.delete:
        words.append("delete")
    return ", ".join(words) or "leave"


def find(connection: Connection, mid: str) -> Key | None:
    """The row of a mid."""
    if not is_mid(mid):
        return None
    keys = _candidates(connection, [clues.of_mid(mid)], 1)
    row = connection.execute(_FIND, (document(keys), mid_octets(mid))).fetchone()
    return None if row is None else (row[0], row[1])


def brought(connection: Connection, key: Key, receipts: Mapping[str, str]) -> bool:
    """See :meth:`Ledger.brought`."""
    where = "WHERE folder = ? AND uid = ? AND state = 'settled'"
    row = connection.execute(f"SELECT receipts FROM message {where}", key).fetchone()  # noqa: S608
    if row is None:
        return False
    all_of_them = {**(undocument(row[0]) if row[0] else {}), **receipts}
    connection.execute(f"UPDATE message SET receipts = ? {where}", (document(all_of_them), *key))  # noqa: S608
    return True


def reopen(connection: Connection, key: Key, mid: str, now: int) -> MessageRef:
    """See :meth:`Ledger.reopen`. A deferred message keeps its generation and is due now; one in hand is left alone."""
    row = connection.execute(
        "SELECT mailbox, name, epoch, state, listed, turn = (SELECT max(turn) FROM folder AS other WHERE "
        "other.mailbox = folder.mailbox AND other.name = folder.name), settled_at, outcome, reason, rules, "
        "receipts, former, generation FROM message JOIN folder ON folder.id = message.folder WHERE folder = ? AND "
        "uid = ?",
        key,
    ).fetchone()
    if row is None:
        raise MessageGone(f"the ledger has no message {mid}")
    mailbox, name, epoch, state, listed, present, settled_at, outcome, reason, rules, receipts, former, generation = row
    if not present:
        raise MessageGone(
            f"the folder of message {mid} was renumbered or moved since: the server knows it by another uid"
        )
    if state == "settled":
        last = {
            "settled_at": settled_at,
            "outcome": outcome,
            "reason": reason,
            "rules": undocument(rules) if rules else [],
            "receipts": undocument(receipts) if receipts else {},
        }
        clues.take(connection, [key])
        kept = [*(undocument(former) if former else []), last][-FORMER_KEPT:]
        connection.execute(
            "UPDATE message SET clues = NULL, state = 'deferred', due_at = ?, generation = ?, attempts = 0, "
            "failures = 0, refusals = 0, route = NULL, absent_at = NULL, doubts = 0, doubted_at = NULL, "
            "receipts = NULL, waits_for = NULL, "
            "waiting_since = NULL, reason = 'redeliver', outcome = NULL, settled_at = NULL, disposition = NULL, "
            "disposition_state = NULL, disposition_reason = NULL, disposed_at = NULL, former = ? WHERE folder = ? "
            "AND uid = ?",
            (now, next_generation(generation), document(kept), *key),
        )
    elif state in ("deferred", "suspect"):
        connection.execute("UPDATE message SET due_at = ?, waits_for = NULL WHERE folder = ? AND uid = ?", (now, *key))
    return MessageRef(Folder(mailbox, name, epoch), key[1], listed)


def counts(connection: Connection, mailbox: str) -> Mapping[str, int]:
    """See :meth:`Ledger.counts`. What is not settled counts in the present epochs only: in a former one it is
    nobody's work."""
    (settled,) = connection.execute(
        "SELECT coalesce(sum(settled), 0) FROM folder WHERE mailbox = ?", (mailbox,)
    ).fetchone()
    open_work = dict(
        connection.execute(
            "SELECT state, count(*) FROM message INDEXED BY message_due "
            "WHERE state IN ('claimed', 'suspect', 'deferred', 'settled') AND due_at IS NOT NULL AND folder IN ("
            "SELECT id FROM folder WHERE mailbox = ?1 AND turn = (SELECT max(turn) FROM folder AS other "
            "WHERE other.mailbox = ?1 AND other.name = folder.name)) GROUP BY state",
            (mailbox,),
        )
    )
    return {
        "claimed": open_work.get("claimed", 0),
        "deferred": open_work.get("deferred", 0) + open_work.get("suspect", 0),
        "settled": settled,
        "undisposed": open_work.get("settled", 0),
    }


_PRESENT = """
SELECT id, mailbox, turn = max(turn) OVER (PARTITION BY mailbox, name), settled FROM folder
"""
_OPEN = """
SELECT folder, state, count(*) FROM message INDEXED BY message_due
WHERE state IN ('claimed', 'suspect', 'deferred', 'settled') AND due_at IS NOT NULL GROUP BY state, folder
"""
# What was left out at first waits from when it was asked for: 65536 is BACKFILLED.
_OLDEST = """
SELECT folder, min(iif(generation = 65536, claimed_at, coalesce(received * 1000000, claimed_at)))
FROM message INDEXED BY message_due
WHERE state IN ('claimed', 'suspect', 'deferred') AND due_at IS NOT NULL GROUP BY folder
"""
_COLUMN = {"claimed": "claimed", "suspect": "deferred", "deferred": "deferred", "settled": "undisposed"}


def standings(connection: Connection) -> dict[str, Standing]:
    """See :meth:`Ledger.standings`; as :func:`counts` has them."""
    folders = connection.execute(_PRESENT).fetchall()
    present = {number: mailbox for number, mailbox, now, _ in folders if now}
    counted: dict[str, Counter[str]] = {mailbox: Counter() for _, mailbox, _, _ in folders}
    for _, mailbox, _, settled in folders:
        counted[mailbox]["settled"] += settled
    for number, state, count in connection.execute(_OPEN):
        if number in present:
            counted[present[number]][_COLUMN[state]] += count
    return {mailbox: Standing(**counts) for mailbox, counts in counted.items()}


def oldest(connection: Connection) -> dict[str, datetime]:
    """See :meth:`Ledger.oldest`."""
    present = {number: mailbox for number, mailbox, now, _ in connection.execute(_PRESENT) if now}
    found: dict[str, int] = {}
    for number, since in connection.execute(_OLDEST):
        if number in present:
            mailbox = present[number]
            found[mailbox] = min(since, found.get(mailbox, since))
    return {mailbox: instant(since) for mailbox, since in found.items()}
