"""Messages on their way: claimed, put off, given back, settled, disposed of.

A batch goes in as one JSON document and one statement, and comes out as one row. ``executemany`` would be as fast in an
idle process; but sqlite3 lets go of the interpreter's lock for every row and has to win it back, which takes up to 5 ms
each while the event loop is busy parsing mail.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from sqlite3 import Connection
from typing import Any

from mailpoller.core.delivery import Disposed, Held, Outcome, Question, Settlement
from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Claim, MessageRef
from mailpoller.core.ports import Traits
from mailpoller.core.seals.ledger import SealedSettlement
from mailpoller.ledgers.sqlite import clues
from mailpoller.ledgers.sqlite.bearers import (
    FORMER_NAMES,
    LATEST_DUE,
    carry_over,
    contradicts,
    learn,
    named,
    succeed,
)
from mailpoller.ledgers.sqlite.folders import Known, earlier_epochs
from mailpoller.ledgers.sqlite.values import (
    MICROSECOND,
    clean,
    disposition_of,
    disposition_text,
    document,
    instant,
    instant_or_none,
    mark,
    mid_text,
    seconds,
    undocument,
)

Key = tuple[int, str]
"""A message's row: folder id and uid."""
Keyed = Sequence[tuple[Known, MessageRef]]

FAILED_AGAIN = timedelta(days=1)
"""A disposition that cannot succeed as configured is tried again this seldom."""
PENDING_AGAIN = timedelta(minutes=1)
"""A disposition of which nothing is known is tried again this soon."""


def suspect_open_claims(connection: Connection, now: int) -> tuple[int, int]:
    """What a process left claimed when it died becomes suspect, with a strike if it was at risk: how many, and how many
    of them were struck. What it had settled and not heard of the server is due at once."""
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
    iif(outcome = 'skipped' AND identity IS NULL, settled_at, NULL), iif(identity IS NULL AND state = 'settled', message_id, NULL),
    identity IS NULL AND received IS NULL AND state = 'settled' AND disposition_state = 'applied'
        AND coalesce(disposition ->> '$.delete' OR disposition ->> '$.move' IS NOT NULL, 0), blame, waits_for))
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
    uids = _by_folder((known.id, ref.uid) for known, ref in refs)
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
        listed, received, identity, absent_at, doubts, doubted_at, bearer, plain_id, _, left_out_at, message_id, removed,
        blame, waits_for,
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
        identity=bytes.fromhex(identity) if identity else None,
        absent_at=instant_or_none(absent_at),
        doubts=doubts,
        doubted_at=instant_or_none(doubted_at),
        bearer=bearer,
        plain_id=bool(plain_id),
        blame=blame,
        waits_for=waits_for,
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
        # Counted in the index alone: while hundreds are in hand, to look at each of them at every call would cost more than a claim.
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


def settle(connection: Connection, outcomes: Sequence[tuple[Key, Outcome]], now: int) -> bool:
    """True if every outcome was recorded; False if a claim among them is not recorded (any more)."""
    if any(len(outcome.fingerprint or NO_FINGERPRINT) != FINGERPRINT_OCTETS for _, outcome in outcomes):
        raise ValueError("a fingerprint is the 32 octets of a SHA-256")
    # What a batch has in common is said once: to take it out of each row's JSON would cost as much as the rest.
    alike: defaultdict[tuple[Any, ...], list[tuple[str, Outcome]]] = defaultdict(list)
    for (number, uid), outcome in outcomes:
        alike[number, outcome.disposition, outcome.kind, outcome.reason, outcome.rules].append((uid, outcome))
    settled = 0
    for (number, disposition, kind, reason, rules), several in alike.items():
        rows = document([_settled(uid, outcome) for uid, outcome in several])
        fingerprints = b"".join([outcome.fingerprint or NO_FINGERPRINT for _, outcome in several])
        identities = b"".join([outcome.identity or NO_IDENTITY for _, outcome in several])
        # What was settled now is on its way to the server: it is due only if no word of it comes.
        due_at = None if disposition.leaves else now + PENDING_AGAIN // MICROSECOND
        batch = clues.add(connection, number, [uid for uid, _ in several])
        settled += connection.execute(
            _SETTLE,
            (
                rows,
                fingerprints,
                number,
                now,
                due_at,
                "applied" if disposition.leaves else "pending",
                now if disposition.leaves else None,
                disposition_text(disposition),
                kind,
                clean(reason),
                document(rules) if rules else None,
                identities,
                batch,
            ),
        ).rowcount
    return settled == len({key for key, _ in outcomes})


