"""What changed and who did it; what is paused; and by which sums a changed configuration is known."""

from __future__ import annotations

from collections.abc import Mapping
from sqlite3 import Connection

from mailpoller.core.ports import Change, Pause
from mailpoller.ledgers.sqlite.values import clean, document, instant, undocument

CHANGES_KEPT = 10_000
"""The newest ones."""


def record(connection: Connection, event: str, who: str, detail: str, now: int) -> None:
    """See :meth:`Ledger.record`."""
    connection.execute(
        "INSERT INTO change (at, event, who, detail) VALUES (?, ?, ?, ?)", (now, event, clean(who), clean(detail))
    )
    connection.execute("DELETE FROM change WHERE id <= (SELECT max(id) FROM change) - ?", (CHANGES_KEPT,))


def changes(connection: Connection, since: int, limit: int) -> list[Change]:
    """See :meth:`Ledger.changes`."""
    rows = connection.execute(
        "SELECT at, event, who, detail FROM change WHERE at >= ? ORDER BY id DESC LIMIT ?", (since, limit)
    )
    return [Change(instant(at), *rest) for at, *rest in rows]


def pause(connection: Connection, what: str, who: str, now: int) -> bool:
    """See :meth:`Ledger.pause`."""
    return (
        connection.execute(
            "INSERT INTO pause (what, at, who) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (what, now, clean(who))
        ).rowcount
        == 1
    )


def resume(connection: Connection, what: str) -> bool:
    """See :meth:`Ledger.resume`."""
    return connection.execute("DELETE FROM pause WHERE what = ?", (what,)).rowcount == 1


def pauses(connection: Connection) -> dict[str, Pause]:
    """See :meth:`Ledger.pauses`."""
    return {
        what: Pause(instant(at), who)
        for what, at, who in connection.execute("SELECT what, at, who FROM pause ORDER BY at, what")
    }


def configured(connection: Connection, blocks: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """See :meth:`Ledger.configured`."""
    before = {block: undocument(sums) for block, sums in connection.execute("SELECT block, sums FROM configuration")}
    for block in before.keys() - blocks.keys():
        connection.execute("DELETE FROM configuration WHERE block = ?", (block,))
    for block, sums in blocks.items():
        if before.get(block) != sums:
            connection.execute(
                "INSERT INTO configuration (block, sums) VALUES (?1, ?2) ON CONFLICT (block) DO UPDATE SET sums = ?2",
                (block, document(sums)),
            )
    return before
