"""Listing a folder: which uids, how far, and what ``start`` leaves out. 100,000 messages are 400 KB of uids here."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Folder, MessageRef, Page, Position
from mailpoller.core.ports import Start
from mailpoller.sources.imap.names import uid_sets
from mailpoller.sources.imap.protocol import ImapProtocol, Mailbox, Request
from mailpoller.sources.imap.reader import ProtocolViolation
from mailpoller.sources.imap.responses import MAX_UIDS, MONTH_NAMES, Fetched, read_esearch, read_search

PAGE = 500
"""Messages in a page, and how many new ones are listed with their sizes in one round trip."""
MAX_UID = 0xFFFFFFFF
"""The last that there can be (RFC 3501 section 9, nz-number)."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A position: list from uid ``following`` on; of the uids below ``first`` only what ``start`` wants.

    ``first`` was UIDNEXT at the first listing, so that an interrupted first listing does not take mail that ``start``
    leaves out, nor leave out mail that came later. 0: no such limit.
    """

    following: int
    first: int = 0
    start: Start | None = None

    @classmethod
    def read(cls, position: Position | None) -> Bookmark | None:
        """The bookmark that was written, or None. What cannot be read is no bookmark: all is listed, the ledger knows."""
        try:
            match str(position or "").split():
                case [following]:
                    return cls(int(following))
                case [following, first, "since", instant]:
                    return cls(int(following), int(first), Start("since", datetime.fromisoformat(instant)))
                case [following, first, ("now" | "unseen") as kind]:
                    return cls(int(following), int(first), Start(kind))
        except ValueError:
            pass
        return None

    def write(self) -> Position:
        """``12``, ``12 90 unseen`` or ``12 90 since 2026-01-01T00:00:00+00:00``."""
        if self.start is None or self.following >= self.first or self.start.kind == "all":
            return Position(str(self.following))
        instant = f" {self.start.instant.isoformat()}" if self.start.instant else ""
        return Position(f"{self.following} {self.first} {self.start.kind}{instant}")

    def after(self, uid: int) -> Bookmark:
        """The bookmark once everything up to ``uid`` is recorded."""
        return Bookmark(max(self.following, uid + 1), self.first, self.start)


@dataclass(slots=True)
class Listing:
    """A listing that is complete: uids, ascending; sizes by uid where they are known already."""

    folder: Folder
    mailbox: Mailbox
    bookmark: Bookmark
    uids: array[int]
    sizes: dict[int, int | None] | None = None

    @property
    def following(self) -> int:
        """The first uid that is beyond this listing."""
        return self.bookmark.after(max(self.uids[-1] if self.uids else 0, self.bookmark.first - 1)).following

    async def pages(self, protocol: ImapProtocol) -> AsyncIterator[Page]:
        """The pages; sizes (and dates, where ``since`` needs the instant) are asked for one page ahead.

        Should another folder be opened meanwhile, the rest has no sizes, which are only hints.
        """
        asked = self._ask(protocol, 0)
        for begin in range(0, len(self.uids), PAGE):
            ahead = self._ask(protocol, begin + PAGE)
            page = self.uids[begin : begin + PAGE]
            found = await _Details.gather(asked) if self.sizes is None else None
            sizes = self.sizes if found is None else found.sizes
            assert sizes is not None
            wanted = page if found is None else [uid for uid in page if self._wants(uid, found.dates.get(uid))]
            refs = [MessageRef(self.folder, str(uid), sizes.get(uid)) for uid in wanted]
            last = begin + PAGE >= len(self.uids)
            bookmark = self.bookmark.after(max(page[-1], self.bookmark.first - 1) if last else page[-1])
            yield Page(refs, bookmark.write())
            asked = ahead
        if not self.uids:
            yield Page((), self.bookmark.after(self.bookmark.first - 1).write())

    def _ask(self, protocol: ImapProtocol, begin: int) -> _Details | None:
        page = self.uids[begin : begin + PAGE]
        if self.sizes is not None or not page:
            return None
        start = self.bookmark.start
        dated = start is not None and start.kind == "since" and page[0] < self.bookmark.first
        return _Details.ask(protocol, self.mailbox, page, "(RFC822.SIZE INTERNALDATE)" if dated else "(RFC822.SIZE)")

    def _wants(self, uid: int, received: datetime | None) -> bool:
        start = self.bookmark.start
        if start is None or start.kind != "since" or uid >= self.bookmark.first or received is None:
            return True
        return start.instant is None or received >= start.instant


class _Details:
    """Sizes and dates of one page, asked for and awaited."""

    def __init__(self) -> None:
        self.sizes: dict[int, int | None] = {}
        self.dates: dict[int, datetime] = {}
        self._requests: list[Request] = []
        self._wanted: frozenset[int] = frozenset()

    @classmethod
    def ask(cls, protocol: ImapProtocol, mailbox: Mailbox, uids: array[int], items: str) -> _Details:
        details = cls()
        details._wanted = frozenset(uids)
        for _, piece in uid_sets(uids):
            details._requests.append(protocol.submit("FETCH", piece, items, within=mailbox, on_fetch=details._note))
        return details

    @classmethod
    async def gather(cls, asked: _Details | None) -> _Details:
        """What the server said; what it did not say stays unknown."""
        if asked is None:
            return cls()
        # Each request holds on to the details it is for: let go of, or only the collector of cycles frees them, and that is seldom.
        requests, asked._requests = asked._requests, []
        for request in requests:
            await request.answer()
        return asked

    def _note(self, fetched: Fetched) -> bool:
        uid = int(fetched.uid or 0)
        if uid not in self._wanted or fetched.size is None:
            return False
        self.sizes[uid] = fetched.size
        if fetched.received is not None:
            self.dates[uid] = fetched.received
        return True


async def list_folder(
    protocol: ImapProtocol, mailbox: Mailbox, folder: Folder, since: Position | None, start: Start
) -> Listing:
    """List the folder that is selected. Raises :class:`TransientError` with the server's words if it refuses."""
    bookmark = Bookmark.read(since)
    if bookmark is None:
        first = 0 if start.kind == "all" else await _next_uid(protocol, mailbox)
        bookmark = Bookmark(1, first, None if start.kind == "all" else start)
    listing = Listing(folder, mailbox, bookmark, array("I"))
    if bookmark.following < bookmark.first and mailbox.exists and (criteria := _criteria(bookmark)) is not None:
        listing.uids.extend(_within(await _search(protocol, mailbox, criteria), bookmark.following, bookmark.first - 1))
    low = max(bookmark.following, bookmark.first)
    fresh = mailbox.uidnext == low and not mailbox.arrived
    if not mailbox.exists or fresh:
        return listing
    few = mailbox.uidnext is not None and max(0, mailbox.uidnext - low) + mailbox.arrived <= PAGE
    if listing.uids or not (few or mailbox.exists <= PAGE) or not await _list_few(protocol, listing, low):
        listing.uids.extend(_within(await _search(protocol, mailbox, f"UID {low}:*"), low, MAX_UID))
    return listing


