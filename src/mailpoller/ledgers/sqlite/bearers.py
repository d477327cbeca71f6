"""Who bears a name: what was said beside it, what is said now, and what becomes of both when they differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from sqlite3 import Connection

from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Claim, MessageRef
from mailpoller.core.ports import Heirless, Sight
from mailpoller.ledgers.sqlite import clues
from mailpoller.ledgers.sqlite.folders import Known, earlier_epochs
from mailpoller.ledgers.sqlite.values import (
    document,
    instant_of_seconds,
    instant_or_none,
    mid_octets,
    mid_text,
    seconds,
    undocument,
)

LATEST_DUE = timedelta(days=1, hours=1)
"""Nothing waits for longer than this: what is due later was put off by a clock that was ahead."""

Named = tuple[str, int | None, int | None]
"""Uid, size as listed, date in seconds."""


def contradicts(listed: int | None, received: int | None, ref: MessageRef) -> bool:
    """Size or date is another, of what both looks told."""
    if ref.size is not None and listed is not None and ref.size != listed:
        return True
    return ref.received is not None and received is not None and seconds(ref.received) != received


def named(refs: Iterable[MessageRef]) -> str:
    """The names with what is said beside them, as JSON."""
    return document([(ref.uid, ref.size, None if ref.received is None else seconds(ref.received)) for ref in refs])


def former_name(uid: str, bearer: int) -> str:
    """The name that what is known of a former bearer is kept under. No server gives it."""
    return f"{uid} (bearer {bearer})"


FORMER_NAMES = "% (bearer %)"


def recognise(connection: Connection, known: Known, refs: Sequence[MessageRef]) -> list[Sight]:
    """See :meth:`Ledger.recognise`; what has no date yet is for :func:`learn`."""
    (found,) = connection.execute(_RECOGNISE, (known.id, document([ref.uid for ref in refs]))).fetchone()
    rows = {row[0]: row[1:] for row in undocument(found)}
    sights = []
    for ref in refs:
        row = rows.get(ref.uid)
        if row is None:
            sights.append(Sight(ref, "unknown"))
            continue
        listed, received, mid, identity, is_open, left_out_at, message_id, removed = row
        witnessed = bool(identity or message_id) or left_out_at is not None
        asked = witnessed and (bool(removed) or contradicts(listed, received, ref))
        sights.append(
            Sight(
                ref,
                "question" if asked else "same",
                mid_text(bytes.fromhex(mid)),
                bytes.fromhex(identity) if identity else None,
                bool(is_open),
                instant_or_none(left_out_at),
                message_id or "",
            )
        )
    return sights


# Of messages without an identity: when they were left out unread; the Message-ID of one that an earlier version
# fetched; and whether that version moved or deleted it, so that it should not be there.
_RECOGNISE = """
SELECT json_group_array(json_array(uid, listed, received, hex(mid), hex(identity), due_at IS NOT NULL,
    iif(outcome = 'skipped' AND identity IS NULL, settled_at, NULL), iif(identity IS NULL AND state = 'settled',
    message_id, NULL),
    identity IS NULL AND received IS NULL AND state = 'settled' AND disposition_state = 'applied'
        AND coalesce(disposition ->> '$.delete' OR disposition ->> '$.move' IS NOT NULL, 0)))
FROM message WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2))
"""


def learn(connection: Connection, known: Known, refs: Sequence[MessageRef]) -> None:
    """The bearers are those we know: size and date are these from now on."""
    connection.execute(_LEARN, (known.id, named(refs)))


_LEARN = """
UPDATE message SET listed = coalesce(seen.listed, message.listed), received = coalesce(seen.received, message.received),
    -- Of what an earlier version was killed with no more than the size is known: of another size, it is perhaps
    -- another message. Longer
    -- names (RFC 1939 section 7) no server gives twice, and those services estimate.
    plain_id = iif(seen.listed <> message.listed AND length(message.uid) <= 70, 0, plain_id)
