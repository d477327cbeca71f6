"""Messages that are worked on: claimed, suspect, due again, at risk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from sqlite3 import Connection
from typing import Any

from mailpoller.core.delivery import Held, Question, Settlement
from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Claim, MessageRef
from mailpoller.core.seals.ledger import SealedSettlement
from mailpoller.ledgers.sqlite.bearers import (
    LATEST_DUE,
    carry_over,
    contradicts,
    learn,
    named,
    succeed,
)
from mailpoller.ledgers.sqlite.folders import Known
from mailpoller.ledgers.sqlite.values import (
    MICROSECOND,
    Key,
    by_folder,
    disposition_of,
    document,
    instant,
    instant_or_none,
    mid_text,
    seconds,
    undocument,
)

Keyed = Sequence[tuple[Known, MessageRef]]


def suspect_open_claims(connection: Connection, now: int) -> tuple[int, int]:
    """What a process left claimed when it died becomes suspect, with a strike if it was at risk: how many, and how
    many of them were struck. What it had settled and not heard of the server is due at once."""
    (struck,) = connection.execute(
        "SELECT count(*) FROM message WHERE state = 'claimed' AND due_at IS NOT NULL AND at_risk = 1"
    ).fetchone()
    suspects = connection.execute(
        "UPDATE message SET state = 'suspect', suspect = 1, strikes = strikes + at_risk, at_risk = 0, due_at = ? "
        "WHERE state = 'claimed' AND due_at IS NOT NULL",
        (now,),
    ).rowcount
    connection.execute(
        "UPDATE message SET due_at = ?1 "
        "WHERE state = 'settled' AND due_at IS NOT NULL AND due_at > ?1 AND disposition_state = 'pending'",
        (now,),
    )
    return suspects, struck


def claim(
    connection: Connection, refs: Keyed, open_claims: Collection[Key], now: int
) -> tuple[list[Claim | Held | Settlement | Question], list[Key]]:
    """The answers, and the keys of those that were claimed. ``open_claims`` are in this process's hands already; a row
    that is claimed without being among them was claimed by a commit whose caller never heard of it."""
    rows = _all_rows(connection, refs, now)
    answers: list[Claim | Held | Settlement | Question] = []
    taken: dict[Key, Claim] = {}
    news: defaultdict[Known, list[MessageRef]] = defaultdict(list)
    for known, ref in refs:
        key = (known.id, ref.uid)
        row = rows.get(key)
        if key in taken or (row is not None and row[2] == "claimed" and key in open_claims):
            answers.append(Held(ref, instant(now), "claimed"))
            continue
        answer = _claim_new(known, ref) if row is None else _claim_known(ref, row, now)
        answers.append(answer)
        if isinstance(answer, Claim):
            taken[key] = answer
        elif row is not None and not isinstance(answer, Question) and _tells_more(row, ref):
            news[known].append(ref)
    for known, several in news.items():
        learn(connection, known, several)
    told: defaultdict[int, list[Claim]] = defaultdict(list)
    for (number, _), claimed in taken.items():
        told[number].append(claimed)
    for number, claims in told.items():
        mids = bytes.fromhex("".join([one.mid for one in claims]).replace("-", ""))
        connection.execute(_CLAIM, (named([one.ref for one in claims]), mids, now, number))
    return answers, list(taken)


_CLAIM = """
INSERT INTO message (folder, uid, listed, received, mid, state, due_at, claimed_at)
SELECT ?4, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    substr(?2, 1 + 16 * key, 16), 'claimed', ?3, ?3
FROM json_each(?1) WHERE TRUE
ON CONFLICT (folder, uid) DO UPDATE SET state = 'claimed', due_at = ?3, claimed_at = ?3, at_risk = 0,
    plain_id = iif(excluded.listed <> listed AND length(uid) <= 70, 0, plain_id),
    listed = coalesce(excluded.listed, listed), received = coalesce(excluded.received, received)
