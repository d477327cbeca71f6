"""Listing a label: the mailbox's history from where the last listing ended, and everything where it does not reach back so far."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Folder, MessageRef, Page, Position
from mailpoller.core.ports import Clock, Start
from mailpoller.sources.gmail.client import HISTORY_LIST, MESSAGES_LIST, PROFILE, GmailClient, Query
from mailpoller.sources.gmail.config import HIDDEN, UNREAD
from mailpoller.sources.gmail.errors import Missing

log = structlog.get_logger(__name__)

PAGE = 500
"""Messages, or records of the history, of one page: the most that the service gives."""
MOST_PAGES = 20_000
"""Pages of one listing, at most."""
MOST_EMPTY = 200
"""Pages without anything, one after the other, at most."""
_ROUNDS = 4
"""How often a label is listed at one time, at most."""
LONGEST_TOKEN = 4_096
LONGEST_UID = 128
RENEWAL = timedelta(hours=6)
"""So old may a position grow while nothing comes, before it is replaced: the service keeps history for a week, rarely for hours only."""
CLOCK_MARGIN = timedelta(minutes=10)
"""So far our clock may be from the service's."""
DOING = "list the label"

_HISTORY = (
    ("historyTypes", "messageAdded"),
    ("historyTypes", "labelAdded"),
    ("historyTypes", "labelRemoved"),
    ("historyTypes", "messageDeleted"),
    ("maxResults", str(PAGE)),
    (
        "fields",
        "history(messagesAdded(message(id,labelIds)),labelsAdded(message(id,labelIds),labelIds),"
        "labelsRemoved(message(id,labelIds),labelIds),messagesDeleted(message(id))),nextPageToken,historyId",
    ),
)


class EndlessListing(TransientError):
    """The service's pages make no sense: they have no end, or do not say what they must."""


class HistoryLost(TransientError):
    """The service no longer knows what came since."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A position. ``history``: the id from which on to ask; ``at``: when it was reached. ``start``: what the first listing wants of
    the messages that were there at that id; None once it has ended, for then the ledger knows what was left out."""

    history: str
    at: datetime
    start: Start | None = None

    @classmethod
    def read(cls, position: Position) -> Bookmark | None:
        """The inverse of :meth:`write`; None for what is not ours."""
        try:
            found = json.loads(position)
            instant = datetime.fromisoformat(found["instant"]) if found.get("instant") else None
            start = Start(found["start"], instant) if found.get("start") else None
            bookmark = cls(history_id(found["history"]), datetime.fromisoformat(found["at"]), start)
        except (ValueError, TypeError, KeyError, AttributeError, EndlessListing):
            return None
        aware = all(one.tzinfo for one in (bookmark.at, instant) if one is not None)
        known = start is None or start.kind in ("now", "unseen", "since", "all")
        return bookmark if aware and known else None

    def write(self) -> Position:
        """JSON, on one line."""
        fields = {"history": self.history, "at": self.at.isoformat()}
        if self.start is not None:
            fields["start"] = self.start.kind
            if self.start.instant is not None:
                fields["instant"] = self.start.instant.isoformat()
        return Position(json.dumps(fields))


@dataclass(frozen=True, slots=True)
class Listed:
    """A page for the engine, and the history id that was reached, if it is the last one."""

    page: Page
    history: str = ""