FINGERPRINT_OCTETS = 32
NO_FINGERPRINT = bytes(FINGERPRINT_OCTETS)
"""Stands where there is none, so that the others are found by their number."""
IDENTITY_OCTETS = 16
NO_IDENTITY = bytes(IDENTITY_OCTETS)
"""The same."""

_SETTLE = """
UPDATE message SET state = 'settled', at_risk = 0, waits_for = NULL, waiting_since = NULL, settled_at = ?4, due_at = ?5,
    disposition_state = ?6, disposed_at = ?7, disposition_reason = NULL, disposition = ?8,
    outcome = ?9, reason = ?10, rules = ?11, receipts = new.receipts,
    -- A message that is gone when it is to be brought again is still the one that was known.
    mark = coalesce(new.mark, message.mark), fingerprint = coalesce(new.fingerprint, message.fingerprint),
    size = coalesce(new.size, message.size), message_id = coalesce(new.message_id, message.message_id),
    sender = coalesce(new.sender, message.sender), repeat_of = coalesce(new.repeat_of, message.repeat_of),
    identity = coalesce(new.identity, message.identity), received = coalesce(new.received, message.received), blame = 0,
    absent_at = iif(?9 = 'gone', absent_at, NULL), clues = ?13
FROM (
    -- A folder that were a constant would make the planner walk through all of it.
    SELECT ?3 + 0 * key AS folder, json_extract(value, '$[0]') AS uid,
        json_extract(value, '$[1]') AS receipts, json_extract(value, '$[2]') AS mark,
        iif(json_extract(value, '$[2]') IS NULL, NULL, substr(?2, 1 + 32 * key, 32)) AS fingerprint,
        json_extract(value, '$[3]') AS size, json_extract(value, '$[4]') AS message_id,
        json_extract(value, '$[5]') AS sender, json_extract(value, '$[6]') AS repeat_of,
        json_extract(value, '$[7]') AS received, iif(json_extract(value, '$[8]'), substr(?12, 1 + 16 * key, 16), NULL) AS identity
    FROM json_each(?1)
) AS new
WHERE message.folder = new.folder AND message.uid = new.uid
"""


def _settled(uid: str, outcome: Outcome) -> tuple[Any, ...]:
    return (
        uid,
        outcome.receipts or None,
        None if outcome.fingerprint is None else mark(outcome.fingerprint),
        outcome.size,
        clean(outcome.message_id) or None,
        clean(outcome.sender) or None,
        outcome.repeat_of,
        seconds(outcome.received),
        outcome.identity is not None,
    )


def defer(
    connection: Connection,
    keys: Sequence[Key],
    *,
    until: int,
    reason: str,
    queue: str | None,
    route: Sequence[str] | None,
    receipts: Mapping[str, str] | None,
    traits: Sequence[Traits | None],
    cause: str,
    now: int,
) -> None:
    rows = [(*key, *_traits(known)) for key, known in zip(keys, traits, strict=True)]
    connection.execute(
        _DEFER,
        (
            document(rows),
            until,
            clean(reason),
            queue,
            None if route is None else document(list(route)),
            None if receipts is None else document(dict(receipts)),
            cause,
            now,
            b"".join([NO_IDENTITY if known is None else known.identity or NO_IDENTITY for known in traits]),
            b"".join([NO_FINGERPRINT if known is None else known.fingerprint or NO_FINGERPRINT for known in traits]),
        ),
    )


