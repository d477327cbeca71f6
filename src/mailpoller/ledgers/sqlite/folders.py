"""Folders and their epochs: what was listed, how far, and what an operator must decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from sqlite3 import Connection
from typing import Literal

from mailpoller.core.message import Account, Folder, MessageRef, Position
from mailpoller.core.ports import FolderState
from mailpoller.core.record import record
from mailpoller.ledgers.sqlite import acknowledgements
from mailpoller.ledgers.sqlite.values import (
    clean,
    document,
    instant,
    instant_of_seconds,
    instant_or_none,
    micros,
    undocument,
)

AGAIN = " again:"
"""Stands in an epoch's name before how often its numbering was begun anew."""


@record
class Known:
    """A folder's row. ``epoch`` is what mids are minted of: the folder's own, unless two accounts share that or its
    numbering was set back. ``predecessor``: the row of the numbering that was set back."""

    id: int
    epoch: str
    predecessor: int | None = None


def open_folder(
    connection: Connection, folder: Folder, account: Account, formerly: str | None, now: int
) -> tuple[Known, FolderState]:
    """Register folder and epoch if they are new, make the epoch the present one, and tell what is known of it.

    Returning to an epoch that was present before takes up its row again: its numbering is the same as it was.
    """
    if formerly is not None:
        rename(connection, formerly, folder.mailbox)
    rows = connection.execute(
        "SELECT id, epoch, turn, type, host, user, complete, predecessor, anew FROM folder "
        "WHERE mailbox = ? AND name = ? ORDER BY turn",
        (folder.mailbox, folder.name),
    ).fetchall()
    identity = (account.type, account.host, account.user)
    # A source should put the account into the epoch. One that does not would make another account's messages bear the
    # ids of those that are settled, and their queue would refuse them as repeats: so the ledger adds it.
    qualified = f"{folder.epoch} {account.type}:{account.user}@{account.host}"
    epoch = folder.epoch
    if any(row[1].partition(AGAIN)[0] == epoch and row[3:6] != identity for row in rows):
        epoch = qualified
    latest = max((row for row in rows if row[1].partition(AGAIN)[0] == epoch), key=lambda row: row[8], default=None)
    known = None if latest is None else Known(latest[0], latest[1], latest[7])
    turn = rows[-1][2] + 1 if rows else 1
    if known is None:
        (baseline_at,) = connection.execute(
            "SELECT coalesce(min(baseline_at), ?) FROM folder WHERE mailbox = ? AND name = ?",
            (now, folder.mailbox, folder.name),
        ).fetchone()
        (number,) = connection.execute(
            "INSERT INTO folder (mailbox, name, epoch, type, host, user, turn, opened_at, baseline_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (folder.mailbox, folder.name, epoch, *identity, turn, now, baseline_at),
        ).fetchone()
        known = Known(number, epoch)
    elif rows[-1][0] != known.id:
        connection.execute("UPDATE folder SET turn = ? WHERE id = ?", (turn, known.id))
    return known, standing(connection, folder, known)


def standing(connection: Connection, folder: Folder, known: Known) -> FolderState:
    """What is known of a folder in its present epoch."""
    position, complete, baseline_at, accepted, strange_at, pruned_at, absence_accepted_at, planned = connection.execute(
        "SELECT position, complete, baseline_at, accepted, strange_at, pruned_at, absence_accepted_at, "
        "EXISTS (SELECT 1 FROM plan WHERE plan.folder = folder.id) FROM folder WHERE id = ?",
        (known.id,),
    ).fetchone()
    earlier = connection.execute(
        "SELECT id, complete, epoch FROM folder WHERE mailbox = ? AND name = ? AND id <> ?",
        (folder.mailbox, folder.name, known.id),
    ).fetchall()
    left_before = not complete and any(_has_unsettled(connection, number) for number, *_ in earlier)
    return FolderState(
        folder=folder,
        position=None if position is None else Position(position),
        first_run=not earlier and not complete,
        epoch_changed=bool(earlier) and not complete,
        complete=bool(complete),
        baseline_at=instant(baseline_at),
        # A completed listing covers what is older than the first run, whatever befell later ones.
        settled_before=any(complete for _, complete, _ in earlier) if earlier else True,
        accepted=accepted,
        left_before=left_before,
        strange_at=instant_or_none(strange_at),
        pruned_at=instant_or_none(pruned_at),
        absence_accepted=absence_accepted_at is not None,
        planned=bool(planned),
        set_back=bool(earlier)
        and {epoch.partition(AGAIN)[0] for *_, epoch in earlier} == {known.epoch.partition(AGAIN)[0]},
        heirless=left_before or _has_suspects(connection, known.id),
    )


