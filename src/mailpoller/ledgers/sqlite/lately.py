"""What was settled lately: the stories of it, and how many there were in each hour."""

from __future__ import annotations

from datetime import datetime
from sqlite3 import Connection
from typing import Any

from mailpoller.core.ports import Story, Wanted
from mailpoller.ledgers.sqlite import clues
from mailpoller.ledgers.sqlite.stories import KEYED, STORIES, story
from mailpoller.ledgers.sqlite.values import document, instant, micros, sender_sum

HOUR = 3_600_000_000
"""In microseconds."""
FEW = 20_000
"""Messages of one sender that are found by their clues. Of one who sent more, the newest are soon come across."""

_COUNT = """
SELECT settled_at / 3600000000, outcome, count(*) FROM {source} WHERE {where} GROUP BY 1, 2
"""
_BY_TIME = "message INDEXED BY message_settled_at"
_UNUSUAL_BY_TIME = "message INDEXED BY message_unusual"
_BY_SENDER = KEYED.replace("?1", ":keys")
_TOTAL = """
SELECT settled_at / 3600000000, count(*) FROM message INDEXED BY message_settled_at WHERE {where} GROUP BY 1
"""
_UNUSUAL = "outcome IS NOT 'delivered'"
"""What the index ``message_unusual`` holds."""


def messages(connection: Connection, wanted: Wanted, limit: int) -> list[Story]:
    """See :meth:`LedgerReader.messages`."""
    source, where, values = _sought(connection, wanted)
    statement = STORIES.format(source=f"{source} CROSS", where=where).replace("LIMIT ?2", "LIMIT :limit")
    # The index has the order already; by the expression that other stories are sorted by all would be sorted again.
    statement = statement.replace("coalesce(settled_at, claimed_at) DESC, claimed_at DESC", "settled_at DESC")
    return [story(*row) for row in connection.execute(statement, values | {"limit": limit})]


def per_hour(connection: Connection, wanted: Wanted) -> list[tuple[datetime, str, int]]:
    """See :meth:`LedgerReader.per_hour`."""
    source, where, values = _sought(connection, wanted)
    if wanted.outcome is not None or wanted.sender or wanted.domain or wanted.queue:
        counted = connection.execute(_COUNT.format(source=source, where=where), values)
        counts = {(hour, outcome): count for hour, outcome, count in counted}
    else:
        # Both from indexes alone: a look at each message costs ten times as much.
        unusual = connection.execute(
            _COUNT.format(source=_UNUSUAL_BY_TIME, where=f"{where} AND {_UNUSUAL}"), values
        ).fetchall()
        counts = {(hour, outcome): count for hour, outcome, count in unusual}
        delivered = dict(connection.execute(_TOTAL.format(where=where), values).fetchall())
        for hour, _, count in unusual:
            delivered[hour] -= count
        counts |= {(hour, "delivered"): count for hour, count in delivered.items() if count}
    return sorted((instant(hour * HOUR), outcome or "", count) for (hour, outcome), count in counts.items())


def _sought(connection: Connection, wanted: Wanted) -> tuple[str, str, dict[str, Any]]:
    """Where to look, for what, and its values. Of what has the order already, that which holds less of what is not
    wanted; what few messages of a sender there are is found without a look at those of others."""
    where, values = _where(wanted)
    if wanted.sender is not None:
        marks = [clues.of_text(wanted.sender), clues.of_text(sender_sum(wanted.sender))]
        keys = clues.find(connection, marks, FEW)
        if len(keys) < FEW:
            return _BY_SENDER, where, values | {"keys": document(keys)}
    return (_BY_TIME if wanted.outcome in (None, "delivered") else _UNUSUAL_BY_TIME), where, values


def _where(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """The condition, of constant words, and its values."""
    terms, values = ["settled_at >= :since", "settled_at IS NOT NULL"], {"since": micros(wanted.since)}
    named: dict[str, Any] = values
    if wanted.until is not None:
        terms.append("settled_at < :until")
        named["until"] = micros(wanted.until)
    if wanted.mailbox is not None:
        terms.append("message.folder IN (SELECT id FROM folder WHERE mailbox = :mailbox)")
        named["mailbox"] = wanted.mailbox
    if wanted.outcome is not None:
        terms.append("outcome = :outcome")
        if wanted.outcome != "delivered":
            terms.append(_UNUSUAL)
        named["outcome"] = wanted.outcome
    if wanted.sender is not None:
        terms.append("(sender = :sender COLLATE NOCASE OR sender = :hashed)")
        named |= {"sender": wanted.sender, "hashed": sender_sum(wanted.sender)}
    if wanted.domain is not None:
        terms.append("substr(sender, instr(sender, '@') + 1) = :domain COLLATE NOCASE")
        named["domain"] = wanted.domain
    if wanted.queue is not None:
        terms.append("EXISTS (SELECT 1 FROM json_each(receipts) WHERE key = :queue)")
        named["queue"] = wanted.queue
    return " AND ".join(terms), named
