"""Folders and their epochs: what was listed, how far, and what an operator must decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Literal

from mailpoller.core.message import Account, Folder, Position
from mailpoller.core.ports import FolderState
from mailpoller.ledgers.sqlite.values import clean, instant, undocument


@dataclass(frozen=True, slots=True)
class Known:
    """A folder's row. ``epoch`` is what mids are minted of: the folder's own, unless two accounts share that."""

    id: int
    epoch: str


def open_folder(
    connection: Connection, folder: Folder, account: Account, formerly: str | None, now: int
) -> tuple[Known, FolderState]:
    """Register folder and epoch if they are new, make the epoch the present one, and tell what is known of it.

    Returning to an epoch that was present before takes up its row again: its numbering is the same as it was.
    """
    if formerly is not None:
        rename(connection, formerly, folder.mailbox)
    rows = connection.execute(
        "SELECT id, epoch, turn, type, host, user, complete FROM folder WHERE mailbox = ? AND name = ? ORDER BY turn",
        (folder.mailbox, folder.name),
    ).fetchall()
    identity = (account.type, account.host, account.user)
    # A source should put the account into the epoch. One that does not would make another account's messages bear the
    # ids of those that are settled, and their queue would refuse them as repeats: so the ledger adds it.
    qualified = f"{folder.epoch} {account.type}:{account.user}@{account.host}"
    epoch = folder.epoch
    if any(row[1] == epoch and row[3:6] != identity for row in rows):
        epoch = qualified
    known = next((Known(row[0], row[1]) for row in rows if row[1] == epoch), None)
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
    position, complete, baseline_at, accepted = connection.execute(
        "SELECT position, complete, baseline_at, accepted FROM folder WHERE id = ?", (known.id,)
    ).fetchone()
    earlier = [bool(row[6]) for row in rows if row[0] != known.id]
    return known, FolderState(
        folder=folder,
        position=None if position is None else Position(position),
        first_run=not earlier and not complete,
        epoch_changed=bool(earlier) and not complete,
        complete=bool(complete),
        baseline_at=instant(baseline_at),
        # A completed listing covers what earlier, uncompleted ones had left, so the latest of them speaks for all.
        settled_before=earlier[-1] if earlier else True,
        accepted=accepted,
    )


def rename(connection: Connection, old: str, new: str) -> None:
    """Give the rows of mailbox ``old`` to ``new``, if ``new`` has none: nothing is ever merged."""
    connection.execute(
        "UPDATE folder SET mailbox = :new WHERE mailbox = :old "
        "AND NOT EXISTS (SELECT 1 FROM folder WHERE mailbox = :new)",
        {"old": old, "new": new},
    )


def find(connection: Connection, folder: Folder) -> Known | None:
    """The row of a folder that :func:`open_folder` registered, now or in an earlier run."""
    row = connection.execute(
        "SELECT id, epoch FROM folder WHERE mailbox = ? AND name = ? AND epoch = ?",
        (folder.mailbox, folder.name, folder.epoch),
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


def advance(connection: Connection, known: Known, position: Position, now: int) -> None:
    connection.execute("UPDATE folder SET position = ?, advanced_at = ? WHERE id = ?", (position, now, known.id))


def complete(connection: Connection, known: Known) -> None:
    connection.execute("UPDATE folder SET complete = 1, held = NULL, accepted = NULL WHERE id = ?", (known.id,))


def hold(connection: Connection, known: Known, reason: str) -> None:
    connection.execute("UPDATE folder SET held = ?, accepted = NULL WHERE id = ?", (clean(reason), known.id))


def accept(connection: Connection, mailbox: str, how: Literal["baseline", "replay"]) -> int:
    return connection.execute(
        "UPDATE folder SET held = NULL, accepted = ? WHERE mailbox = ? AND held IS NOT NULL", (how, mailbox)
    ).rowcount


def unknown(connection: Connection, known: Known, sizes: Iterable[int | None]) -> int:
    """How many of ``sizes`` no settled message of an earlier epoch had, each earlier size counting once for each message."""
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


def forget(connection: Connection, mailbox: str) -> int:
    (count,) = connection.execute(
        "SELECT count(*) FROM message JOIN folder ON folder.id = message.folder WHERE mailbox = ?", (mailbox,)
    ).fetchone()
    connection.execute("DELETE FROM folder WHERE mailbox = ?", (mailbox,))  # messages go with it
    connection.execute("DELETE FROM fault WHERE subject = ?", (mailbox,))
    return int(count)
