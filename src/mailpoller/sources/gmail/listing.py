"""Listing a label: the mailbox's history from where the last listing ended, and everything where it does not reach
back so far."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from mailpoller.core.message import Folder, MessageRef, Page, Position
from mailpoller.core.ports import Clock, Start
from mailpoller.core.record import record
from mailpoller.remote.gaps import CONFIRMED, Gaps, Passed, without_id, words_of
from mailpoller.remote.gmail.client import GmailClient
from mailpoller.sources.gmail.contents import PAGE, Contents, EndlessListing, HistoryLost, history_id
from mailpoller.sources.gmail.looking import looked_at

log = structlog.get_logger(__name__)

RENEWAL = timedelta(hours=6)
"""So old may a position grow while nothing comes, before it is replaced: the service keeps history for a week, rarely
for hours only."""
CLOCK_MARGIN = timedelta(minutes=10)
"""So far our clock may be from the service's."""


@record
class Bookmark:
    """A position. ``history``: the id from which on to ask; ``at``: when it was reached. ``start``: what the first
    listing wants of the messages that were there at that id; None once it has ended, for then the ledger knows what
    was left out. ``gaps``: how many sessions have found that what follows contradicts itself. ``passed``: what three
    of them met, and is behind it."""

    history: str
    at: datetime
    start: Start | None = None
    gaps: int = 0
    passed: Passed | None = None

    @classmethod
    def read(cls, position: Position) -> Bookmark | None:
        """The inverse of :meth:`write`; None for what is not ours."""
        try:
            found = json.loads(position)
            instant = datetime.fromisoformat(found["instant"]) if found.get("instant") else None
            start = Start(found["start"], instant) if found.get("start") else None
            at, gaps = datetime.fromisoformat(found["at"]), int(found.get("gaps", 0))
            bookmark = cls(history_id(found["history"]), at, start, gaps, Passed.read(found.get("passed")))
        except (ValueError, TypeError, KeyError, AttributeError, EndlessListing):
            return None
        aware = all(one.tzinfo for one in (bookmark.at, instant) if one is not None)
        known = start is None or start.kind in ("now", "unseen", "since", "all")
        return bookmark if aware and known else None

    def write(self) -> Position:
        """JSON, on one line."""
        fields: dict[str, str | int] = {"history": self.history, "at": self.at.isoformat()}
        if self.gaps:
            fields["gaps"] = self.gaps
        if self.passed is not None:
            fields["passed"] = self.passed.write()
        if self.start is not None:
            fields["start"] = self.start.kind
            if self.start.instant is not None:
                fields["instant"] = self.start.instant.isoformat()
        return Position(json.dumps(fields))


@record
class Listed:
    """A page for the engine, and the history id that was reached, if it is the last one."""

    page: Page
    history: str = ""


