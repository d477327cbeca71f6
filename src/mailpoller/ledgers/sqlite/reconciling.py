"""What the ledger knows of names that a mailbox shows, for ``mailpoller reconcile``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from sqlite3 import Connection

from mailpoller.core.message import Folder, MessageRef
from mailpoller.core.record import record
from mailpoller.ledgers.sqlite.folders import AGAIN
from mailpoller.ledgers.sqlite.values import document, instant, mid_text, seconds

PIECE = 500


@record
class Numbered:
    """A folder in the epoch that is polled. ``epoch``: as the source names it. ``begun``: what its first listing wants
    is recorded."""

    id: int
    epoch: str
    baseline_at: datetime
    begun: bool


@record
class KnownMessage:
    """What has become of a message: ``waiting``, or its outcome."""

    uid: str
    mid: str
    what: str


def present(connection: Connection, folder: Folder) -> Numbered | None:
    """The row of the folder that is polled; None if it never was."""
    row = connection.execute(
        "SELECT id, epoch, baseline_at, position IS NOT NULL OR complete OR EXISTS (SELECT 1 FROM plan WHERE "
        "plan.folder = folder.id) FROM folder WHERE mailbox = ? AND name = ? ORDER BY turn DESC LIMIT 1",
        (folder.mailbox, folder.name),
    ).fetchone()
    return None if row is None else Numbered(row[0], row[1].partition(AGAIN)[0], instant(row[2]), bool(row[3]))


def known(connection: Connection, number: int, uids: Iterable[str]) -> dict[str, KnownMessage]:
    """Of each name that the ledger knows. What was planned and not begun yet waits, too."""
    found: dict[str, KnownMessage] = {}
    ahead = iter(uids)
    while piece := list(islice(ahead, PIECE)):
        for uid, mid, state, outcome in connection.execute(_KNOWN, (document(piece), number)):
            what = outcome if state == "settled" and outcome is not None else "waiting"
            found[uid] = KnownMessage(uid, mid_text(mid), what)
    for (uid,) in connection.execute(_PLANNED, (number,)):
        found.setdefault(uid, KnownMessage(uid, "", "waiting"))
    return found


# CROSS JOIN, because the planner would walk through the folder for a list of names.
_KNOWN = """
SELECT uid, mid, state, outcome FROM json_each(?1) AS wanted
CROSS JOIN message ON message.folder = ?2 AND message.uid = wanted.value
"""
_PLANNED = "SELECT json_extract(value, '$[0]') FROM plan, json_each(plan.listed) WHERE plan.folder = ?1"


def unsettled(connection: Connection, number: int) -> list[KnownMessage]:
    """All that waits in a folder."""
    rows = connection.execute(
        "SELECT uid, mid FROM message INDEXED BY message_due WHERE state IN ('claimed', 'suspect', 'deferred') AND "
        "due_at IS NOT NULL AND folder = ?",
        (number,),
    )
    return [KnownMessage(uid, mid_text(mid), "waiting") for uid, mid in rows]


def alike(
    connection: Connection, mailbox: str, refs: Sequence[MessageRef], shown: Mapping[str, Collection[str]]
) -> Mapping[str, str]:
    """uid -> mid of a settled message of this mailbox, under another name that is not there any more, of the same
    size and the same date: of those refs that say both. Each message stands for one ref. ``shown``: folder -> the
    names that it shows. Walks through all of the mailbox's messages."""
    wanted: defaultdict[tuple[int | None, int | None], list[str]] = defaultdict(list)
    for ref in refs:
        if ref.size and ref.received:
            wanted[ref.size, seconds(ref.received)].append(ref.uid)
    if not wanted:
        return {}
    found: dict[str, str] = {}
    for name, uid, now, listed, received, mid in connection.execute(
        _ALIKE, (mailbox, document([list(pair) for pair in wanted]))
    ):
        if now and uid in shown.get(name, ()):
            continue  # it stands for itself
        if waiting := wanted[listed, received]:
            found[waiting.pop()] = mid_text(mid)
    return found


_ALIKE = """
WITH pair (listed, received) AS MATERIALIZED (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?2)
)
SELECT name, message.uid, turn = (SELECT max(turn) FROM folder AS other WHERE other.mailbox = folder.mailbox AND
    other.name = folder.name), message.listed, message.received, mid
FROM folder JOIN message ON message.folder = folder.id
WHERE mailbox = ?1 AND state = 'settled' AND (message.listed, message.received) IN (SELECT listed, received FROM pair)
"""