class Listing:
    """Lists one label, whose id is ``label``."""

    def __init__(self, client: GmailClient, folder: Folder, label: str, clock: Clock) -> None:
        self._client = client
        self._folder = folder
        self._label = label
        self._clock = clock

    async def pages(self, since: Position | None, start: Start) -> AsyncIterator[Listed]:
        """See :meth:`mailpoller.core.ports.Session.pending`. Raises as :class:`GmailClient`; :class:`EndlessListing`.

        A history that does not reach back far enough is made good by listing everything, once: ids never change, so the ledger
        knows what it has. What ``start`` left out was recorded when it was.
        """
        bookmark = None if since is None else Bookmark.read(since)
        if since is not None and bookmark is None:
            self._restarted("the position cannot be read")
            start = Start("all")
        if bookmark is not None and bookmark.start is not None:
            start = bookmark.start
        elif bookmark is not None and since is not None:
            try:
                async for listed in self._changes(bookmark, since):
                    yield listed
                return
            except HistoryLost as error:
                self._restarted(str(error))
                bookmark, start = None, Start("all")
        async for listed in self._everything(bookmark, start):
            yield listed

    def _restarted(self, reason: str) -> None:
        log.warning("listing.restarted", mailbox=self._folder.mailbox, folder=self._folder.name, reason=reason)

    # --- a full listing ----------------------------------------------------------------------------------------
    async def _everything(self, bookmark: Bookmark | None, start: Start) -> AsyncIterator[Listed]:
        """All that ``start`` wants, and all that came meanwhile.

        The history id is taken before the first page, and the history from there on is asked for after the last one. So nothing that
        comes while we list can be missed, and nothing of it is mistaken for what was there before.
        """
        if bookmark is None:
            bookmark = Bookmark(await self._now(), self._clock.now(), start)
        if start.kind != "all":
            # Should this listing not end: the next one starts anew, and knows what was there at the beginning.
            yield Listed(Page((), bookmark.write()))
        wanted = [] if start.kind == "now" else await self._messages(start)
        there = dict.fromkeys([] if start.kind == "all" else await self._messages(Start("all")))
        try:
            came, reached, _ = await self._since(bookmark.history)
        except HistoryLost as error:
            # A first listing that was begun long ago. What was there then is told by its date: once too often is better than never.
            self._restarted(str(error))
            reached = await self._now()
            came = await self._messages(Start("since", bookmark.at - CLOCK_MARGIN))
        new = list(dict.fromkeys([*wanted, *came]))
        for uid in new:
            there.pop(uid, None)
        position = Bookmark(reached, self._clock.now()).write()
        for page in self._divided(new, position, self._refs(list(there))):
            yield Listed(page, reached if page.position else "")

    def _divided(self, uids: list[str], position: Position, unwanted: Sequence[MessageRef] = ()) -> Iterator[Page]:
        """The pages that show these; the last one has the position, and says what is left out."""
        for begin in range(0, max(len(uids), 1), PAGE):
            refs = self._refs(uids[begin : begin + PAGE])
            last = begin + PAGE >= len(uids)
            yield Page(refs, position if last else None, len(uids), unwanted if last else ())

    async def _now(self) -> str:
        """The history id of this moment."""
        profile = await self._client.get("/profile", DOING, PROFILE, [("fields", "historyId")])
        return history_id(profile.get("historyId"))

    async def _messages(self, start: Start) -> list[str]:
        """The uids of the messages under the label that ``start`` wants.

        What leaves the label while we turn the pages may draw others over the edge of a page that is yet to come, where they would not be
        met. So it is listed again until nothing left meanwhile, a few times at most, and what any round met counts.
        """
        query: list[tuple[str, str]] = [("labelIds", self._label)]
        if start.kind == "unseen":
            query.append(("labelIds", UNREAD))
        if start.kind == "since" and start.instant is not None:
            # The search counts in whole seconds, and whether it includes this one is not said.
            query.append(("q", f"after:{int(start.instant.timestamp()) - 1}"))
        if self._label in HIDDEN:
            query.append(("includeSpamTrash", "true"))
        query += [("maxResults", str(PAGE)), ("fields", "messages(id),nextPageToken")]
        found: dict[str, None] = {}
        history = await self._now()
        for _ in range(_ROUNDS):
            pages = 0
            async for body in self._paged("/messages", MESSAGES_LIST, query, "messages"):
                found.update((_uid(one), None) for one in _listed(body, "messages"))
                pages += 1
            if pages == 1:
                break
            try:
                _, history, left = await self._since(history)
            except HistoryLost:
                history, left = await self._now(), True
            if not left:
                break
        return list(found)

    # --- what has changed --------------------------------------------------------------------------------------
    async def _changes(self, bookmark: Bookmark, since: Position) -> AsyncIterator[Listed]:
        """What came since the bookmark; only the last page has a position."""
        new, reached, _ = await self._since(bookmark.history)
        if not new and timedelta(0) <= self._clock.now() - bookmark.at < RENEWAL:
            # The old id is as good, and a new one would be a write to the ledger at every poll.
            yield Listed(Page((), since, 0), reached)
            return
        position = Bookmark(reached, self._clock.now()).write()
        for page in self._divided(new, position):
            yield Listed(page, reached if page.position else "")

    async def news(self, history: str) -> tuple[list[str], str]:
        """The uids of what came since ``history``, and the id after that. Raises :class:`HistoryLost`."""
        came, reached, _ = await self._since(history)
        return came, reached

    async def _since(self, history: str) -> tuple[list[str], str, bool]:
        """What came under the label since ``history``, oldest first, the id after that, and whether anything left the label.

        Raises :class:`HistoryLost`.
        """
        found: dict[str, None] = {}
        reached = history
        left = False
        query = [("startHistoryId", history), ("labelId", self._label), *_HISTORY]
        try:
            async for body in self._paged("/history", HISTORY_LIST, query, "history"):
                for record in _listed(body, "history"):
                    found.update(dict.fromkeys(self._arrivals(record)))
                    left = left or any(record.get(kind) for kind in ("messagesDeleted", "labelsRemoved", "labelsAdded"))
                reached = max(reached, history_id(body.get("historyId")), key=int)
        except Missing as error:
            raise HistoryLost(str(error)) from None
        return list(found), reached, left

    def _arrivals(self, record: Mapping[str, Any]) -> list[str]:
        """The uids of the messages that a record of the history put under our label.

        What leaves the trash or the spam shows under its labels again, and no label is added for that.
        """
        uids = []
        for kind in ("messagesAdded", "labelsAdded", "labelsRemoved"):
            for change in _listed(record, kind):
                message = change.get("message")
                if not isinstance(message, dict):
                    continue
                labels, changed = _labels(message), _labels(change) or []
                if kind == "messagesAdded":
                    came = labels is None or self._label in labels
                elif kind == "labelsAdded":
                    came = self._label in changed
                else:
                    came = bool(HIDDEN.intersection(changed)) and (labels is None or self._label in labels)
                hidden = self._label not in HIDDEN and labels is not None and HIDDEN.intersection(labels)
                if came and not hidden:
                    uids.append(_uid(message))
        return uids

    # --- pages -------------------------------------------------------------------------------------------------
    async def _paged(self, path: str, units: int, query: Query, what: str) -> AsyncIterator[dict[str, Any]]:
        """The pages of a list, to the last one; none twice, and not without end."""
        followed: set[str] = set()
        empty = 0
        token = ""
        while True:
            body = await self._client.get(path, DOING, units, [*query, *([("pageToken", token)] if token else [])])
            yield body
            empty = 0 if body.get(what) else empty + 1
            token = body.get("nextPageToken") or ""
            if not token:
                return
            if not isinstance(token, str) or len(token) > LONGEST_TOKEN:
                raise EndlessListing(f"{self._client.host}: a page of the listing does not say how to go on")
            if token in followed or len(followed) >= MOST_PAGES or empty > MOST_EMPTY:
                raise EndlessListing(f"{self._client.host}: the pages of the listing have no end")
            followed.add(token)

    def _refs(self, uids: list[str]) -> list[MessageRef]:
        return [MessageRef(self._folder, uid) for uid in uids]


def history_id(found: object) -> str:
    """A history id: a number that only the service understands, in decimal digits. Raises :class:`EndlessListing` for all else."""
    text = str(found) if isinstance(found, str | int) and not isinstance(found, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise EndlessListing("the service says no history id")
    return text


def _listed(body: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of objects; what is empty may be missing."""
    found = body.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise EndlessListing(f"a page of the listing has no list of {key}")
    return found


def _labels(found: Mapping[str, Any]) -> list[str] | None:
    labels = found.get("labelIds")
    return [one for one in labels if isinstance(one, str)] if isinstance(labels, list) else None


def _uid(message: Mapping[str, Any]) -> str:
    uid = message.get("id")
    fit = (
        isinstance(uid, str)
        and 0 < len(uid) <= LONGEST_UID
        and uid.isascii()
        and uid.replace("-", "").replace("_", "").isalnum()
    )
    if not fit or not isinstance(uid, str):
        raise EndlessListing("a message of the listing has no id")
    return uid