def _has_suspects(connection: Connection, number: int) -> bool:
    (found,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM message WHERE state = 'suspect' AND folder = ? AND due_at IS NOT NULL)", (number,)
    ).fetchone()
    return bool(found)


def _has_unsettled(connection: Connection, number: int) -> bool:
    (found,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM message WHERE state IN ('claimed', 'suspect', 'deferred') "
        "AND folder = ? AND due_at IS NOT NULL)",
        (number,),
    ).fetchone()
    return bool(found)


def begin_anew(connection: Connection, known: Known, now: int) -> Known:
    """The row of a numbering that follows ``known``, which was set back."""
    mailbox, name, kind, host, user, anew, baseline_at = connection.execute(
        "SELECT mailbox, name, type, host, user, anew, baseline_at FROM folder WHERE id = ?", (known.id,)
    ).fetchone()
    epoch = f"{known.epoch.partition(AGAIN)[0]}{AGAIN}{anew + 1}"
    (number,) = connection.execute(
        "INSERT INTO folder (mailbox, name, epoch, type, host, user, turn, opened_at, baseline_at, anew, predecessor) "
        "SELECT ?1, ?2, ?3, ?4, ?5, ?6, max(turn) + 1, ?7, ?8, ?9, ?10 FROM folder WHERE mailbox = ?1 AND name = ?2 "
        "RETURNING id",
        (mailbox, name, epoch, kind, host, user, now, baseline_at, anew + 1, known.id),
    ).fetchone()
    return Known(number, epoch, known.id)


def strange(connection: Connection, known: Known, doubtful: bool, now: int) -> None:
    connection.execute(
        "UPDATE folder SET strange_at = iif(?2, min(coalesce(strange_at, ?3), ?3), NULL) WHERE id = ?1",
        (known.id, doubtful, now),
    )


def rename(connection: Connection, old: str, new: str) -> None:
    """Give the rows of mailbox ``old`` to ``new``, if ``new`` has none: nothing is ever merged."""
    connection.execute(
        "UPDATE folder SET mailbox = :new WHERE mailbox = :old "
        "AND NOT EXISTS (SELECT 1 FROM folder WHERE mailbox = :new)",
        {"old": old, "new": new},
    )
    connection.execute("UPDATE OR IGNORE mailbox SET name = ?2 WHERE name = ?1", (old, new))
    acknowledgements.rename(connection, old, new)


def find(connection: Connection, folder: Folder) -> Known | None:
    """The row of a folder that :func:`open_folder` registered, now or in an earlier run."""
    row = connection.execute(
        "SELECT id, epoch, predecessor FROM folder WHERE mailbox = ?1 AND name = ?2 "
        "AND (epoch = ?3 OR substr(epoch, 1, length(?3) + length(?4)) = ?3 || ?4) ORDER BY anew DESC LIMIT 1",
        (folder.mailbox, folder.name, folder.epoch, AGAIN),
    ).fetchone()
    return None if row is None else Known(*row)


def earlier_epochs(connection: Connection, known: Known) -> list[int]:
    """The ids of the other epochs of the same folder."""
    return [
        number
        for (number,) in connection.execute(
            "SELECT other.id FROM folder AS this JOIN folder AS other USING (mailbox, name) "
            "WHERE this.id = ? AND other.id <> this.id",
            (known.id,),
        )
    ]


def pruned(connection: Connection, known: Known, now: int) -> None:
    connection.execute("UPDATE folder SET pruned_at = ? WHERE id = ?", (now, known.id))


def advance(connection: Connection, known: Known, position: Position, now: int) -> None:
    connection.execute("UPDATE folder SET position = ?, advanced_at = ? WHERE id = ?", (position, now, known.id))


def plan(connection: Connection, known: Known, refs: Sequence[MessageRef], position: Position | None, now: int) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO plan (folder, listed) VALUES (?, ?)",
        (known.id, document([(ref.uid, ref.size) for ref in refs])),
    )
    connection.execute(
        "UPDATE folder SET position = coalesce(?2, position), advanced_at = ?3 WHERE id = ?1", (known.id, position, now)
    )


def planned(connection: Connection, known: Known) -> list[tuple[str, int | None]]:
    """What was planned and has no row."""
    (found,) = connection.execute(_PLANNED, (known.id,)).fetchone()
    return [(uid, size) for uid, size in undocument(found)]


_PLANNED = """
SELECT json_group_array(json(value)) FROM plan, json_each(plan.listed)
WHERE plan.folder = ?1 AND NOT EXISTS (
    SELECT 1 FROM message WHERE message.folder = ?1 AND message.uid = json_extract(value, '$[0]')
)
"""


