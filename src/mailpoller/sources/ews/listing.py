"""Listing a folder by SyncFolderItems: a sync state is the position, with what is needed should the server forget
it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256

import structlog

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Folder, MessageRef, Position
from mailpoller.core.ports import Clock, Start
from mailpoller.core.record import record
from mailpoller.remote.gaps import CONFIRMED, Gaps, Passed, without_id, words_of
from mailpoller.remote.pages import Pages
from mailpoller.sources.ews import soap
from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.reader import Node
from mailpoller.sources.ews.replies import STATE_LOST, of_folder
from mailpoller.wire.http import HttpError, iso_date

log = structlog.get_logger(__name__)

AT_ONCE = 512
"""Changes of one answer; Exchange gives no more."""
MOST = 2_000_000
"""Messages of one listing. Exchange wants at most a million in a folder."""
HELD = 20_000
"""Messages of a full listing that are held back until it ends, so that it can be told how many they are. What comes
after them is shown as it comes."""
TOGETHER = 50_000
"""Changes that are taken at once, about; what came after them is taken the next time."""
MOST_EMPTY = 200
"""Answers without a change, one after the other, at most."""
UNLISTED = "-"
"""What stands in a position for the state before anything was listed."""

PROPERTIES = ("item:Size", "item:DateTimeReceived", "message:IsRead")
MODIFIED = "item:LastModifiedTime"

MARGIN = timedelta(hours=1)
"""The server's clock is not ours: what happened so long before an instant of ours may have been after it."""

NO_MAIL = frozenset({"CalendarItem", "Contact", "DistributionList", "Task", "Person", "Network", "RoleMember"})
"""Items that a folder may hold and that nobody sent."""


class StateLost(TransientError):
    """The server does not know the sync state (any more)."""


@record
class Bookmark:
    """A position: the server's ``state``, and what it takes to do without.

    ``start`` was applied to what was there at ``begun`` (our clock); at ``listed`` all that was there had been
    listed. Should the state be lost, mail received before ``begun`` is shown only if ``start`` wants it, or if it was
    changed since ``listed``, for then it may have been moved here.
    """

    state: str
    start: Start
    begun: datetime
    listed: datetime
    gaps: int = 0
    """How many sessions have found that what follows contradicts itself."""
    passed: Passed | None = None
    """What three of them met, and is behind it."""

    @classmethod
    def read(cls, position: Position) -> Bookmark | None:
        """The bookmark that was written, or None: then all is listed, and the ledger tells what it has."""
        parts = position.split(" ")
        if (parts[0], len(parts)) not in (("1", 5), ("2", 7)) or not parts[4]:
            return None
        try:
            gaps, passed = int((parts[5:] or ["0"])[0]), Passed.read(parts[-1])
            kind, at, instant = parts[1].partition("@")
            begun, listed = datetime.fromisoformat(parts[2]), datetime.fromisoformat(parts[3])
            since = datetime.fromisoformat(instant) if at else None
        except ValueError:
            return None
        if kind not in ("now", "unseen", "all", "since") or not all(
            one.tzinfo for one in (begun, listed, since or begun)
        ):
            return None
        return cls(parts[4].removeprefix(UNLISTED), Start(kind, since), begun, listed, gaps, passed)  # type: ignore[arg-type]

    def write(self) -> Position:
        """``1 unseen 2026-01-01T00:00:00+00:00 2026-01-02T00:00:00+00:00 H4sIAAA=``; with gaps ``2 … H4sIAAA= 1 -``."""
        instant = f"@{self.start.instant.isoformat()}" if self.start.instant else ""
        listed = self.listed.isoformat(timespec="seconds")
        begun = self.begun.isoformat(timespec="seconds")
        text = f"{self.start.kind}{instant} {begun} {listed} {self.state or UNLISTED}"
        if not self.gaps and self.passed is None:
            return Position(f"1 {text}")
        return Position(f"2 {text} {self.gaps} {self.passed.write() if self.passed else '-'}")


@record
class Item:
    """An item as a listing shows it. ``kind``: its element, such as ``Message`` or ``MeetingRequest``."""

    uid: str
    kind: str
    size: int | None
    seen: bool
    received: datetime | None
    modified: datetime | None


@record
class Listing:
    """A piece of what is new in a folder, in the server's order; the last one has the position behind all of it, and
    ``state``, the sync state that was reached, if the listing came to an end. ``count`` of the messages, if all are in
    this piece. ``gap``, ``partial``: see :class:`~mailpoller.core.message.Page`."""

    refs: list[MessageRef]
    position: Position | None = None
    state: str = ""
    gap: str = ""
    partial: bool = False
    count: int | None = None

    @classmethod
    def reaching(cls, refs: list[MessageRef], after: Bookmark, state: str) -> Listing:
        """One that leads to ``after``; if that has gaps, it is where the listing began."""
        return cls(refs, after.write(), state, words_of(after.passed), bool(after.gaps), len(refs))


