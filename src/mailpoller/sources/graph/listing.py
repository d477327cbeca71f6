"""Listing a folder: delta queries from where the last one ended, and now and then a sweep by date."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import structlog

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Folder, MessageRef, Page, Position
from mailpoller.core.ports import Clock, Start
from mailpoller.core.record import record
from mailpoller.remote.gaps import CONFIRMED, Gaps, Passed, without_id, words_of
from mailpoller.remote.graph import GraphClient, SyncLost
from mailpoller.remote.pages import Pages
from mailpoller.sources.graph.items import Item, item_of
from mailpoller.wire.http import HttpAnswer, HttpStatus, http_date

log = structlog.get_logger(__name__)

PAGE = 500
"""Messages of one page that we ask for; the service may give fewer."""
MOST_PAGES = 20_000
"""Pages of one listing, at most."""
MOST_EMPTY = 200
"""Pages without a message, one after the other, at most."""
LONGEST_LINK = 16_384
"""Characters of a link that are kept; they go into the ledger."""
LONGEST_UID = 1_024
PROPERTIES = "isRead,receivedDateTime,createdDateTime,flag,categories"
DOING = "list the folder"


class EndlessListing(TransientError):
    """The service's pages make no sense: they have no end, or do not say how to go on."""


@record
class Bookmark:
    """A position. ``link``: the delta link from which to go on; empty while the first listing has not ended.
    ``swept``: when all that had come lately was listed by its date. ``start`` and ``begun``: what the first listing
    wants of the messages that were created before that instant; None once it has ended, for then the ledger knows
    what was left out. ``gaps``: how many sessions have found that what follows contradicts itself. ``passed``: what
    three of them met, and is behind it."""

    link: str
    swept: datetime
    start: Start | None = None
    begun: datetime | None = None
    gaps: int = 0
    passed: Passed | None = None

    @classmethod
    def read(cls, position: Position) -> Bookmark | None:
        """The inverse of :meth:`write`; None for what is not ours."""
        try:
            found = json.loads(position)
            start = found.get("start")
            instant = datetime.fromisoformat(found["instant"]) if found.get("instant") else None
            begun = datetime.fromisoformat(found["begun"]) if found.get("begun") else None
            bookmark = cls(
                str(found["link"]),
                datetime.fromisoformat(found["swept"]),
                Start(start, instant) if start else None,
                begun,
                int(found.get("gaps", 0)),
                Passed.read(found.get("passed")),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        aware = all(one.tzinfo for one in (bookmark.swept, instant, begun) if one is not None)
        known = start in (None, "now", "unseen", "since", "all") and bool(bookmark.link) is not bool(start and begun)
        return bookmark if aware and known else None

    def write(self) -> Position:
        """JSON, on one line."""
        fields: dict[str, str | int] = {"link": self.link, "swept": self.swept.isoformat()}
        if self.gaps:
            fields["gaps"] = self.gaps
        if self.passed is not None:
            fields["passed"] = self.passed.write()
        if self.start is not None and self.begun is not None:
            fields |= {"start": self.start.kind, "begun": self.begun.isoformat()}
            if self.start.instant is not None:
                fields["instant"] = self.start.instant.isoformat()
        return Position(json.dumps(fields))


@record
class Listed:
    """A page for the engine, what is known of its messages, and the delta link that was reached, if it is the last
    one."""

    page: Page
    items: tuple[Item, ...]
    link: str = ""


class Listing:
    """Lists one folder. ``sweep_interval`` and ``sweep_reach`` as the configuration has them."""

    def __init__(
        self,
        client: GraphClient,
        folder: Folder,
        uid: str,
        clock: Clock,
        sweep_interval: timedelta,
        sweep_reach: timedelta,
        gaps: Gaps,
    ) -> None:
        self._client = client
        self._folder = folder
        self._path = f"/mailFolders/{quote(uid, safe='')}/messages"
        self._clock = clock
        self._interval = sweep_interval
        self._reach = sweep_reach
        self._shown: set[str] = set()
        """The uids of this listing: the service repeats itself, and a message is listed once."""
        self._begun: datetime | None = None
        """When the first attempt at a full listing began."""
        self._gaps = gaps
        self._unreadable = 0
        """How many entries of this listing make no sense."""

    async def pages(self, since: Position | None, start: Start) -> AsyncIterator[Listed]:
        """See :meth:`mailpoller.core.ports.Session.pending`. Raises as :class:`GraphClient`; :class:`EndlessListing`
        where nothing could be listed. What shows some and contradicts itself is shown as far as it goes, and its
        position stays where it was.

        A delta token that is no longer known is made good by listing everything: ids never change, so the ledger knows
        what it has, and what ``start`` left out was recorded then.
        """
        bookmark = None if since is None else Bookmark.read(since)
        if since is not None and bookmark is None:
            self._restarted("the position cannot be read")
        if bookmark is None:
            bookmark = Bookmark("", self._clock.now(), start if since is None else Start("all"), None)
        if bookmark.passed is not None and bookmark.passed.is_due(self._clock.now()):
            bookmark = Bookmark("", self._clock.now(), Start("all"), None, gaps=CONFIRMED - 1)
        if bookmark.link:
            try:
                async for listed in self._changes(bookmark, since):
                    yield listed
                return
            except SyncLost as error:
                self._restarted(str(error))
                bookmark = Bookmark("", self._clock.now(), Start("all"), None)
                self._shown.clear()  # read, and not shown to anybody
                self._unreadable = 0
        known = -1
        while True:
            try:
                async for listed in self._everything(bookmark):
                    yield listed
                return
            except SyncLost as error:
                # A long listing may outlive its own token; as long as it gets on, it is begun anew and shows the rest.
                self._restarted(str(error))
                if len(self._shown) == known:
                    raise
                known = len(self._shown)

    def _restarted(self, reason: str) -> None:
        log.warning("listing.restarted", mailbox=self._folder.mailbox, folder=self._folder.name, reason=reason)

    # --- a full listing ----------------------------------------------------------------------------------------
    async def _everything(self, bookmark: Bookmark) -> AsyncIterator[Listed]:
        """The whole folder, page by page as it comes; the last page has the delta link."""
        start = bookmark.start or Start("all")
        bookmark = replace(bookmark, start=start)
        first = True
        try:
            async for answer, items, link in self._delta(""):
                if first:
                    self._begun = self._begun or bookmark.begun or _told_at(answer) or self._clock.now()
                    bookmark = replace(bookmark, begun=self._begun, swept=self._clock.now())
                wanted: list[Item] = []
                left_out: list[Item] = []
                for item in items:
                    (wanted if _wanted(item, bookmark) else left_out).append(item)
                position: Position | None = None
                reached = bookmark
                if link:
                    reached = self._ended(bookmark, link)
                    position = reached.write()
                elif first and start.kind != "all":
                    # Should this listing not end: the next one starts anew, and knows what was there at the beginning.
                    position = bookmark.write()
                page = Page(
                    self._refs(wanted), position, unwanted=self._refs(left_out), gap=words_of(reached.passed),
                    partial=bool(link and reached.gaps),
                )  # fmt: skip
                yield Listed(page, tuple(wanted), link)
                first = False
        except EndlessListing as error:
            if not self._shown:
                raise
            self._gaps.tell(str(error), len(self._shown))
            yield Listed(Page((), partial=True), ())

    def _ended(self, bookmark: Bookmark, link: str) -> Bookmark:
        """Where a listing leads to that began at ``bookmark`` and ended with ``link``; it has gaps if that is where
        it began."""
        passed = bookmark.passed
        if self._unreadable:
            met = self._gaps.met(bookmark.gaps)
            self._gaps.tell(without_id(self._unreadable), len(self._shown), passed=met >= CONFIRMED)
            if met < CONFIRMED:
                return replace(bookmark, gaps=met)
            self._gaps.passed()
            passed = Passed(self._unreadable + (0 if passed is None else passed.count), self._clock.now())
        return Bookmark(link, bookmark.swept, passed=passed)

    # --- what has changed --------------------------------------------------------------------------------------
    async def _changes(self, bookmark: Bookmark, since: Position | None) -> AsyncIterator[Listed]:
        """What came or changed since the bookmark, and if it is time what has come lately; only the last page has a
        position."""
        found: list[Item] = []
        reached = trouble = ""
        try:
            async for _, items, link in self._delta(bookmark.link):
                found += items
                reached = link
        except EndlessListing as error:
            trouble = str(error)
        now = self._clock.now()
        swept = bookmark.swept
        if trouble or self._unreadable or not timedelta(0) <= now - swept < self._interval:
            # An ordinary listing is also what a contradictory one is checked by.
            found += await self._lately(min(swept, now) - self._reach)
            swept = now
        if trouble:
            met = self._gaps.met(bookmark.gaps)
            self._gaps.tell(trouble, len(found))
            if met >= CONFIRMED:
                self._gaps.passed()
                raise SyncLost(trouble)
            after = replace(bookmark, swept=swept, gaps=met)
        else:
            after = self._ended(replace(bookmark, swept=swept), reached)
        gap = words_of(after.passed)
        if not found and after == replace(bookmark, link=after.link):
            # Where nothing came the old link is as good, and a new one would be a write to the ledger at every poll.
            # It is replaced at the next sweep, so that it does not grow too old.
            yield Listed(Page((), since, 0, gap=gap), (), reached)
            return
        for begin in range(0, max(len(found), 1), PAGE):
            items = found[begin : begin + PAGE]
            last = begin + PAGE >= len(found)
            page = Page(
                self._refs(items), after.write() if last else None, len(found), gap=gap if last else "",
                partial=last and bool(after.gaps),
            )  # fmt: skip
            yield Listed(page, tuple(items), reached if last else "")

    async def _lately(self, instant: datetime) -> list[Item]:
        """What was received at ``instant`` or later, as an ordinary listing shows it."""
        options = {
            "filter": f"receivedDateTime ge {instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "orderby": "receivedDateTime",
            "select": f"id,{PROPERTIES}",
            "top": str(PAGE),
        }
        answer = await self._client.get(self._path, DOING, **options)
        items: list[Item] = []
        links = _Links()
        while True:
            body = self._client.object(answer)
            page = self._items(body)
            items += page
            link = links.next(body, len(page))
            if not link:
                return items
            answer = await self._client.get(link, DOING)

    async def news(self, link: str, known: Mapping[str, object] | set[str]) -> tuple[bool, str]:
        """Whether something came since ``link`` that is not ``known``, and the link after that."""
        came, reached = False, link
        async for _, items, after in self._delta(link):
            came = came or any(item.uid not in known for item in items)
            reached = after
        return came, reached

    # --- delta queries -----------------------------------------------------------------------------------------
    async def _delta(self, link: str) -> AsyncIterator[tuple[HttpAnswer, list[Item], str]]:
        """The pages of a delta query from ``link`` on, or of all there is; the last has the link to go on from."""
        prefer = f"odata.maxpagesize={PAGE}"
        links = _Links()
        while True:
            if link:
                answer = await self._follow(link, prefer)
            else:
                # No filter: the service would keep it in the token, and mail that is old when it is moved here would
                # never show.
                answer = await self._client.get(f"{self._path}/delta", DOING, prefer=prefer, select=PROPERTIES)
            body = self._client.object(answer)
            items = self._items(body)
            end = links.end(body)
            yield answer, items, end
            if end:
                return
            link = links.next(body, len(items))
            if not link:
                raise EndlessListing(f"{self._client.host}: a page of the listing does not say how to go on")

    async def _follow(self, link: str, prefer: str) -> HttpAnswer:
        """A page by its link. What is wrong with a request that the service wrote itself is its token, whatever code
        it finds for that."""
        try:
            return await self._client.get(link, DOING, prefer=prefer)
        except HttpStatus as error:
            if error.status == 400:
                raise SyncLost(str(error)) from None
            raise

    def _items(self, body: Mapping[str, Any]) -> list[Item]:
        """The messages of a page that this listing has not shown yet. What was removed is no matter: whoever asks for
        it is told."""
        values = body.get("value")
        if not isinstance(values, list):
            raise EndlessListing(f"{self._client.host}: a page of the listing has no messages, not even none")
        items = []
        for value in values:
            if isinstance(value, dict) and "@removed" in value:
                continue
            value = value if isinstance(value, dict) else {}
            uid = value.get("id")
            if not isinstance(uid, str) or not 0 < len(uid) <= LONGEST_UID:
                self._unreadable += 1
            elif uid not in self._shown:
                self._shown.add(uid)
                items.append(item_of(value))
        return items

    def _refs(self, items: list[Item]) -> list[MessageRef]:
        return [MessageRef(self._folder, item.uid, received=item.received) for item in items]


class _Links:
    """The links of one listing's pages: none twice, and not without end."""

    def __init__(self) -> None:
        self._followed: set[str] = set()
        self._empty = 0
        self._pages = Pages()

    def next(self, body: Mapping[str, Any], count: int) -> str:
        """The link to the next page; empty if there is none. ``count``: the new messages of this page."""
        link = _link(body, "@odata.nextLink")
        self._empty = 0 if count else self._empty + 1
        endless = self._pages.endless(count)
        if link and (
            endless or link in self._followed or len(self._followed) >= MOST_PAGES or self._empty > MOST_EMPTY
        ):
            raise EndlessListing("the pages of the listing have no end")
        self._followed.add(link)
        return link

    def end(self, body: Mapping[str, Any]) -> str:
        """The delta link; empty unless this is the last page."""
        return "" if _link(body, "@odata.nextLink") else _link(body, "@odata.deltaLink")


def _link(body: Mapping[str, Any], name: str) -> str:
    link = body.get(name, "")
    if not isinstance(link, str) or len(link) > LONGEST_LINK or (link and "://" not in link):
        raise EndlessListing("a link of the listing is none")
    return link


def _wanted(item: Item, bookmark: Bookmark) -> bool:
    """Whether ``start`` wants a message. Where the service did not say enough the answer is yes: once too often is
    better than never."""
    start, begun = bookmark.start, bookmark.begun
    assert start is not None
    if begun is not None and item.created is not None and item.created > begun:
        return True  # it came later than the first run
    if start.kind == "unseen":
        return not item.seen
    if start.kind == "since" and start.instant is not None:
        return item.received is None or item.received >= start.instant
    return start.kind != "now"


def _told_at(answer: HttpAnswer) -> datetime | None:
    """The service's own time, which is what it dates messages by."""
    return http_date(answer.headers.get("date", ""))
