"""What waits for no queue and does not come to its end: found by the index of what waits, in bounded work."""

from __future__ import annotations

from datetime import timedelta
from sqlite3 import Connection
from typing import Any, Literal

from mailpoller.core.message import Folder, MessageRef
from mailpoller.core.ports import Stuck
from mailpoller.ledgers.sqlite.messages import PENDING_AGAIN
from mailpoller.ledgers.sqlite.values import MICROSECOND, document, instant, instant_of_seconds, mid_text

FOUND = 1000
"""Messages that are told of each kind, and pending dispositions of a folder that are looked at."""

_PRESENT = """
SELECT id, mailbox, name, epoch FROM folder
WHERE turn = (SELECT max(turn) FROM folder AS other WHERE other.mailbox = folder.mailbox AND other.name = folder.name)
"""

_PUT_OFF = """
SELECT folder, uid, coalesce(size, listed), received, mid, waiting_since, reason FROM message INDEXED BY message_waiting
WHERE waiting_since <= ?1 AND state IN ('claimed', 'suspect', 'deferred') AND due_at IS NOT NULL
    AND folder IN (SELECT value FROM json_each(?3))
ORDER BY waiting_since LIMIT ?2
"""

# What failed is due after a day, so what is pending comes first.
_PENDING = """
SELECT message.folder, message.uid, coalesce(size, listed), received, mid,
    coalesce(disposed_at, settled_at) AS since, disposition_reason FROM (
    SELECT folder, uid FROM message INDEXED BY message_due WHERE state = 'settled' AND folder = ?1 AND due_at <= ?2
    ORDER BY due_at LIMIT ?3
) AS due CROSS JOIN message ON message.folder = due.folder AND message.uid = due.uid
WHERE disposition_state = 'pending' AND coalesce(disposed_at, settled_at) <= ?4
"""


def stuck(connection: Connection, before: int, now: int) -> list[Stuck]:
    """See :meth:`Ledger.stuck`."""
    present = {number: Folder(*named) for number, *named in connection.execute(_PRESENT)}
    rows = connection.execute(_PUT_OFF, (before, FOUND, document(list(present))))
    found = [_stuck("fetch", present[row[0]], row) for row in rows]
    due_before = now + (PENDING_AGAIN + timedelta(seconds=1)) // MICROSECOND
    pending: list[Stuck] = []
    for number, folder in present.items():
        rows = connection.execute(_PENDING, (number, due_before, FOUND, before))
        pending += [_stuck("disposition", folder, row) for row in rows]
    pending.sort(key=lambda one: one.since)
    return sorted([*found, *pending[:FOUND]], key=lambda one: one.since)


def _stuck(what: Literal["fetch", "disposition"], folder: Folder, row: tuple[Any, ...]) -> Stuck:
    _, uid, size, received, mid, since, reason = row
    ref = MessageRef(folder, uid, size, instant_of_seconds(received))
    return Stuck(what, ref, mid_text(mid), instant(since), reason or "")


def hasten(connection: Connection, mailbox: str, now: int) -> int:
    """See :meth:`Ledger.hasten`."""
    return connection.execute(
        "UPDATE message SET due_at = ?2 WHERE state = 'settled' AND folder IN (SELECT id FROM folder WHERE mailbox "
        "= ?1) AND due_at IS NOT NULL AND disposition_state = 'pending'",
        (mailbox, now),
    ).rowcount