def complete(connection: Connection, known: Known) -> None:
    connection.execute("UPDATE folder SET complete = 1, held = NULL, accepted = NULL WHERE id = ?", (known.id,))
    connection.execute("DELETE FROM plan WHERE folder = ?", (known.id,))


def left(connection: Connection, known: Known) -> set[tuple[int | None, datetime | None]]:
    """Size and date of what no earlier epoch settled."""
    return {
        (size, instant_of_seconds(received))
        for number in earlier_epochs(connection, known)
        for size, received in connection.execute(
            "SELECT DISTINCT listed, received FROM message WHERE state IN ('claimed', 'suspect', 'deferred') "
            "AND folder = ? AND due_at IS NOT NULL",
            (number,),
        )
    }


def hold(connection: Connection, known: Known, reason: str) -> bool:
    """False: an operator has decided meanwhile."""
    return (
        connection.execute(
            "UPDATE folder SET held = ? WHERE id = ? AND accepted IS NULL", (clean(reason), known.id)
        ).rowcount
        == 1
    )


def accept(connection: Connection, mailbox: str, how: Literal["baseline", "replay", "absence"], now: int) -> int:
    if how == "absence":
        return connection.execute(
            "UPDATE folder SET absence_accepted_at = ?2 WHERE mailbox = ?1 AND EXISTS (SELECT 1 FROM message "
            "WHERE folder = folder.id AND state IN ('claimed', 'suspect', 'deferred') AND due_at IS NOT NULL "
            "AND absent_at IS NOT NULL)",
            (mailbox, now),
        ).rowcount
    return connection.execute(
        "UPDATE folder SET held = NULL, accepted = ? WHERE mailbox = ? AND held IS NOT NULL", (how, mailbox)
    ).rowcount


def unknown(connection: Connection, known: Known, sizes: Iterable[int | None]) -> int:
    """How many of ``sizes`` no settled message of an earlier epoch had, each earlier size counting once for each
    message."""
    earlier: Counter[int] = Counter()
    for number in earlier_epochs(connection, known):
        (found,) = connection.execute(_SIZES, (number,)).fetchone()
        earlier.update(dict(undocument(found)))
    count = 0
    for size in sizes:
        if size is not None and earlier[size] > 0:
            earlier[size] -= 1
        else:
            count += 1
    return count


_SIZES = """
SELECT json_group_array(json_array(listed, messages)) FROM (
    SELECT listed, count(*) AS messages FROM message
    WHERE folder = ? AND state = 'settled' AND listed IS NOT NULL GROUP BY listed
)
"""


def mailboxes(connection: Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT DISTINCT mailbox FROM folder ORDER BY mailbox")]


def polled(connection: Connection, polls: Mapping[str, datetime]) -> None:
    rows = document([(mailbox, micros(at)) for mailbox, at in polls.items()])
    connection.execute(
        "INSERT INTO mailbox (name, polled_at) SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') "
        "FROM json_each(?) WHERE TRUE ON CONFLICT (name) DO UPDATE SET polled_at = excluded.polled_at",
        (rows,),
    )


def last_polls(connection: Connection) -> dict[str, datetime]:
    return {name: instant(at) for name, at in connection.execute("SELECT name, polled_at FROM mailbox")}


def first_runs(connection: Connection) -> dict[str, datetime]:
    rows = connection.execute("SELECT mailbox, min(opened_at) FROM folder GROUP BY mailbox")
    return {name: instant(at) for name, at in rows}


def ids(connection: Connection, mailbox: str) -> list[int]:
    """The rows of a mailbox's folders, in every epoch."""
    return [number for (number,) in connection.execute("SELECT id FROM folder WHERE mailbox = ?", (mailbox,))]


def present_and_former(connection: Connection, known: Known) -> tuple[bool, list[int]]:
    """Whether this epoch's first listing was worked through, and the other epochs."""
    (complete,) = connection.execute("SELECT complete FROM folder WHERE id = ?", (known.id,)).fetchone()
    return bool(complete), earlier_epochs(connection, known)


def forget(connection: Connection, mailbox: str) -> None:
    """Drop what is known of a mailbox beside its messages, which went before, piece by piece."""
    connection.execute("DELETE FROM clue_range WHERE folder IN (SELECT id FROM folder WHERE mailbox = ?)", (mailbox,))
    connection.execute("DELETE FROM folder WHERE mailbox = ?", (mailbox,))
    connection.execute("DELETE FROM fault WHERE subject = ?", (mailbox,))
    connection.execute("DELETE FROM mailbox WHERE name = ?", (mailbox,))