def _traits(traits: Traits | None) -> tuple[Any, ...]:
    if traits is None:
        return (None,) * 6
    return (
        traits.identity is not None or None,
        seconds(traits.received),
        traits.size,
        clean(traits.message_id) or None,
        clean(traits.sender) or None,
        None if traits.fingerprint is None else mark(traits.fingerprint),
    )


# What was missed or doubted first by a clock that was ahead, was so now.
# A claim that was settled by a commit whose caller never heard of it stays settled; a suspect without a verdict, suspect.
_DEFER = """
UPDATE message SET state = iif(suspect, 'suspect', 'deferred'), due_at = ?2, reason = ?3, waits_for = ?4,
    attempts = attempts + (?4 IS NULL AND ?7 = ''),
    waiting_since = iif(?4 IS NULL, coalesce(waiting_since, ?8), NULL),
    at_risk = 0,
    route = coalesce(?5, route),
    receipts = iif(?6 IS NULL, receipts, json_patch(coalesce(receipts, '{}'), ?6)),
    absent_at = iif(?7 = 'absent', min(coalesce(absent_at, ?8), ?8), NULL),
    doubts = doubts + (?7 = 'doubtful'), doubted_at = iif(?7 = 'doubtful', min(coalesce(doubted_at, ?8), ?8), doubted_at),
    identity = coalesce(known.identity, message.identity), received = coalesce(known.received, message.received),
    size = coalesce(known.size, message.size), message_id = coalesce(known.message_id, message.message_id),
    sender = coalesce(known.sender, message.sender),
    mark = coalesce(known.mark, message.mark), fingerprint = coalesce(known.fingerprint, message.fingerprint)
FROM (
    SELECT json_extract(value, '$[0]') AS folder, json_extract(value, '$[1]') AS uid,
        iif(json_extract(value, '$[2]'), substr(?9, 1 + 16 * key, 16), NULL) AS identity,
        json_extract(value, '$[3]') AS received, json_extract(value, '$[4]') AS size, json_extract(value, '$[5]') AS message_id,
        json_extract(value, '$[6]') AS sender, json_extract(value, '$[7]') AS mark,
        iif(json_extract(value, '$[7]') IS NULL, NULL, substr(?10, 1 + 32 * key, 32)) AS fingerprint
    FROM json_each(?1)
) AS known
WHERE message.folder = known.folder AND message.uid = known.uid AND state <> 'settled'
"""


def release(connection: Connection, keys: Sequence[Key], now: int) -> None:
    connection.execute(_RELEASE, (document(keys), now))


# A suspect that nobody worked on is as suspect as it was, and who waited for a queue still does.
_RELEASE = """
UPDATE message SET state = iif(suspect, 'suspect', 'deferred'), due_at = ?2, at_risk = 0
FROM (SELECT json_extract(value, '$[0]') AS folder, json_extract(value, '$[1]') AS uid FROM json_each(?1)) AS key
WHERE message.folder = key.folder AND message.uid = key.uid AND state = 'claimed'
"""


def disposed(connection: Connection, results: Sequence[tuple[Key, Disposed]], now: int) -> None:
    again = {
        "applied": None,
        "failed": now + FAILED_AGAIN // MICROSECOND,
        "pending": now + PENDING_AGAIN // MICROSECOND,
    }
    alike: defaultdict[tuple[int, str, str], list[str]] = defaultdict(list)
    for (number, uid), result in results:
        alike[number, result.state, result.reason].append(uid)
    for (number, state, reason), uids in alike.items():
        disposed_at = now if state == "applied" else None
        connection.execute(_DISPOSED, (number, document(uids), state, clean(reason) or None, again[state], disposed_at))