@dataclass(slots=True)
class Changes:
    """Items that came and are still there, in order, those that went, and the state behind them: ``state`` if that is
    all, ``behind`` if there is more. ``unreadable``: how many others make no sense. ``trouble``: why the answers did
    not come to an end."""

    items: dict[str, Item] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    state: str = ""
    behind: str = ""
    unreadable: int = 0
    trouble: str = ""


async def list_folder(
    client: EwsClient, folder: Folder, uid: str, since: Position | None, start: Start, clock: Clock, gaps: Gaps
) -> AsyncIterator[Listing]:
    """See :meth:`mailpoller.core.ports.Session.pending`. ``uid`` is the folder's id.

    Raises as :meth:`EwsClient.ask`; :class:`HttpError` for a listing without end of which nothing came. One that
    shows some and contradicts itself is shown as far as it goes, and its position stays where it was.
    """
    now = clock.now()
    whole = partial(_list_all, client, folder, uid, gaps=gaps, clock=clock)
    bookmark = None if since is None else Bookmark.read(since)
    if since is None:
        everything = whole(Bookmark("", start, now, now), None)
    elif bookmark is None:
        log.warning(
            "listing.restarted", mailbox=folder.mailbox, folder=folder.name, reason="the position cannot be read"
        )
        everything = whole(Bookmark("", Start("all"), now, now), None)
    elif bookmark.passed is not None and bookmark.passed.is_due(now):
        everything = whole(replace(bookmark, state="", listed=now, gaps=CONFIRMED - 1), bookmark.listed)
    elif not bookmark.state:
        everything = whole(bookmark, bookmark.listed)
    else:
        try:
            yield await _list_changes(client, folder, uid, bookmark, gaps, now)
            return
        except StateLost as error:
            log.warning("listing.restarted", mailbox=folder.mailbox, folder=folder.name, reason=str(error))
            everything = whole(replace(bookmark, state="", listed=now), bookmark.listed)
    async with aclosing(everything):
        async for piece in everything:
            yield piece


async def _list_changes(
    client: EwsClient, folder: Folder, uid: str, bookmark: Bookmark, gaps: Gaps, now: datetime
) -> Listing:
    changes = await _changes(client, uid, bookmark.state, PROPERTIES)
    met = gaps.met(bookmark.gaps) if changes.trouble else 0
    if changes.trouble and (met >= CONFIRMED or not changes.items):
        gaps.passed()
        raise StateLost(changes.trouble)
    refs = [_ref(folder, item) for item in changes.items.values()]
    if changes.trouble:
        gaps.tell(changes.trouble, len(refs))
        return Listing.reaching(refs, replace(bookmark, gaps=met), "")
    if changes.unreadable:
        reached = replace(bookmark, state=changes.state, listed=now)
        return Listing.reaching(
            refs, _behind(changes.unreadable, len(refs), reached, bookmark, gaps, now), changes.state
        )
    # Where nothing came the old position is as good, and a new one would be a write to the ledger at every poll.
    moved = refs or changes.state != bookmark.state or bookmark.gaps
    after = replace(bookmark, state=changes.state, listed=now, gaps=0) if moved else bookmark
    return Listing.reaching(refs, after, changes.state)


def _behind(
    unreadable: int, shown: int, reached: Bookmark, before: Bookmark, gaps: Gaps, now: datetime
) -> Bookmark:  # fmt: skip
    """Where changes lead of which some cannot be read: to ``reached`` only if it is confirmed that they never can."""
    met = gaps.met(before.gaps)
    gaps.tell(without_id(unreadable), shown, passed=met >= CONFIRMED)
    if met < CONFIRMED:
        return replace(before, gaps=met)
    gaps.passed()
    count = unreadable + (0 if reached.passed is None else reached.passed.count)
    return replace(reached, gaps=0, passed=Passed(count, now))


async def _list_all(
    client: EwsClient,
    folder: Folder,
    uid: str,
    bookmark: Bookmark,
    listed: datetime | None,
    *,
    gaps: Gaps,
    clock: Clock,
) -> AsyncGenerator[Listing, None]:
    """All that the bookmark's start wants. ``listed``: when the last listing was whose state is lost, or None."""
    refs: dict[str, MessageRef] = {}
    shown = unreadable = 0
    going_on = False
    changes = Changes()
    async with aclosing(_answers(client, uid, "", (*PROPERTIES, MODIFIED))) as answers:
        async for changes in answers:
            shown, unreadable = shown + len(changes.items), unreadable + changes.unreadable
            # Sizes change with flags, and beside ids that are never given twice another size would only raise
            # questions about what is known.
            for item in changes.items.values():
                if _wanted(item, bookmark, listed):
                    refs[item.uid] = _ref(folder, item, sized=listed is None)
            for gone in changes.gone:
                refs.pop(gone, None)
            if changes.behind and (going_on or len(refs) >= HELD):
                # Should this listing not end: the next one starts anew, and knows what was there at the beginning.
                begins = None if going_on or listed is not None else replace(bookmark, state="").write()
                going_on = True
                yield Listing(list(refs.values()), begins)
                refs.clear()
    if changes.trouble and not shown:
        raise HttpError(changes.trouble)
    begun = replace(bookmark, state="", passed=None)
    after = replace(begun, state=changes.state, gaps=0)
    if changes.trouble:
        gaps.tell(changes.trouble, shown)
        # What was there at the beginning is known at the next attempt, too.
        after = replace(begun, gaps=gaps.met(bookmark.gaps))
    elif unreadable:
        after = _behind(unreadable, shown, after, begun, gaps, clock.now())
    last = Listing.reaching(list(refs.values()), after, changes.state)
    yield replace(last, count=None) if going_on else last