FROM (
    SELECT ?1 + 0 * key AS folder, json_extract(value, '$[0]') AS uid, json_extract(value, '$[1]') AS listed,
        json_extract(value, '$[2]') AS received
    FROM json_each(?2)
) AS seen
WHERE message.folder = seen.folder AND message.uid = seen.uid
    AND (seen.listed IS NOT message.listed OR seen.received IS NOT message.received)
"""


def succeed(
    connection: Connection, known: Known, mailbox: str, name: str, refs: Sequence[MessageRef], now: int
) -> None:
    """Other messages bear these names now: what is known of the former bearers is kept aside, and the new ones are
    due."""
    for ref in refs:
        row = connection.execute(
            "SELECT bearer, state FROM message WHERE folder = ? AND uid = ?", (known.id, ref.uid)
        ).fetchone()
        if row is None:
            continue
        bearer, state = row
        aside = former_name(ref.uid, bearer)
        clues.take(connection, [(known.id, ref.uid)])
        connection.execute(_ASIDE_SETTLED if state == "settled" else _ASIDE_UNSETTLED, (known.id, ref.uid, aside, now))
        clues.put(connection, [(known.id, aside)])
        mid = mint_mid(mailbox, name, known.epoch, ref.uid, bearer + 1)
        connection.execute(
            "INSERT INTO message (folder, uid, listed, received, mid, state, due_at, claimed_at, bearer) "
            "VALUES (?1, ?2, ?3, ?4, ?5, 'deferred', ?6, ?6, ?7)",
            (known.id, ref.uid, ref.size, seconds(ref.received), mid_octets(mid), now, bearer + 1),
        )


# A disposition that is still owed is owed to nobody: the name is another message's.
_ASIDE_SETTLED = """
UPDATE message SET uid = ?3, absent_at = coalesce(absent_at, ?4),
    disposition_reason = iif(due_at IS NULL, disposition_reason, 'another message bears its name'),
    disposition_state = iif(due_at IS NULL, disposition_state, 'failed'), due_at = NULL
WHERE folder = ?1 AND uid = ?2
"""
_ASIDE_UNSETTLED = """
UPDATE message SET uid = ?3, absent_at = coalesce(absent_at, ?4), state = 'settled', outcome = 'gone', settled_at = ?4,
    reason = 'another message bears its name', due_at = NULL, waits_for = NULL, waiting_since = NULL, at_risk = 0,
    blame = 0,
    receipts = coalesce(receipts, '{}'), disposition = '{}', disposition_state = 'applied', disposed_at = ?4
WHERE folder = ?1 AND uid = ?2
"""


def carry_over(connection: Connection, known: Known, refs: Sequence[MessageRef], now: int) -> bool:
    """Messages that a numbering shows which follows one that was set back, under the same name, with the same size
    and the same date, are those that we know. What was moved or deleted and is there again is owed that once more.
    True if there were any."""
    if known.predecessor is None or not refs:
        return False
    carried = [uid for (uid,) in connection.execute(_CARRIED, (known.predecessor, known.id, named(refs))).fetchall()]
    if not carried:
        return False
    clues.take(connection, [(known.predecessor, uid) for uid in carried])
    connection.execute(_CARRY_OVER, (known.predecessor, known.id, document(carried), now))
    clues.put(connection, [(known.id, uid) for uid in carried])
    return True


_CARRIED = """
SELECT message.uid FROM (
    SELECT ?1 + 0 * key AS folder, json_extract(value, '$[0]') AS uid, json_extract(value, '$[1]') AS listed,
        json_extract(value, '$[2]') AS received
    FROM json_each(?3)
) AS seen CROSS JOIN message
WHERE message.folder = seen.folder AND message.uid = seen.uid AND message.listed = seen.listed
    AND message.received = seen.received AND state <> 'claimed'
    AND NOT EXISTS (SELECT 1 FROM message AS there WHERE there.folder = ?2 AND there.uid = message.uid)