# One that an operator reopened meanwhile is not settled, and stays due.
_DISPOSED = """
UPDATE message SET disposition_state = ?3, disposition_reason = ?4, due_at = ?5, disposed_at = ?6
WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2)) AND state = 'settled'
"""


def repeats(connection: Connection, mailbox: str, fingerprints: Sequence[bytes]) -> dict[bytes, str]:
    wanted = {fingerprint.hex().upper(): fingerprint for fingerprint in fingerprints}
    marks = document([mark(fingerprint) for fingerprint in wanted.values()])
    (found,) = connection.execute(_REPEATS, (marks, mailbox)).fetchone()
    earliest: dict[bytes, str] = {}
    for fingerprint, mid in undocument(found):
        if fingerprint in wanted:  # and does not merely begin like one that is
            earliest.setdefault(wanted[fingerprint], mid_text(bytes.fromhex(mid)))
    return earliest


# CROSS JOIN and INDEXED BY, because the planner would walk through the mailbox instead.
_REPEATS = """
SELECT json_group_array(json_array(hex(fingerprint), hex(mid))) FROM (
    SELECT fingerprint, mid FROM message INDEXED BY message_mark CROSS JOIN folder ON folder.id = message.folder
    WHERE mark IS NOT NULL AND mark IN (SELECT value FROM json_each(?1)) AND mailbox = ?2
        AND (state = 'settled' OR receipts IS NOT NULL)
    ORDER BY state <> 'settled', settled_at, mid
)
"""


def former(connection: Connection, known: Known, fingerprints: Sequence[bytes]) -> dict[bytes, list[str]]:
    """See :meth:`Ledger.former`."""
    wanted = {fingerprint.hex().upper(): fingerprint for fingerprint in fingerprints}
    marks = document([mark(fingerprint) for fingerprint in wanted.values()])
    folders = document([known.id, *earlier_epochs(connection, known)])
    (found,) = connection.execute(_FORMER, (marks, folders, known.id, FORMER_NAMES)).fetchone()
    rows = [row for row in undocument(found) if row[0] in wanted]
    # Whoever counts as a repeat of a message stands for it from then on.
    stood_for = {repeat_of for _, _, repeat_of, _ in rows if repeat_of is not None}
    free: defaultdict[bytes, list[str]] = defaultdict(list)
    for fingerprint, mid, _, is_former in rows:
        text = mid_text(bytes.fromhex(mid))
        if is_former and text not in stood_for:
            free[wanted[fingerprint]].append(text)
    return free


_FORMER = """
SELECT json_group_array(json_array(hex(fingerprint), hex(mid), repeat_of, is_former)) FROM (
    SELECT fingerprint, mid, iif(outcome = 'repeated', repeat_of, NULL) AS repeat_of,
        folder <> ?3 OR uid LIKE ?4 AS is_former
    FROM message INDEXED BY message_mark
    WHERE mark IS NOT NULL AND mark IN (SELECT value FROM json_each(?1)) AND state = 'settled'
        AND (outcome <> 'gone' OR generation > 0) -- of what is gone not every queue has got it
        AND folder IN (SELECT value FROM json_each(?2))
    ORDER BY settled_at, mid
)
"""


@dataclass(frozen=True, slots=True)
class Pruning:
    """What a pruning may do to one piece of a folder: rows that it missed for the first time, rows that it does not miss any more,
    and those that are to be forgotten. ``end``: the last uid of the piece; None at the end of the folder."""

    missed: Sequence[str]
    found: Sequence[str]
    forgotten: Sequence[str]
    end: str | None


