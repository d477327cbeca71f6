"""Listing a folder: which uids, how far, and what ``start`` leaves out. 100,000 messages are 400 KB of uids here.

A listing is believed if it shows all that EXISTS counts: sequence numbers without a gap, from the first one to the
last.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import structlog

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Folder, Page, Position
from mailpoller.core.ports import Start
from mailpoller.sources.imap.bookmark import Bookmark, Gap
from mailpoller.sources.imap.details import (
    MAX_UID,
    WITNESS,
    Lines,
    Order,
    ask,
    in_turns,
    merged,
    newest,
    search,
    within,
)
from mailpoller.sources.imap.wholeness import are_all_hits, fewest, is_whole
from mailpoller.wire.imap.command import Request
from mailpoller.wire.imap.protocol import ImapProtocol
from mailpoller.wire.imap.responses import MONTH_NAMES
from mailpoller.wire.imap.selected import SelectedFolder

log = structlog.get_logger(__name__)

PAGE = 500
"""Messages in a page, and how many new ones are listed with their sizes in one round trip."""
_SIZE_ONLY = "(RFC822.SIZE)"
_MOST_GAPS = 1000


@dataclass(slots=True)
class Listing:
    """A listing that is made: uids, ascending; what is known of them already, in ``lines``.

    ``bookmark`` is where it began, ``ends`` where it leads to once all of it is recorded.
    """

    folder: Folder
    mailbox: SelectedFolder
    bookmark: Bookmark
    uids: array[int] = field(default_factory=lambda: array("I"))
    lines: Lines | None = None
    dated: bool = False
    cap: int = MAX_UID
    """The last uid before a gap: no bookmark passes it."""
    past: int = 0
    """The last uid of a gap that is passed, behind all others."""
    count: int | None = None
    """How many messages there were in the end, as far as that is known."""
    complete: bool = True
    """False: to be made again at the next poll, whatever the server says of news."""
    asked: _Details | None = None

    @property
    def partial(self) -> bool:
        """There is a gap that is not confirmed yet: what it hides may be listed the next time."""
        return self.cap < MAX_UID

    @property
    def following(self) -> int:
        """The first uid that is beyond this listing."""
        return self.ends.following

    @property
    def ends(self) -> Bookmark:
        """The bookmark once all is recorded."""
        last = self.uids[-1] if self.uids else 0
        end = self._reached(max(last, self.bookmark.first - 1, self.past), len(self.uids))
        if not self.complete:
            return end
        gaps = tuple(gap for gap in end.gaps if gap.confirmed and gap.high < end.following)
        return _below(end if gaps == end.gaps else replace(end, gaps=gaps), self.count)

    def _reached(self, uid: int, listed: int) -> Bookmark:
        """The bookmark once the first ``listed`` uids are recorded, the last of which is ``uid``."""
        before, uid = self.bookmark, min(uid, self.cap)
        if uid < before.following:
            return before
        below = before.below
        if below is not None:
            later = bisect_right(self.uids, uid, 0, listed) - bisect_left(self.uids, before.following, 0, listed)
            hidden = sum(gap.missing for gap in before.gaps if before.following <= gap.low and gap.high <= uid)
            below = below + later + hidden if before.following >= before.first else None
        return replace(before, following=uid + 1, below=below)

    async def pages(self, protocol: ImapProtocol) -> AsyncIterator[Page]:
        """The pages; sizes (and dates, where ``since`` needs the instant) are asked for one page ahead.

        Should another folder be opened meanwhile, the rest has no sizes, which are only hints.
        """
        asked = self.asked or self._ask(protocol, 0)
        for begin in range(0, len(self.uids), PAGE):
            ahead = self._ask(protocol, begin + PAGE)
            page = self.uids[begin : begin + PAGE]
            lines = self.lines if self.lines is not None else await _Details.gather(asked)
            wanted = [uid for uid in page if self._wants(uid, lines.dates.get(uid))]
            end = begin + len(page)
            bookmark = self.ends if end == len(self.uids) else self._reached(page[-1], end)
            refs = [lines.ref(self.folder, uid) for uid in wanted]
            partial = self.partial and end == len(self.uids)
            yield Page(refs, bookmark.write(), self._listed, gap=bookmark.gap, partial=partial)
            asked = ahead
        if not self.uids:
            yield Page((), self.ends.write(), gap=self.ends.gap, partial=self.partial)

    def _ask(self, protocol: ImapProtocol, begin: int) -> _Details | None:
        page = self.uids[begin : begin + PAGE]
        if self.lines is not None or not page:
            return None
        start = self.bookmark.start
        dated = self.dated or (start is not None and start.kind == "since" and page[0] < self.bookmark.first)
        return _Details(protocol, self.mailbox, page, WITNESS if dated else _SIZE_ONLY)

    @property
    def _listed(self) -> int | None:
        """How many refs all pages have; not known where dates, which come a page at a time, decide."""
        start = self.bookmark.start
        return None if start is not None and start.kind == "since" else len(self.uids)

    def _wants(self, uid: int, received: datetime | None) -> bool:
        start = self.bookmark.start
        if start is None or start.kind != "since" or uid >= self.bookmark.first or received is None:
            return True
        return start.instant is None or received >= start.instant


class _Details:
    """Sizes and dates of one page, asked for and awaited."""

    def __init__(self, protocol: ImapProtocol, mailbox: SelectedFolder, uids: array[int], items: str) -> None:
        self.lines = Lines(wanted=frozenset(uids))
        self._requests: list[Request] = ask(protocol, mailbox, uids, self.lines, items)

    @classmethod
    async def gather(cls, asked: _Details | None) -> Lines:
        """What the server said; what it did not say stays unknown."""
        if asked is None:
            return Lines()
        # Each request holds on to the details it is for: let go of, or only the collector of cycles frees them, and
        # that is seldom.
        requests, asked._requests = asked._requests, []
        for request in requests:
            await request.answer()
        return asked.lines


@dataclass(slots=True)
class Sightings:
    """What one session has seen of gaps: each counts once a session."""

    counted: set[tuple[str, int]] = field(default_factory=set)


async def list_folder(
    protocol: ImapProtocol,
    mailbox: SelectedFolder,
    folder: Folder,
    since: Position | None,
    start: Start,
    *,
    sightings: Sightings | None = None,
    today: int = 0,
) -> Listing:
    """List the folder that is selected. ``today``: proleptic ordinal of the day, on which each confirmed gap is asked
    for once.

    Raises :class:`TransientError` with the server's words if it refuses.
    """
    bookmark = Bookmark.read(since)
    if bookmark is None:
        first = 0 if start.kind == "all" else await _next_uid(protocol, mailbox)
        bookmark = Bookmark(1, first, None if start.kind == "all" else start, below=0)
    listing = Listing(folder, mailbox, bookmark, dated=start.dated)
    late = await _late(protocol, listing, today)
    if bookmark.following < bookmark.first and mailbox.exists and (criteria := _criteria(bookmark)) is not None:
        found = await search(protocol, mailbox, criteria)
        listing.uids.extend(within(found, bookmark.following, bookmark.first - 1))
    low = max(bookmark.following, bookmark.first)
    fresh = mailbox.uidnext == low and not mailbox.arrived
    if not mailbox.exists or fresh:
        listing.count = mailbox.exists
    else:
        await _list_new(protocol, listing, low, sightings or Sightings())
    if late:
        listing.uids = await merged(listing.uids, array("I", sorted(late)))
        listing.asked = listing.lines = None
    return listing


async def _list_new(protocol: ImapProtocol, listing: Listing, low: int, sightings: Sightings) -> None:
    """What has the uid ``low`` or a higher one."""
    mailbox = listing.mailbox
    exists = mailbox.exists
    few = mailbox.uidnext is not None and max(0, mailbox.uidnext - low) + mailbox.arrived <= PAGE
    below = None if listing.bookmark.following != low or listing.bookmark.unsettled else listing.bookmark.below
    uids: array[int] | None = None
    whole = False
    if not listing.uids and (few or exists <= PAGE):
        lines = Lines(low)
        items = WITNESS if listing.dated else _SIZE_ONLY
        answer = await protocol.run("FETCH", f"{low}:*", items, within=mailbox, on_fetch=lines.note)
        if answer.status.ok:
            uids, listing.lines = array("I", sorted(lines.sizes)), lines
            whole = is_whole(uids, lines, _counted(mailbox, exists), below)
            listing.count = lines.last
    if uids is None:
        # SEARCH has no need of sizes, which servers refuse for the sake of one message. Checked by the first page's
        # numbers, that are asked for anyway.
        uids = within(await search(protocol, mailbox, f"UID {low}:*"), low, MAX_UID)
        before = len(listing.uids)
        listing.uids.extend(uids)
        listing.asked = listing._ask(protocol, 0)
        numbers = (await _Details.gather(listing.asked)).numbers
        del listing.uids[before:]
        whole = are_all_hits(uids, numbers, _counted(mailbox, exists), below)
        listing.count = mailbox.exists
    if not whole:
        uids = await _cross_check(protocol, listing, uids, low, below, sightings)
    listing.uids.extend(uids)


def _counted(mailbox: SelectedFolder, before: int) -> int | None:
    """How many messages a listing must reach to, or None if the server's count means nothing now. What came while it
    listed may be missing: it is news."""
    return None if mailbox.uncounted else min(before, mailbox.exists)


async def _cross_check(
    protocol: ImapProtocol, listing: Listing, uids: array[int], low: int, below: int | None, sightings: Sightings
) -> array[int]:
    """A listing lacks something: ask by the other question too. What either shows is taken; what both lack is a gap."""
    mailbox, exists = listing.mailbox, listing.mailbox.exists
    found = array("I")
    if listing.lines is not None:
        try:
            found = within(await search(protocol, mailbox, f"UID {low}:*"), low, MAX_UID)
            if below is not None:
                below = len(within(await search(protocol, mailbox, f"UID 1:{low - 1}"), 1, low - 1)) if low > 1 else 0
        except TransientError:
            if protocol.lost is not None:
                raise
    order = Order(low)
    await protocol.run("FETCH", f"{low}:*", "(UID)", within=mailbox, on_fetch=order.note)
    both = await merged(uids, found, order.sort().uids)
    listing.asked = None
    if listing.lines is not None:
        for uid in both:
            listing.lines.sizes.setdefault(uid, None)
    listing.count = mailbox.exists
    exists_now = _counted(mailbox, exists)
    gaps, reached, count = await _gaps(both, order, low, below)
    count = max(count or 0, order.last)
    if exists_now is not None and count < exists_now:
        # The last ones are missing. No bookmark passes them before UIDNEXT says that they have been given numbers.
        high = (mailbox.uidnext or 0) - 1
        listing.complete = False
        gaps.append(Gap(reached + 1, max(high, reached), exists_now - count))
    if gaps:
        _remember(listing, gaps, sightings)
    return both


async def _gaps(uids: array[int], order: Order, low: int, below: int | None) -> tuple[list[Gap], int, int | None]:
    """Where messages are missing: between which uids, and how many; the last uid, and its sequence number. What only
    SEARCH has shown fills a gap in the numbers."""
    gaps: list[Gap] = []
    count, reached = below, low - 1
    async for uid in in_turns(uids):
        number = order.number(uid) or (None if count is None else count + 1)
        if number is not None and count is not None and number > count + 1 and uid > reached + 1:
            gap = Gap(reached + 1, uid - 1, number - count - 1)
            if len(gaps) == _MOST_GAPS:  # all that is beyond is one
                last = gaps.pop()
                gap = Gap(last.low, gap.high, last.missing + gap.missing)
            gaps.append(gap)
        count, reached = number, uid
    return gaps, reached, count


def _remember(listing: Listing, seen: list[Gap], sightings: Sightings) -> None:
    """Count the gaps' sessions, and keep the bookmark before the first that is not confirmed."""
    folder, bookmark = listing.folder, listing.bookmark
    known = {gap.low: gap for gap in bookmark.gaps}
    gaps: list[Gap] = []
    for gap in seen:
        before = known.pop(gap.low, None)
        sessions = 1 if before is None else before.sessions
        if (folder.name, gap.low) not in sightings.counted:
            sightings.counted.add((folder.name, gap.low))
            sessions += before is not None
            log.warning(
                "listing.incomplete", mailbox=folder.mailbox, folder=folder.name, missing=gap.missing, low=gap.low,
                high=gap.high,
                sessions=sessions,
            )  # fmt: skip
        gaps.append(replace(gap, sessions=sessions, day=0 if before is None else before.day))
    listing.complete = False
    kept = [gap for gap in known.values() if gap.confirmed]
    listing.bookmark = replace(bookmark, gaps=fewest([*kept, *(gap for gap in gaps if gap.low <= gap.high)]))
    first = next((gap for gap in gaps if not gap.confirmed or gap.high < gap.low), None)
    listing.cap = MAX_UID if first is None else first.low - 1
    listing.past = max(gap.high for gap in gaps) if first is None else 0