"""
_CARRY_OVER = """
UPDATE message SET folder = ?2, absent_at = NULL,
    due_at = iif(disposition_state = 'applied'
    AND (disposition ->> '$.delete' OR disposition ->> '$.move' IS NOT NULL), ?4, due_at),
    disposition_state = iif(disposition_state = 'applied'
    AND (disposition ->> '$.delete' OR disposition ->> '$.move' IS NOT NULL),
        'pending', disposition_state)
WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?3)) AND state <> 'claimed'
"""


def heirless(connection: Connection, known: Known, limit: int, *, earlier: bool) -> list[Heirless]:
    rows = connection.execute(_VANISHED_SUSPECTS, (known.id, limit)).fetchall()
    for number in earlier_epochs(connection, known) if earlier else ():
        rows += connection.execute(_LEFT_BEHIND, (number, limit - len(rows)))
    return [
        Heirless(number, uid, mid_text(mid), identity, listed, instant_of_seconds(received), generation)
        for number, uid, mid, identity, listed, received, generation in rows
    ]


# An id of before there were identities would not tell one message from another.
_VANISHED_SUSPECTS = """
SELECT folder, uid, mid, identity, listed, received, generation FROM message
WHERE state = 'suspect' AND folder = ? AND due_at IS NOT NULL AND absent_at IS NOT NULL AND NOT plain_id LIMIT ?
"""
_LEFT_BEHIND = """
SELECT folder, uid, mid, identity, listed, received, generation FROM message
WHERE state IN ('suspect', 'deferred') AND folder = ? AND due_at IS NOT NULL AND NOT plain_id
    AND (state = 'suspect' OR receipts IS NOT NULL AND identity IS NOT NULL) LIMIT ?
"""


def inherit(connection: Connection, known: Known, claim: Claim, former: Heirless, now: int) -> Claim:
    """See :meth:`Ledger.inherit`. The two rows change mids, so that none is borne twice."""
    row = connection.execute(
        "SELECT route, receipts, generation FROM message WHERE folder = ?1 AND uid = ?2 AND mid = ?3 AND state IN "
        "('suspect', 'deferred')",
        (former.number, former.uid, mid_octets(former.mid)),
    ).fetchone()
    if row is None:
        return claim
    route, receipts, generation = row
    connection.execute(_GIVEN_UP, (former.number, former.uid, mid_octets(claim.mid), now))
    connection.execute(
        "UPDATE message SET mid = ?3, route = ?4, receipts = ?5, generation = ?6 WHERE folder = ?1 AND uid = ?2",
        (known.id, claim.ref.uid, mid_octets(former.mid), route, receipts, generation),
    )
    return replace(
        claim,
        mid=former.mid,
        route=None if route is None else tuple(undocument(route)),
        receipts=None if receipts is None else undocument(receipts),
        generation=generation,
    )


_GIVEN_UP = """
UPDATE message SET mid = ?3, state = 'settled', outcome = 'gone', settled_at = ?4,
    reason = 'it has another name now', due_at = NULL,
    waits_for = NULL, waiting_since = NULL, at_risk = 0, suspect = 0, strikes = 0, blame = 0,
    absent_at = coalesce(absent_at, ?4),
    route = NULL, receipts = NULL, mark = NULL, fingerprint = NULL, disposition = '{}',
    disposition_state = 'applied', disposed_at = ?4