def _ref(folder: Folder, item: Item, *, sized: bool = True) -> MessageRef:
    return MessageRef(folder, item.uid, item.size if sized else None, item.received)


def _wanted(item: Item, bookmark: Bookmark, listed: datetime | None) -> bool:
    """Without a date the answer is yes: once too often is better than never."""
    start = bookmark.start
    if listed is not None:
        if item.received is None or item.received >= bookmark.begun - MARGIN:
            return True
        if item.modified is None or item.modified >= listed - MARGIN:
            return True
    if start.kind == "unseen":
        return not item.seen
    if start.kind == "since" and start.instant is not None:
        return item.received is None or item.received >= start.instant
    return start.kind != "now"


async def arrivals(client: EwsClient, uid: str, state: str) -> tuple[bool, str]:
    """Whether mail has come since ``state``, and the state after that. Raises :class:`StateLost`."""
    changes = await _changes(client, uid, state, ())
    if changes.trouble:
        raise StateLost(changes.trouble)
    return bool(changes.items or changes.unreadable), changes.state


async def _changes(client: EwsClient, uid: str, state: str, properties: tuple[str, ...]) -> Changes:
    """What came since ``state``, or the first of it: then the state behind that is as good."""
    found = Changes()
    async with aclosing(_answers(client, uid, state, properties)) as answers:
        async for changes in answers:
            found.items |= changes.items
            for gone in changes.gone:
                found.items.pop(gone, None)
            found.unreadable += changes.unreadable
            found.state, found.trouble = changes.state, changes.trouble
            if len(found.items) >= TOGETHER and changes.behind:
                found.state = changes.behind
                break
    return found


async def _answers(
    client: EwsClient, uid: str, state: str, properties: tuple[str, ...]
) -> AsyncGenerator[Changes, None]:  # fmt: skip
    """What came since ``state``, answer by answer; the last one has the state behind all, or the trouble."""
    states = {_digest(state)}
    shown = empty = 0
    pages = Pages()
    while True:
        doing = "list the folder"
        replies = await client.ask(soap.sync_items(uid, state, properties, AT_ONCE), doing)
        if len(replies) == 1 and replies[0].code in STATE_LOST:
            raise StateLost(f"the server does not know the sync state: {replies[0].words}")
        node = of_folder(replies, doing).node
        state = node.value("SyncState")
        if not state or state.startswith(UNLISTED) or " " in state:
            yield Changes(trouble=f"the server does not {doing}: no sync state")
            return
        found = Changes()
        changes = node.find("Changes")
        for change in changes.children if changes is not None else ():
            _apply(change, found)
        count = 0 if changes is None else len(changes.children)
        empty, shown = 0 if count else empty + 1, shown + len(found.items)
        endless = pages.endless(count)
        last = node.value("IncludesLastItemInRange").lower()
        if last in ("true", "1"):
            found.state = state
        elif endless or shown > MOST or _digest(state) in states or empty > MOST_EMPTY or last not in ("false", "0"):
            found.trouble = f"the server does not {doing}: its pages have no end"
        else:
            found.behind = state
        yield found
        if not found.behind:
            return
        states.add(_digest(state))


def _digest(state: str) -> bytes:
    """Stands for a sync state, which may be megabytes long."""
    return sha256(state.encode("utf-8", "surrogatepass")).digest()


def _apply(change: Node, found: Changes) -> None:
    if change.name == "Create":
        for node in change.children:
            item = _item(node)
            if node.name in NO_MAIL:
                continue
            if item is None:
                found.unreadable += 1
            else:
                found.items[item.uid] = item
                found.gone.discard(item.uid)  # it is back
    elif change.name == "Delete":
        item_id = change.find("ItemId")
        uid = "" if item_id is None else item_id.attributes.get("Id", "")
        found.items.pop(uid, None)
        found.gone.add(uid)


def _item(node: Node) -> Item | None:
    found = node.find("ItemId")
    uid = "" if found is None else found.attributes.get("Id", "")
    if not uid:
        return None
    size = node.value("Size")
    return Item(
        uid=uid,
        kind=node.name,
        size=int(size) if size.isdigit() and len(size) < 12 else None,
        seen=node.value("IsRead") in ("true", "1"),
        received=iso_date(node.value("DateTimeReceived")),
        modified=iso_date(node.value("LastModifiedTime")),
    )