async def _list_few(protocol: ImapProtocol, listing: Listing, low: int) -> bool:
    """Uids and sizes in one round trip. ``n:*`` also gives the last message when it lies below n (RFC 3501, seq-range).

    False: refused, perhaps for one message whose size the server cannot tell; SEARCH has no need of sizes.
    """
    sizes: dict[int, int | None] = {}

    def note(fetched: Fetched) -> bool:
        uid = int(fetched.uid or 0)
        if low <= uid <= MAX_UID:  # also if only its flags are told: it is there
            sizes[uid] = fetched.size or sizes.get(uid)
        if len(sizes) > MAX_UIDS:
            raise ProtocolViolation(f"a listing of more than {MAX_UIDS} messages")
        return fetched.size is not None

    answer = await protocol.run("FETCH", f"{low}:*", "(RFC822.SIZE)", within=listing.mailbox, on_fetch=note)
    if answer.status.ok:
        listing.uids.extend(sorted(sizes))
        listing.sizes = sizes
    return answer.status.ok


async def _next_uid(protocol: ImapProtocol, mailbox: Mailbox) -> int:
    """UIDNEXT as it is now: as SELECT told it, unless mail has come since or the server tells none.

    Raises :class:`TransientError` if it cannot be found out.
    """
    told = mailbox.uidnext or 1
    if (mailbox.uidnext and not mailbox.arrived) or not mailbox.exists:
        return told
    newest = await _newest(protocol, mailbox)
    if not newest:
        # To take 1 for UIDNEXT would make new mail of all that is there.
        raise TransientError("the server does not say which message is the newest")
    return max(told, newest + 1)


async def _newest(protocol: ImapProtocol, mailbox: Mailbox) -> int:
    """The uid of the last message, or 0. By FETCH, because Courier, which tells no UIDNEXT, does not know ``*`` in a SEARCH."""
    found = [0]

    def note(fetched: Fetched) -> bool:
        found.append(int(fetched.uid or 0))
        return False

    await protocol.run("FETCH", "*", "(UID)", within=mailbox, on_fetch=note)
    return max(found)


async def _search(protocol: ImapProtocol, mailbox: Mailbox, criteria: str) -> array[int]:
    options = ("RETURN", "(ALL)") if protocol.offers("ESEARCH") else ()
    answer = await protocol.run("SEARCH", *options, criteria, within=mailbox, wants=(b"SEARCH", b"ESEARCH"))
    if not answer.status.ok:
        raise TransientError(f"the server does not list the folder: {answer.status}")
    found: array[int] = array("I")
    try:
        for response in answer.data:
            line = response[0]
            assert isinstance(line, bytes)
            _, keyword, *rest = line.split(b" ", 2)
            words = rest[0] if rest else b""
            found.extend(read_search(words) if keyword.upper() == b"SEARCH" else read_esearch(words))
    except ProtocolViolation as violation:
        protocol.lose(f"the server broke the protocol: {violation}")
        raise TransientError(str(violation)) from violation
    return found


def _within(uids: array[int], low: int, high: int) -> array[int]:
    return array("I", sorted({uid for uid in uids if low <= uid <= high}))


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