def prunable(
    connection: Connection, number: int, present: Collection[str] | None, after: str, before: int, now: int
) -> Pruning:
    """What a pruning may do to the rows that follow the uid ``after``, a piece of them. ``before``: only what was settled earlier is looked
    at, so no more is ever marked than a day's messages or two. ``present``: None for a former epoch, of which nothing is there any more.

    For a reader's connection: it is let go after each piece, so that the log can be written back meanwhile.
    """
    missed: list[str] = []
    found: list[str] = []
    forgotten: list[str] = []
    (end,) = connection.execute(_PIECE, (number, after, WALKED)).fetchone() or (None,)
    rows = connection.execute(
        _OLD if present is not None else _FORMER_EPOCH, (number, after, end or "\U0010ffff", before)
    )
    for uid, absent_at in rows:
        if present is not None and uid in present:
            if absent_at is not None:
                found.append(uid)
        elif absent_at is None or absent_at > now:  # or by a clock that was ahead
            missed.append(uid)
        elif absent_at <= now - PRUNED_APART // MICROSECOND:
            forgotten.append(uid)
    return Pruning(missed, found, forgotten, end)


PRUNED_APART = timedelta(days=1)
"""Two prunings that both missed a message are at least so far apart."""
WALKED = 20_000
"""Rows that one piece of the walk passes."""

_PIECE = "SELECT uid FROM message WHERE folder = ?1 AND uid > ?2 ORDER BY uid LIMIT 1 OFFSET ?3"
_OLD = """
SELECT uid, absent_at FROM message WHERE folder = ?1 AND uid > ?2 AND uid <= ?3 AND state = 'settled' AND settled_at < ?4
"""
_FORMER_EPOCH = """
SELECT uid, absent_at FROM message WHERE folder = ?1 AND uid > ?2 AND uid <= ?3 AND coalesce(settled_at, claimed_at) < ?4
"""


def prune(connection: Connection, number: int, uids: Sequence[str], before: int) -> int:
    """Forget a piece of what :func:`prunable` found, if it is still so; the number of settled messages forgotten. What is not settled
    is forgotten in former epochs alone."""
    present = connection.execute(
        "SELECT turn = (SELECT max(turn) FROM folder AS other WHERE other.mailbox = folder.mailbox AND other.name = folder.name) "
        "FROM folder WHERE id = ?",
        (number,),
    ).fetchone() or (1,)
    old = connection.execute(
        "SELECT uid, state = 'settled' FROM message WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2)) "
        "AND absent_at IS NOT NULL AND coalesce(settled_at, claimed_at) < ?3 AND (state = 'settled' OR NOT ?4)",
        (number, document(uids), before, present[0]),
    ).fetchall()
    forget(connection, number, [uid for uid, _ in old])
    settled = int(sum(is_settled for _, is_settled in old))
    if settled < len(old):
        # Should the folder ever return to that epoch, it is listed from the start: nobody settled those.
        connection.execute("UPDATE folder SET position = NULL, complete = 0 WHERE id = ?", (number,))
    return settled


def forget(connection: Connection, number: int, uids: Sequence[str]) -> None:
    """Drop these rows and what finds them."""
    clues.take(connection, [(number, uid) for uid in uids])
    connection.execute(
        "DELETE FROM message WHERE folder = ? AND uid IN (SELECT value FROM json_each(?))", (number, document(uids))
    )


def some(connection: Connection, number: int, limit: int) -> list[str]:
    """Some of a folder's uids."""
    return [uid for (uid,) in connection.execute("SELECT uid FROM message WHERE folder = ? LIMIT ?", (number, limit))]


def note_missed(connection: Connection, number: int, missed: Sequence[str], found: Sequence[str], now: int) -> None:
    """Keep which rows a pruning missed, and which it did not."""
    connection.execute(_NOTE_MISSED, (number, document(missed), now))
    connection.execute(_NOTE_MISSED, (number, document(found), None))


_NOTE_MISSED = "UPDATE message SET absent_at = ?3 WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2))"


def _by_folder(keys: Iterable[Key]) -> dict[int, list[str]]:
    uids: defaultdict[int, list[str]] = defaultdict(list)
    for number, uid in keys:
        uids[number].append(uid)
    return uids
