"""Messages on their way: claimed, put off, given back, settled, disposed of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from sqlite3 import Connection
from typing import Any

import orjson

from mailpoller.core.delivery import Disposed, Held, Outcome, Settlement
from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Claim, MessageRef
from mailpoller.ledgers.sqlite.folders import Known, earlier_epochs
from mailpoller.ledgers.sqlite.values import (
    MICROSECOND,
    disposition_of,
    disposition_text,
    instant,
    json,
    mark,
    mid_octets,
    mid_text,
    unjson,
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
    return suspects, struck


def claim(
    connection: Connection, refs: Keyed, open_claims: Collection[Key], now: int
) -> tuple[list[Claim | Held | Settlement], list[Key]]:
    """The answers, and the keys of those that were claimed. ``open_claims`` are in this process's hands already; a row
    that is claimed without being among them was claimed by a commit whose caller never heard of it."""
    rows = _rows(connection, refs)
    answers: list[Claim | Held | Settlement] = []
    taken: dict[Key, tuple[int, str, int, bytes, int | None]] = {}
    for known, ref in refs:
        key = (known.id, ref.uid)
        row = rows.get(key)
        if key in taken or (row is not None and row[1] == "claimed" and key in open_claims):
            answers.append(Held(ref, instant(now), "claimed"))
            continue
        answer = _claim_new(known, ref) if row is None else _claim_known(ref, row, now)
        answers.append(answer)
        if isinstance(answer, Claim):
            taken[key] = (*key, now, mid_octets(answer.mid), ref.size)
    connection.executemany(
        "INSERT INTO message (folder, uid, state, due_at, mid, listed, claimed_at) "
        "VALUES (?1, ?2, 'claimed', ?3, ?4, ?5, ?3) "
        "ON CONFLICT (folder, uid) DO UPDATE SET state = 'claimed', due_at = ?3, claimed_at = ?3, at_risk = 0, "
        "waits_for = NULL, listed = coalesce(?5, listed)",
        taken.values(),
    )
    return answers, list(taken)


_Row = tuple[str, str, int | None, bytes, int, int, str | None, str | None, int, int, Any, str]


def _rows(connection: Connection, refs: Keyed) -> dict[Key, _Row]:
    """What is recorded of the refs, in one read for each folder among them."""
    uids: defaultdict[int, list[str]] = defaultdict(list)
    for known, ref in refs:
        uids[known.id].append(ref.uid)
    return {
        (number, row[0]): row
        for number, wanted in uids.items()
        for row in connection.execute(
            "SELECT uid, state, due_at, mid, suspect, strikes, route, receipts, generation, attempts, outcome, disposition "
            "FROM message WHERE folder = ? AND uid IN (SELECT value FROM json_each(?))",
            (number, json(wanted)),
        )
    }


def _claim_new(known: Known, ref: MessageRef) -> Claim:
    return Claim(ref, mint_mid(ref.folder.mailbox, ref.folder.name, known.epoch, ref.uid))


def _claim_known(ref: MessageRef, row: _Row, now: int) -> Claim | Held | Settlement:
    _, state, due_at, mid, suspect, strikes, route, receipts, generation, attempts, outcome, disposition = row
    if state == "settled" and due_at is not None and due_at <= now:
        return Settlement(ref, mid_text(mid), outcome, disposition_of(disposition))
    if state == "settled":
        return Held(ref, instant(now if due_at is None else due_at), "settled")
    if state == "deferred" and due_at is not None and due_at > now:
        return Held(ref, instant(due_at), "deferred")
    return Claim(
        ref,
        mid_text(mid),
        suspect=bool(suspect),
        strikes=strikes,
        route=None if route is None else tuple(unjson(route)),
        receipts=None if receipts is None else unjson(receipts),
        generation=generation,
        attempts=attempts,
    )


def due(
    connection: Connection, known: Known, limit: int, down: Collection[str], open_claims: Collection[Key], now: int
) -> list[tuple[str, int | None]]:
    """At most ``limit`` pairs of uid and listed size, in the order of :meth:`Ledger.due`."""
    found = _due_in(connection, known, "suspect", now, limit)
    found += _due_in(connection, known, "settled", now, limit - len(found))
    # Claims whose caller never heard of them: see claim().
    orphans = _due_in(connection, known, "claimed", now, limit + len(open_claims)) if len(found) < limit else []
    found += [row for row in orphans if (known.id, row[0]) not in open_claims][: limit - len(found)]
    found += _due_in(connection, known, "deferred", now, limit - len(found), down)
    return found


def _due_in(
    connection: Connection, known: Known, state: str, now: int, limit: int, down: Collection[str] = ()
) -> list[tuple[str, int | None]]:
    if limit <= 0:
        return []
    return connection.execute(
        "SELECT uid, listed FROM message WHERE state = ? AND folder = ? AND due_at <= ? "
        "AND (waits_for IS NULL OR waits_for NOT IN (SELECT value FROM json_each(?))) ORDER BY due_at LIMIT ?",
        (state, known.id, now, json(list(down)), limit),
    ).fetchall()


def at_risk(connection: Connection, key: Key) -> None:
    connection.execute("UPDATE message SET at_risk = 1 WHERE folder = ? AND uid = ? AND state = 'claimed'", key)


def cleared(connection: Connection, key: Key) -> None:
    connection.execute("UPDATE message SET suspect = 0, strikes = 0, at_risk = 0 WHERE folder = ? AND uid = ?", key)


def settle(connection: Connection, outcomes: Sequence[tuple[Key, Outcome]], now: int) -> int:
    """The number of rows that were settled: fewer than outcomes if a claim is not recorded (any more)."""
    return connection.executemany(
        "UPDATE message SET state = 'settled', at_risk = 0, waits_for = NULL, settled_at = ?1, due_at = ?2, "
        "disposition_state = ?3, disposed_at = ?4, outcome = ?5, disposition = ?6, disposition_reason = NULL, "
        "receipts = ?7, reason = ?8, rules = ?9, fingerprint = ?10, mark = ?11, size = ?12, message_id = ?13, "
        "sender = ?14, repeat_of = ?15 WHERE folder = ?16 AND uid = ?17",
        (_settled_row(key, outcome, now) for key, outcome in outcomes),
    ).rowcount


def _settled_row(key: Key, outcome: Outcome, now: int) -> tuple[Any, ...]:
    disposition = outcome.disposition
    leaves = disposition.leaves
    return (
        now,
        None if leaves else now,
        "applied" if leaves else "pending",
        now if leaves else None,
        outcome.kind,
        disposition_text(disposition),
        json(dict(outcome.receipts)) if outcome.receipts else None,
        outcome.reason,
        json(outcome.rules) if outcome.rules else None,
        outcome.fingerprint,
        None if outcome.fingerprint is None else mark(outcome.fingerprint),
        outcome.size,
        outcome.message_id or None,
        outcome.sender or None,
        outcome.repeat_of,
        *key,
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
) -> None:
    wish = (
        until,
        reason,
        queue,
        None if route is None else json(list(route)),
        None if receipts is None else json(dict(receipts)),
    )
    # A claim that was settled by a commit whose caller never heard of it stays settled.
    connection.executemany(
        "UPDATE message SET state = 'deferred', due_at = ?1, reason = ?2, waits_for = ?3, attempts = attempts + 1, "
        "at_risk = 0, route = coalesce(?4, route), "
        "receipts = CASE WHEN ?5 IS NULL THEN receipts ELSE json_patch(coalesce(receipts, '{}'), ?5) END "
        "WHERE folder = ?6 AND uid = ?7 AND state <> 'settled'",
        ((*wish, *key) for key in keys),
    )


def release(connection: Connection, keys: Sequence[Key], now: int) -> None:
    # A suspect that nobody worked on is as suspect as it was.
    connection.executemany(
        "UPDATE message SET state = iif(suspect, 'suspect', 'deferred'), due_at = ?, at_risk = 0 "
        "WHERE folder = ? AND uid = ? AND state = 'claimed'",
        ((now, *key) for key in keys),
    )


def disposed(connection: Connection, results: Sequence[tuple[Key, Disposed]], now: int) -> None:
    again = {
        "applied": None,
        "failed": now + FAILED_AGAIN // MICROSECOND,
        "pending": now + PENDING_AGAIN // MICROSECOND,
    }
    # One that an operator reopened meanwhile is not settled, and stays due.
    connection.executemany(
        "UPDATE message SET disposition_state = ?, disposition_reason = ?, disposed_at = ?, due_at = ? "
        "WHERE folder = ? AND uid = ? AND state = 'settled'",
        (
            (result.state, result.reason or None, now if result.state == "applied" else None, again[result.state], *key)
            for key, result in results
        ),
    )


def repeats(connection: Connection, mailbox: str, fingerprints: Sequence[bytes]) -> dict[bytes, str]:
    wanted = set(fingerprints)
    earliest: dict[bytes, str] = {}
    for fingerprint, mid in connection.execute(
        "SELECT fingerprint, mid FROM message JOIN folder ON folder.id = message.folder "
        "WHERE mark IN (SELECT value FROM json_each(?)) AND state = 'settled' AND mailbox = ? ORDER BY settled_at, mid",
        (orjson.dumps([mark(fingerprint) for fingerprint in wanted]).decode(), mailbox),
    ):
        if fingerprint in wanted:
            earliest.setdefault(fingerprint, mid_text(mid))
    return earliest


def prunable(
    connection: Connection, known: Known, present: Collection[str], before: int
) -> tuple[list[Key], list[Key]]:
    """What :func:`prune` may forget: settled messages, and messages of former epochs that will never be settled there.

    Once this epoch's first listing was worked through, no message of a former epoch is needed: its numbering is gone, and its
    fingerprints suppress nothing any more. Costs a walk through the folder: for a reader's connection.
    """
    still_there = frozenset(present)
    settled = [
        (known.id, uid)
        for (uid,) in connection.execute(
            "SELECT uid FROM message WHERE folder = ? AND state = 'settled' AND settled_at < ?", (known.id, before)
        )
        if uid not in still_there
    ]
    abandoned: list[Key] = []
    (complete,) = connection.execute("SELECT complete FROM folder WHERE id = ?", (known.id,)).fetchone()
    for number in earlier_epochs(connection, known) if complete else ():
        for uid, state in connection.execute(
            "SELECT uid, state FROM message WHERE folder = ? AND coalesce(settled_at, claimed_at) < ?", (number, before)
        ):
            (settled if state == "settled" else abandoned).append((number, uid))
    return settled, abandoned


def prune(connection: Connection, settled: Sequence[Key], abandoned: Sequence[Key], before: int) -> int:
    """Forget what :func:`prunable` found, if it is still so; the number of settled messages forgotten."""
    connection.executemany(
        "DELETE FROM message WHERE folder = ? AND uid = ? AND state <> 'settled' AND claimed_at < ?",
        ((*key, before) for key in abandoned),
    )
    # Should the folder ever return to that epoch, it is listed from the start: nobody settled those.
    connection.executemany(
        "UPDATE folder SET position = NULL, complete = 0 WHERE id = ?", {(number,) for number, _ in abandoned}
    )
    return max(
        0,
        connection.executemany(
            "DELETE FROM message WHERE folder = ? AND uid = ? AND state = 'settled' AND settled_at < ?",
            ((*key, before) for key in settled),
        ).rowcount,
    )