WHERE folder = ?1 AND uid = ?2
"""


# --- absence ---------------------------------------------------------------------------------------------------------
def absences(connection: Connection, known: Known) -> tuple[int, int]:
    """How many of the unsettled messages are absent, and how many there are."""
    absent, total = connection.execute(
        "SELECT coalesce(sum(absent_at IS NOT NULL), 0), count(*) FROM message "
        "WHERE state IN ('claimed', 'suspect', 'deferred') AND folder = ? AND due_at IS NOT NULL",
        (known.id,),
    ).fetchone()
    if not absent:
        connection.execute(
            "UPDATE folder SET absence_accepted_at = NULL WHERE id = ? AND absence_accepted_at IS NOT NULL", (known.id,)
        )
    return absent, total


def unsettled(connection: Connection, known: Known, limit: int) -> list[Named]:
    rows = connection.execute(
        "SELECT uid, listed, received FROM message WHERE state IN ('deferred', 'suspect') AND folder = ? "
        "AND due_at IS NOT NULL LIMIT ?",
        (known.id, limit),
    )
    return list(rows)


def lost(connection: Connection, known: Known, limit: int, turn: int) -> list[Named]:
    if turn:
        (count,) = connection.execute(f"SELECT count(*) {_LOST}", (known.id,)).fetchone()
        turn %= count or 1
    rows = connection.execute(
        f"SELECT uid, listed, received {_LOST} ORDER BY settled_at DESC LIMIT ? OFFSET ?", (known.id, limit, turn)
    )
    return list(rows)


_LOST = """
FROM message INDEXED BY message_lost
WHERE folder = ? AND (outcome = 'gone' AND (receipts IS NULL OR reason = '') OR outcome = 'doubtful')
"""


def revive(connection: Connection, known: Known, refs: Sequence[MessageRef], now: int) -> int:
    revived = [uid for (uid,) in connection.execute(_REVIVED, (known.id, named(refs))).fetchall()]
    if revived:
        clues.take(connection, [(known.id, uid) for uid in revived])
        connection.execute(_REVIVE, (known.id, named(refs), now))
    return len(revived)


_REVIVE = """
UPDATE message SET clues = NULL, state = 'deferred', due_at = ?3, outcome = NULL, settled_at = NULL, disposition = NULL,
    disposition_state = NULL, disposed_at = NULL, reason = 'it is there again', waits_for = NULL, absent_at = NULL,
    waiting_since = NULL,
    attempts = 0, failures = 0, refusals = 0, doubts = 0, doubted_at = NULL,
    listed = coalesce(seen.listed, message.listed), received = coalesce(seen.received, message.received)
FROM (
    SELECT ?1 + 0 * key AS folder, json_extract(value, '$[0]') AS uid, json_extract(value, '$[1]') AS listed,
        json_extract(value, '$[2]') AS received
    FROM json_each(?2)
) AS seen
WHERE message.folder = seen.folder AND message.uid = seen.uid AND state = 'settled'
    AND (outcome = 'gone' AND (receipts IS NULL OR reason = '')
        OR outcome = 'doubtful' AND (seen.listed <> message.listed OR seen.received <> message.received))
"""
_REVIVED = """
SELECT message.uid FROM (
    SELECT ?1 + 0 * key AS folder, json_extract(value, '$[0]') AS uid, json_extract(value, '$[1]') AS listed,
        json_extract(value, '$[2]') AS received
    FROM json_each(?2)
) AS seen CROSS JOIN message
WHERE message.folder = seen.folder AND message.uid = seen.uid AND state = 'settled'
    AND (outcome = 'gone' AND (receipts IS NULL OR reason = '')
        OR outcome = 'doubtful' AND (seen.listed <> message.listed OR seen.received <> message.received))
"""


# --- blame -----------------------------------------------------------------------------------------------------------
def blame(connection: Connection, known: Known, uids: Sequence[str], more: bool, now: int) -> None:
    """Count a lost session more, or none any more."""
    connection.execute(
        "UPDATE message SET blame = iif(?3, blame + 1, 0), "
        "waiting_since = iif(?3, coalesce(waiting_since, ?4), waiting_since) "
        "WHERE folder = ?1 AND state <> 'settled' AND uid IN (SELECT value FROM json_each(?2))",
        (known.id, document(list(uids)), more, now),
    )


def blamed(connection: Connection, known: Known) -> list[tuple[str, int | None, int]]:
    rows = connection.execute(
        "SELECT uid, listed, blame FROM message INDEXED BY message_blamed "
        "WHERE folder = ? AND blame > 0 AND state <> 'settled' ORDER BY blame DESC",
        (known.id,),
    )
    return list(rows)
