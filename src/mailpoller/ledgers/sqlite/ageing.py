"""What was settled long ago and is to be moved or deleted now: found in bounded work, by the index of what was settled
when, so that it costs the drain nothing."""

from __future__ import annotations

from datetime import datetime
from sqlite3 import Connection
from typing import Any

from mailpoller.core.delivery import Disposition
from mailpoller.ledgers.sqlite.values import disposition_text, document, instant, micros

LOOKED_AT = 50_000
"""Settlements that are looked at in one call, in a few milliseconds. More than can be settled at one instant."""

# The index has the folder and the uid, so that no message of another folder is looked at.
_WINDOW = """
SELECT folder, uid, settled_at FROM message INDEXED BY message_settled_at
WHERE settled_at IS NOT NULL AND settled_at >= :beyond AND settled_at <= :until
ORDER BY settled_at LIMIT :window
"""

_FOR_EVER = 2**62
"""Until when a folder is in shadow that is in it now."""

# A queue holds it whole, and by whom its name is borne can be looked at again; nothing was decided of it already.
_AGED = """
outcome = 'delivered' AND state = 'settled' AND fingerprint IS NOT NULL AND identity IS NOT NULL
AND coalesce(receipts, '{}') <> '{}' AND json_extract(receipts, '$.quarantine') IS NULL
AND NOT coalesce(disposition ->> '$.delete', 0) AND disposition ->> '$.move' IS NULL
AND NOT (disposition_state = 'failed' AND due_at IS NULL)
"""

_FOUND = f"""
SELECT message.uid, aged.settled_at FROM ({_WINDOW}) AS aged
CROSS JOIN message ON message.folder = aged.folder AND message.uid = aged.uid
WHERE aged.folder IN (SELECT value FROM json_each(:folders)) AND aged.settled_at > (
    SELECT coalesce(shadow_until, 0) FROM folder WHERE id = aged.folder
) AND {_AGED} ORDER BY aged.settled_at LIMIT :limit
"""  # noqa: S608

_DUE = f"""
UPDATE message SET disposition = ?3, disposition_state = 'pending', disposition_reason = NULL, due_at = ?4,
    disposed_at = ?4
WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2)) AND {_AGED}
"""  # noqa: S608


def shadowed(connection: Connection, folder: int, shadow: bool, now: int) -> None:
    """See :meth:`~mailpoller.core.ports.ledger.claims.Claims.shadowed`."""
    if shadow:
        connection.execute("UPDATE folder SET shadow_until = ?2 WHERE id = ?1", (folder, _FOR_EVER))
    else:
        connection.execute(
            "UPDATE folder SET shadow_until = ?2 WHERE id = ?1 AND shadow_until = ?3", (folder, now, _FOR_EVER)
        )


def come_due(
    connection: Connection,
    folder: int,
    disposition: Disposition,
    *,
    beyond: datetime | None,
    until: datetime,
    limit: int,
    now: int,
) -> tuple[int, datetime]:
    """See :meth:`~mailpoller.core.ports.ledger.claims.Claims.come_due`."""
    asked = {"beyond": 0 if beyond is None else micros(beyond), "until": micros(until), "window": LOOKED_AT}
    (seen, last) = connection.execute(f"SELECT count(*), max(settled_at) FROM ({_WINDOW})", asked).fetchone()  # noqa: S608
    found = connection.execute(_FOUND, {**asked, "folders": document([folder]), "limit": limit}).fetchall()
    if found:
        uids = document([uid for uid, _ in found])
        connection.execute(_DUE, (folder, uids, disposition_text(disposition), now))
    if len(found) == limit:
        last = found[-1][1]
    elif seen < LOOKED_AT:
        last = micros(until)
    return len(found), instant(last)


def count_aged(connection: Connection, mailbox: str, until: datetime, limit: int) -> int:
    """How many of a mailbox's messages would come due by now, ``limit`` at most."""
    folders = [number for (number,) in connection.execute(_PRESENT, (mailbox,))]
    asked: dict[str, Any] = {"beyond": 0, "until": micros(until), "window": -1, "limit": limit}
    return len(connection.execute(_FOUND, {**asked, "folders": document(folders)}).fetchall())


_PRESENT = """
SELECT id FROM folder WHERE mailbox = ?1 AND complete
    AND turn = (SELECT max(turn) FROM folder AS other WHERE other.mailbox = ?1 AND other.name = folder.name)
"""
