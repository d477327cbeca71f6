"""What becomes of messages: put off, given back, settled, disposed of; and what was settled before.

A batch goes in as one JSON document and one statement, and comes out as one row.
``executemany`` would be as fast in an idle process; but sqlite3 lets go of the interpreter's lock for every row and
has to win it back, which takes up to 5 ms each while the event loop is busy parsing mail.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from sqlite3 import Connection
from typing import Any

from mailpoller.core.delivery import Disposed, Outcome
from mailpoller.core.ports import Traits
from mailpoller.ledgers.sqlite import acknowledgements, clues, outbox
from mailpoller.ledgers.sqlite.values import (
    MICROSECOND,
    Key,
    clean,
    disposition_text,
    document,
    mark,
    seconds,
)

FAILED_AGAIN = timedelta(days=1)
"""A disposition that cannot succeed as configured is tried again this seldom."""
PENDING_AGAIN = timedelta(minutes=1)
"""A disposition of which nothing is known is tried again this soon."""


def settle(connection: Connection, outcomes: Sequence[tuple[Key, Outcome]], now: int) -> bool:
    """True if every outcome was recorded; False if a claim among them is not recorded (any more)."""
    if any(len(outcome.fingerprint or NO_FINGERPRINT) != FINGERPRINT_OCTETS for _, outcome in outcomes):
        raise ValueError("a fingerprint is the 32 octets of a SHA-256")
    # What a batch has in common is said once: to take it out of each row's JSON would cost as much as the rest.
    # Neighbours are compared, which are mostly the very same objects: no disposition is hashed for each message.
    alike: defaultdict[tuple[Any, ...], list[tuple[str, Outcome]]] = defaultdict(list)
    for common, neighbours in groupby(outcomes, _common):
        alike[common] += [(uid, outcome) for (_, uid), outcome in neighbours]
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
    told = [(*key, clean(one.conversation)) for key, one in outcomes if one.conversation is not None]
    if told:
        connection.execute(_CONVERSE, (document(told),))
    if arrived := [(*key, clean(one.delivered_to)) for key, one in outcomes if one.delivered_to]:
        connection.execute(_ARRIVED, (document(arrived),))
    if owed := [one.acknowledgement for _, one in outcomes if one.acknowledgement is not None]:
        acknowledgements.owe(connection, owed, now)
    for _, one in outcomes:
        if one.bounce is not None and (one.bounce.message_id or one.bounce.envelope_id):
            outbox.bounced(connection, one.bounce, now)
    return settled == len({key for key, _ in outcomes})


# What was said once is not said otherwise: it was recorded with the first receipt, or is recorded now.
_CONVERSE = """
UPDATE message SET conversation = told.conversation FROM (
    SELECT json_extract(value, '$[0]') AS folder, json_extract(value, '$[1]') AS uid, json_extract(value, '$[2]') AS
        conversation FROM json_each(?1)
) AS told WHERE message.folder = told.folder AND message.uid = told.uid AND message.conversation IS NULL
"""

_ARRIVED = """
UPDATE message SET delivered_to = told.address FROM (
    SELECT json_extract(value, '$[0]') AS folder, json_extract(value, '$[1]') AS uid, json_extract(value, '$[2]') AS
        address FROM json_each(?1)
) AS told WHERE message.folder = told.folder AND message.uid = told.uid
"""


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
        json_extract(value, '$[7]') AS received, iif(json_extract(value, '$[8]'), substr(?12, 1 + 16 * key, 16),
        NULL) AS identity
    FROM json_each(?1)
) AS new
WHERE message.folder = new.folder AND message.uid = new.uid
"""


def _common(one: tuple[Key, Outcome]) -> tuple[Any, ...]:
    (number, _), outcome = one
    return number, outcome.disposition, outcome.kind, outcome.reason, outcome.rules


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
    told = [
        (*key, clean(known.conversation))
        for key, known in zip(keys, traits, strict=True)
        if known is not None and known.conversation is not None
    ]
    if told:
        connection.execute(_CONVERSE, (document(told),))


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
# A claim that was settled by a commit whose caller never heard of it stays settled;
# a suspect without a verdict, suspect.
_DEFER = """
UPDATE message SET state = iif(suspect, 'suspect', 'deferred'), due_at = ?2, reason = ?3, waits_for = ?4,
    attempts = attempts + (?4 IS NULL AND ?7 IN ('', 'queue')),
    failures = failures + (?7 = 'unprocessable'), refusals = refusals + (?7 = 'refused'),
    waiting_since = iif(?4 IS NULL, coalesce(waiting_since, ?8), NULL),
    at_risk = 0,
    route = coalesce(?5, route),
    receipts = iif(?6 IS NULL, receipts, json_patch(coalesce(receipts, '{}'), ?6)),
    absent_at = iif(?7 = 'absent', min(coalesce(absent_at, ?8), ?8), NULL),
    doubts = doubts + (?7 = 'doubtful'), doubted_at = iif(?7 = 'doubtful', min(coalesce(doubted_at, ?8), ?8),
    doubted_at),
    identity = coalesce(known.identity, message.identity), received = coalesce(known.received, message.received),
    size = coalesce(known.size, message.size), message_id = coalesce(known.message_id, message.message_id),
    sender = coalesce(known.sender, message.sender),
    mark = coalesce(known.mark, message.mark), fingerprint = coalesce(known.fingerprint, message.fingerprint)
FROM (
    SELECT json_extract(value, '$[0]') AS folder, json_extract(value, '$[1]') AS uid,
        iif(json_extract(value, '$[2]'), substr(?9, 1 + 16 * key, 16), NULL) AS identity,
        json_extract(value, '$[3]') AS received, json_extract(value, '$[4]') AS size, json_extract(value,
        '$[5]') AS message_id,
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
UPDATE message SET disposition_state = ?3, disposition_reason = ?4, due_at = ?5,
    disposed_at = coalesce(?6, iif(?3 = 'pending', disposed_at, NULL))
WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2)) AND state = 'settled'
"""