"""

_Row = Sequence[Any]

# Three of the last five: see bearers.recognise().
_ROWS = """
SELECT json_group_array(json_array(folder, uid, state, due_at, hex(mid), suspect, strikes, route, receipts, generation,
    attempts, outcome, disposition, listed, received, hex(identity), absent_at, doubts, doubted_at, bearer, plain_id,
    disposition_state,
    iif(outcome = 'skipped' AND identity IS NULL, settled_at, NULL), iif(identity IS NULL AND state = 'settled',
    message_id, NULL),
    identity IS NULL AND received IS NULL AND state = 'settled' AND disposition_state = 'applied'
        AND coalesce(disposition ->> '$.delete' OR disposition ->> '$.move' IS NOT NULL, 0), blame, waits_for,
    failures, refusals, conversation))
FROM message WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2))
"""


def _all_rows(connection: Connection, refs: Keyed, now: int) -> dict[Key, _Row]:
    """What is recorded of the refs, once all that stands under another numbering or another bearer is put right."""
    rows = _rows(connection, refs)
    if not rows and all(known.predecessor is None for known, _ in refs):
        return rows
    again: list[tuple[Known, MessageRef]] = []
    for known in {known for known, _ in refs}:
        missing = [
            ref for one, ref in refs
            if one == known and known.predecessor is not None and (known.id, ref.uid) not in rows
        ]  # fmt: skip
        if carry_over(connection, known, missing, now):
            again += [(known, ref) for ref in missing]
        if free := [ref for one, ref in refs if one == known and _is_free(rows.get((known.id, ref.uid)))]:
            succeed(connection, known, free[0].folder.mailbox, free[0].folder.name, free, now)
            again += [(known, ref) for ref in free]
    return rows | _rows(connection, again) if again else rows


def _is_free(row: _Row | None) -> bool:
    """A whole listing lacked the name after its message was deleted."""
    if row is None or row[2] != "settled" or row[16] is None or row[21] != "applied":
        return False
    return disposition_of(row[12]).delete


def _tells_more(row: _Row, ref: MessageRef) -> bool:
    """The listing tells what is not known of the bearer, or has corrected it."""
    listed, received = row[13], row[14]
    return (ref.size is not None and ref.size != listed) or (
        ref.received is not None and seconds(ref.received) != received
    )


def _rows(connection: Connection, refs: Keyed) -> dict[Key, _Row]:
    """What is recorded of the refs, in one read for each folder among them."""
    uids = by_folder((known.id, ref.uid) for known, ref in refs)
    rows: dict[Key, _Row] = {}
    for number, wanted in uids.items():
        (found,) = connection.execute(_ROWS, (number, document(wanted))).fetchone()
        rows.update(((row[0], row[1]), row) for row in undocument(found))
    return rows


def _claim_new(known: Known, ref: MessageRef) -> Claim:
    return Claim(ref, mint_mid(ref.folder.mailbox, ref.folder.name, known.epoch, ref.uid))


def _claim_known(ref: MessageRef, row: _Row, now: int) -> Claim | Held | Settlement | Question:
    (
        _, _, state, due_at, mid, suspect, strikes, route, receipts, generation, attempts, outcome, disposition,
        listed, received, identity, absent_at, doubts, doubted_at, bearer, plain_id, _, left_out_at, message_id,
        removed, blame, waits_for, failures, refusals, conversation,
    ) = row  # fmt: skip
    waits = due_at is not None and now < due_at <= now + LATEST_DUE // MICROSECOND
    witnessed = identity or message_id or left_out_at is not None
    if witnessed and (removed or contradicts(listed, received, ref)):
        known = mid_text(bytes.fromhex(mid))
        return Question(ref, known, bytes.fromhex(identity or ""), instant_or_none(left_out_at), message_id or "")
    if state == "settled" and due_at is not None and not waits:
        return SealedSettlement(ref, mid_text(bytes.fromhex(mid)), outcome, disposition_of(disposition))
    if state == "settled":
        return Held(ref, instant(now if due_at is None else due_at), "settled")
    if state in ("deferred", "suspect") and waits:
        return Held(ref, instant(due_at), "deferred")
    return Claim(
        ref,
        mid_text(bytes.fromhex(mid)),
        suspect=bool(suspect),
        strikes=strikes,
        route=None if route is None else tuple(undocument(route)),
        receipts=None if receipts is None else undocument(receipts),
        generation=generation,
        attempts=attempts,
        failures=failures,
        refusals=refusals,
        identity=bytes.fromhex(identity) if identity else None,
        absent_at=instant_or_none(absent_at),
        doubts=doubts,
        doubted_at=instant_or_none(doubted_at),
        bearer=bearer,
        plain_id=bool(plain_id),
        blame=blame,
        waits_for=waits_for,
        conversation=conversation,
    )


def suspects(
    connection: Connection, known: Known, limit: int, down: Collection[str], now: int
) -> list[tuple[str, int | None]]:
    """At most ``limit`` pairs of uid and listed size, in the order of :meth:`Ledger.suspects`."""
    latest = now + LATEST_DUE // MICROSECOND
    (found,) = connection.execute(_SUSPECTS, (known.id, now, document(list(down)), limit, latest)).fetchone()
    return [(uid, listed) for uid, listed in undocument(found)]


_SUSPECTS = """
SELECT json_group_array(json_array(uid, listed)) FROM (
    SELECT uid, listed FROM message
    WHERE state = 'suspect' AND folder = ?1 AND (due_at <= ?2 OR due_at > ?5)
        AND (waits_for IS NULL OR waits_for NOT IN (SELECT value FROM json_each(?3)))
    ORDER BY strikes, due_at LIMIT ?4
)
"""


def due(
    connection: Connection, known: Known, limit: int, down: Collection[str], open_claims: Collection[Key], now: int
) -> list[tuple[str, int | None]]:
    """At most ``limit`` pairs of uid and listed size, in the order of :meth:`Ledger.due`."""
    found = _due_in(connection, known, "settled", now, limit)
    # Claims whose caller never heard of them: see claim().
    orphans: list[tuple[str, int | None]] = []
    if len(found) < limit:
        # Counted in the index alone: while hundreds are in hand, to look at each of them at every call would cost
        # more than a claim.
        (claimed,) = connection.execute(_CLAIMED, (known.id,)).fetchone()
        if claimed and claimed > sum(number == known.id for number, _ in open_claims):
            orphans = _due_in(connection, known, "claimed", now, limit + len(open_claims))
    found += [row for row in orphans if (known.id, row[0]) not in open_claims][: limit - len(found)]
    found += _due_in(connection, known, "deferred", now, limit - len(found), down)
    return found


_CLAIMED = """
SELECT count(*) FROM message INDEXED BY message_due WHERE state = 'claimed' AND folder = ? AND due_at IS NOT NULL
"""


def _due_in(
    connection: Connection, known: Known, state: str, now: int, limit: int, down: Collection[str] = ()
) -> list[tuple[str, int | None]]:
    if limit <= 0:
        return []
    names = document(list(down))
    (found,) = connection.execute(_DUE, (state, known.id, 0, now, names, limit)).fetchone()
    rows = undocument(found)
    if len(rows) < limit:
        # Put off by a clock that was ahead.
        latest = now + LATEST_DUE // MICROSECOND
        (found,) = connection.execute(_DUE, (state, known.id, latest, _FOR_EVER, names, limit - len(rows))).fetchone()
        rows += undocument(found)
    return [(uid, listed) for uid, listed in rows]


_FOR_EVER = 1 << 62

# The index alone answers the inner query: a queue that is down may have 100,000 messages waiting, to be passed over.
_DUE = """
SELECT json_group_array(json_array(message.uid, listed)) FROM (
    SELECT folder, uid FROM message
    WHERE state = ?1 AND folder = ?2 AND due_at > ?3 AND due_at <= ?4
        AND (waits_for IS NULL OR waits_for NOT IN (SELECT value FROM json_each(?5)))
    ORDER BY due_at LIMIT ?6
) AS due CROSS JOIN message ON message.folder = due.folder AND message.uid = due.uid
"""


def at_risk(connection: Connection, key: Key) -> None:
    connection.execute("UPDATE message SET at_risk = 1 WHERE folder = ? AND uid = ? AND state = 'claimed'", key)


def cleared(connection: Connection, key: Key) -> None:
    connection.execute("UPDATE message SET suspect = 0, strikes = 0, at_risk = 0 WHERE folder = ? AND uid = ?", key)