class Listing:
    """Lists one label, whose id is ``label``."""

    def __init__(self, client: GmailClient, folder: Folder, label: str, clock: Clock, gaps: Gaps) -> None:
        self._gaps = gaps
        self._folder = folder
        self._client = client
        self._label = label
        self._contents = Contents(client, label)
        self._clock = clock

    async def pages(self, since: Position | None, start: Start) -> AsyncIterator[Listed]:
        """See :meth:`mailpoller.core.ports.Session.pending`. Raises as :class:`GmailClient`; :class:`EndlessListing`.

        A history that does not reach back far enough is made good by listing everything, once: ids never change, so
        the ledger knows what it has. What ``start`` left out was recorded when it was.
        """
        bookmark = None if since is None else Bookmark.read(since)
        if since is not None and bookmark is None:
            self._restarted("the position cannot be read")
            start = Start("all")
        if bookmark is not None and bookmark.passed is not None and bookmark.passed.is_due(self._clock.now()):
            bookmark = Bookmark(await self._contents.now(), self._clock.now(), Start("all"), gaps=CONFIRMED - 1)
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

        The history id is taken before the first page, and the history from there on is asked for after the last one.
        So nothing that comes while we list can be missed, and nothing of it is mistaken for what was there before.
        """
        if bookmark is None:
            bookmark = Bookmark(await self._contents.now(), self._clock.now(), start)
        if start.kind != "all":
            # Should this listing not end: the next one starts anew, and knows what was there at the beginning.
            yield Listed(Page((), bookmark.write()))
        wanted = [] if start.kind == "now" else await self._contents.messages(start)
        there = dict.fromkeys([] if start.kind == "all" else await self._contents.messages(Start("all")))
        try:
            came, reached, _ = await self._contents.since(bookmark.history)
        except HistoryLost as error:
            # A first listing that was begun long ago. What was there then is told by its date: once too often is
            # better than never.
            self._restarted(str(error))
            reached = await self._contents.now()
            came = await self._contents.messages(Start("since", bookmark.at - CLOCK_MARGIN))
        new = list(dict.fromkeys([*wanted, *came]))
        for uid in new:
            there.pop(uid, None)
        begun = replace(bookmark, start=start, passed=None)
        after = self._ended(begun, Bookmark(reached, self._clock.now()), len(new))
        # What is left out is what all lists are whole without: else it may be wanted, and on a page that did not come.
        left_out = [] if after.gaps else self._refs(list(there))
        for page in self._divided(new, after, left_out):
            # A date costs a request for each message, so only whoever needs it gets it.
            shown = replace(page, refs=await self._dated(page.refs)) if start.dated else page
            yield Listed(shown, reached if page.position and not after.gaps else "")

    @property
    def _partial(self) -> bool:
        return bool(self._contents.trouble or self._contents.unreadable)

    def _ended(self, before: Bookmark, reached: Bookmark, listed: int) -> Bookmark:
        """Where a listing from ``before`` on leads: to ``reached``, if it was whole or is confirmed to be never so,
        else back, with a gap."""
        if not self._partial:
            return replace(reached, passed=before.passed)
        met = self._gaps.met(before.gaps)
        unreadable = self._contents.unreadable
        passed = met >= CONFIRMED and not self._contents.trouble
        self._gaps.tell(self._contents.trouble or without_id(unreadable), listed, passed=passed)
        if not passed:
            return replace(before, gaps=met)
        self._gaps.passed()
        count = unreadable + (0 if before.passed is None else before.passed.count)
        return replace(reached, passed=Passed(count, self._clock.now()))

    def _divided(self, uids: list[str], after: Bookmark, unwanted: Sequence[MessageRef] = ()) -> Iterator[Page]:
        """The pages that show these; the last one has the position, and says what is left out."""
        for begin in range(0, max(len(uids), 1), PAGE):
            refs = self._refs(uids[begin : begin + PAGE])
            last = begin + PAGE >= len(uids)
            if last:
                gap, partial = words_of(after.passed), bool(after.gaps)
                yield Page(refs, after.write(), len(uids), unwanted, gap=gap, partial=partial)
            else:
                yield Page(refs, None, len(uids))

    # --- what has changed --------------------------------------------------------------------------------------
    async def _changes(self, bookmark: Bookmark, since: Position) -> AsyncIterator[Listed]:
        """What came since the bookmark; only the last page has a position."""
        new, reached, _ = await self._contents.since(bookmark.history)
        if trouble := self._contents.trouble:
            if self._gaps.met(bookmark.gaps) >= CONFIRMED:
                self._gaps.passed()
                self._contents = Contents(self._client, self._label)
                raise HistoryLost(trouble)
            # A search by date is what a history that contradicts itself is checked by.
            new = list(
                dict.fromkeys([*new, *await self._contents.messages(Start("since", bookmark.at - CLOCK_MARGIN))])
            )
        if (
            not new
            and not self._partial
            and not bookmark.gaps
            and timedelta(0) <= self._clock.now() - bookmark.at < RENEWAL
        ):
            # The old id is as good, and a new one would be a write to the ledger at every poll.
            yield Listed(Page((), since, 0, gap=words_of(bookmark.passed)), reached)
            return
        after = self._ended(bookmark, Bookmark(reached, self._clock.now()), len(new))
        for page in self._divided(new, after):
            yield Listed(page, reached if page.position and not after.gaps else "")

    async def _dated(self, refs: Sequence[MessageRef]) -> list[MessageRef]:
        found = await looked_at(self._client, [ref.uid for ref in refs])
        return [replace(ref, received=found[ref.uid].received) if ref.uid in found else ref for ref in refs]

    def _refs(self, uids: list[str]) -> list[MessageRef]:
        return [MessageRef(self._folder, uid) for uid in uids]