async def _late(protocol: ImapProtocol, listing: Listing, today: int) -> Sequence[int]:
    """Once a day: what is there now where a confirmed gap was."""
    bookmark = listing.bookmark
    due = [gap for gap in bookmark.gaps if gap.confirmed and gap.high < bookmark.following and gap.day != today]
    if not due:
        return []
    found = array("I")
    gaps = list(bookmark.gaps)
    for gap in due:
        order = Order(gap.low, gap.high)
        await protocol.run("FETCH", f"{gap.low}:{gap.high}", "(UID)", within=listing.mailbox, on_fetch=order.note)
        hit = await search(protocol, listing.mailbox, f"UID {gap.low}:{gap.high}")
        shown = await merged(order.sort().uids, within(hit, gap.low, gap.high))
        found.extend(shown)
        gaps.remove(gap)
        if len(shown) < gap.missing:
            gaps.append(replace(gap, missing=gap.missing - len(shown), day=today))
    listing.bookmark = replace(bookmark, gaps=fewest(gaps))
    return found


def lowered(position: Position | None, exists: int) -> Position | None:
    """The position, where nothing is above it and ``exists`` messages are there at all."""
    bookmark = Bookmark.read(position)
    if bookmark is None or bookmark.following < bookmark.first:
        return position
    return _below(bookmark, exists).write()


