"""What operators may do with quarantined mail without a queue: look at it, take a copy, discard it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from mailpoller.core.errors import LedgerUnavailable, MessageGone
from mailpoller.core.ports import Journal, QuarantineStore
from mailpoller.core.quarantined import Quarantined, Selection
from mailpoller.engine.control import Handler, who_of

log = structlog.get_logger(__name__)

AT_ONCE = 1000
"""Messages that one answer lists."""
IDS_AT_ONCE = 10_000
PIECE = 1 << 20
"""Octets of a message in one answer."""


class Custody:
    """Carries out requests about quarantined mail. Each takes the request and returns plain data."""

    def __init__(self, store: QuarantineStore, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    def handlers(self) -> dict[str, Handler]:
        """Verb -> what carries it out."""
        return {
            "quarantine-list": self.list,
            "quarantine-ids": self.ids,
            "quarantine-octets": self.octets,
            "quarantine-discard": self.discard,
        }

    async def list(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Those that are meant, the longest held first; ``more``: there are others behind them."""
        limit = min(int(request.get("limit") or AT_ONCE), AT_ONCE)
        found = await self._store.find(selection(request), limit=limit + 1)
        return {"messages": [told(one) for one in found[:limit]], "more": len(found) > limit}

    async def ids(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The ids of all that are meant, at most :data:`IDS_AT_ONCE`, the longest held first. ``beyond``: what to ask
        with for those behind them, if there may be any."""
        found = await self._store.find(selection(request), limit=IDS_AT_ONCE)
        last = found[-1] if len(found) == IDS_AT_ONCE else None
        return {
            "ids": [one.delivery_id for one in found],
            "beyond": None if last is None else [last.held_at.isoformat(), last.delivery_id],
        }

    async def octets(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """A piece of a message's octets from ``offset`` on, in Base64, and how many there are.

        Raises :class:`MessageGone`."""
        held = await self.one(str(request["id"]))
        octets = await self._store.octets(held)
        try:
            offset = int(request.get("offset") or 0)
            piece = bytes(octets.view()[offset : offset + PIECE])
            return {"octets": base64.b64encode(piece).decode("ascii"), "size": octets.size}
        finally:
            octets.close()

    async def discard(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Let messages go for good."""
        by, results = who_of(request), []
        for one in _ids(request):
            try:
                held = await self.one(one)
            except MessageGone as gone:
                results.append({"id": one, "outcome": "gone", "detail": str(gone)})
                continue
            await self._store.remove([held.delivery_id])
            await self.note("discarded", held, by, "")
            results.append({"id": held.delivery_id, "mid": held.mid, "outcome": "discarded", "detail": ""})
        return {"results": results}

    async def one(self, name: str) -> Quarantined:
        """The message of this mid or delivery id. Raises :class:`MessageGone`."""
        if not (found := await self._store.find(Selection(ids=(name,)), limit=1)):
            raise MessageGone(f"the quarantine holds no message {name}")
        return found[0]

    async def note(self, what: str, held: Quarantined, by: str, detail: str) -> None:
        """Who did what, for the log and the journal. It is done, so the ledger's trouble is no reason to raise."""
        log.warning("quarantine.decided", mid=held.mid, mailbox=held.mailbox, what=what, by=by, reason=detail)
        words = ": ".join(word for word in (f"{held.reason} in {held.mailbox or '?'}", detail, held.mid) if word)
        try:
            await self._journal.record(f"quarantine.{what}", by, words)
        except LedgerUnavailable as error:
            log.warning("change.unrecorded", verb=f"quarantine.{what}", reason=str(error))


def selection(request: Mapping[str, Any]) -> Selection:
    """Which messages a request means."""
    return Selection(
        ids=tuple(_ids(request)) if request.get("ids") is not None else (),
        sender=str(request.get("sender") or ""),
        reason=str(request.get("reason") or ""),
        mailbox=str(request.get("mailbox") or ""),
        older_than=_seconds(request.get("older_than_s")),
        newer_than=_seconds(request.get("newer_than_s")),
        but_reason=str(request.get("but_reason") or ""),
        beyond=_beyond(request.get("beyond")),
    )


def _beyond(value: Any) -> tuple[datetime, str] | None:
    if value is None:
        return None
    at, delivery_id = value
    return datetime.fromisoformat(str(at)), str(delivery_id)


def told(held: Quarantined) -> dict[str, Any]:
    """A message, as answers have it."""
    return {
        "id": held.delivery_id,
        "mid": held.mid,
        "mailbox": held.mailbox,
        "folder": held.folder,
        "uid": held.uid,
        "reason": held.reason,
        "detail": held.detail,
        "rules": list(held.rules),
        "sender": held.sender,
        "subject": held.subject,
        "message_id": held.message_id,
        "size": held.size,
        "sha256": held.digest.hex(),
        "truncated": held.truncated,
        "received": _instant(held.received),
        "held_at": _instant(held.held_at),
        "notice_owed": held.notice_owed,
        "notice_trouble": held.notice_trouble,
    }


def _ids(request: Mapping[str, Any]) -> Sequence[str]:
    ids = request["ids"]
    if not isinstance(ids, list) or len(ids) > AT_ONCE:
        raise ValueError("a list of ids is wanted")
    return [str(one) for one in ids]


def _seconds(value: Any) -> timedelta | None:
    return None if value is None else timedelta(seconds=float(value))


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