def _below(bookmark: Bookmark, count: int | None) -> Bookmark:
    """The bookmark with the number of messages below it; one that has grown, or stands ahead of the server, keeps
    what it had."""
    if count is None or bookmark.unsettled or bookmark.following < bookmark.first:
        return bookmark
    return replace(bookmark, below=count if bookmark.below is None else min(bookmark.below, count))


async def _next_uid(protocol: ImapProtocol, mailbox: SelectedFolder) -> int:
    """UIDNEXT as it is now: as SELECT told it, unless mail has come since or the server tells none.

    Raises :class:`TransientError` if it cannot be found out.
    """
    told = mailbox.uidnext or 1
    if (mailbox.uidnext and not mailbox.arrived) or not mailbox.exists:
        return told
    last, _ = await newest(protocol, mailbox)
    if not last:
        # To take 1 for UIDNEXT would make new mail of all that is there.
        raise TransientError("the server does not say which message is the newest")
    return max(told, last + 1)


def _criteria(bookmark: Bookmark) -> str | None:
    """The SEARCH for what ``start`` wants of the old messages; None: nothing."""
    old = f"UID {bookmark.following}:{bookmark.first - 1}"
    start = bookmark.start
    if start is None or start.kind == "all":
        return old
    if start.kind == "unseen":
        return f"{old} UNSEEN"
    if start.kind == "since" and start.instant is not None:
        # SINCE compares dates in a zone that the server chooses, so a day is added; the instant is checked afterwards.
        day = (start.instant.astimezone(UTC) - timedelta(days=1)).date()
        return f"{old} SINCE {day.day}-{MONTH_NAMES[day.month - 1]}-{day.year}"
    return None
