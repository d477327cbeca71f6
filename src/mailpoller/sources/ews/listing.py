"""Listing a folder by SyncFolderItems: a sync state is the position, with what is needed should the server forget it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Folder, MessageRef, Position
from mailpoller.core.ports import Clock, Start
from mailpoller.sources.ews import soap
from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.reader import Node
from mailpoller.sources.ews.replies import STATE_LOST, of_folder
from mailpoller.transport.http import HttpError

log = structlog.get_logger(__name__)

AT_ONCE = 512
"""Changes of one answer; Exchange gives no more."""
MOST = 2_000_000
"""Messages of one listing. Exchange wants at most a million in a folder."""

PROPERTIES = ("item:Size", "item:DateTimeReceived", "message:IsRead")
MODIFIED = "item:LastModifiedTime"

MARGIN = timedelta(hours=1)
"""The server's clock is not ours: what happened so long before an instant of ours may have been after it."""

NO_MAIL = frozenset({"CalendarItem", "Contact", "DistributionList", "Task", "Person", "Network", "RoleMember"})
"""Items that a folder may hold and that nobody sent."""


class StateLost(TransientError):
    """The server does not know the sync state (any more)."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A position: the server's ``state``, and what it takes to do without.

    ``start`` was applied to what was there at ``begun`` (our clock); at ``listed`` all that was there had been listed. Should the state be
    lost, mail received before ``begun`` is shown only if ``start`` wants it, or if it was changed since ``listed``, for then it may have been moved here.
    """

    state: str
    start: Start
    begun: datetime
    listed: datetime

    @classmethod
    def read(cls, position: Position) -> Bookmark | None:
        """The bookmark that was written, or None: then all is listed, and the ledger tells what it has."""
        parts = position.split(" ")
        if len(parts) != 5 or parts[0] != "1" or not parts[4]:
            return None
        try:
            kind, at, instant = parts[1].partition("@")
            begun, listed = datetime.fromisoformat(parts[2]), datetime.fromisoformat(parts[3])
            since = datetime.fromisoformat(instant) if at else None
        except ValueError:
            return None
        if kind not in ("now", "unseen", "all", "since") or not all(
            one.tzinfo for one in (begun, listed, since or begun)
        ):
            return None
        return cls(parts[4], Start(kind, since), begun, listed)  # type: ignore[arg-type]

    def write(self) -> Position:
        """``1 unseen 2026-01-01T00:00:00+00:00 2026-01-02T00:00:00+00:00 H4sIAAA=``."""
        instant = f"@{self.start.instant.isoformat()}" if self.start.instant else ""
        listed = self.listed.isoformat(timespec="seconds")
        return Position(
            f"1 {self.start.kind}{instant} {self.begun.isoformat(timespec='seconds')} {listed} {self.state}"
        )


@dataclass(frozen=True, slots=True)
class Item:
    """An item as a listing shows it. ``kind``: its element, such as ``Message`` or ``MeetingRequest``."""

    uid: str
    kind: str
    size: int | None
    seen: bool
    received: datetime | None
    modified: datetime | None


@dataclass(frozen=True, slots=True)
class Listing:
    """What is new in a folder, in the server's order, and the position behind it; ``state`` is the position's sync state."""

    refs: list[MessageRef]
    position: Position
    state: str


async def list_folder(
    client: EwsClient, folder: Folder, uid: str, since: Position | None, start: Start, clock: Clock
) -> Listing:
    """See :meth:`mailpoller.core.ports.Session.pending`. ``uid`` is the folder's id.

    Raises as :meth:`EwsClient.ask`; :class:`HttpError` for a listing without end.
    """
    now = clock.now()
    if since is None:
        return await _list_all(client, folder, uid, Bookmark("", start, now, now), None)
    bookmark = Bookmark.read(since)
    if bookmark is None:
        log.warning(
            "listing.restarted", mailbox=folder.mailbox, folder=folder.name, reason="the position cannot be read"
        )
        return await _list_all(client, folder, uid, Bookmark("", Start("all"), now, now), None)
    try:
        items, state = await _changes(client, uid, bookmark.state, PROPERTIES)
    except StateLost as error:
        log.warning("listing.restarted", mailbox=folder.mailbox, folder=folder.name, reason=str(error))
        return await _list_all(client, folder, uid, replace(bookmark, state="", listed=now), bookmark.listed)
    # Where nothing came the old position is as good, and a new one would be a write to the ledger at every poll.
    position = replace(bookmark, state=state, listed=now).write() if items or state != bookmark.state else since
    return Listing([_ref(folder, item) for item in items], position, state)


async def _list_all(
    client: EwsClient, folder: Folder, uid: str, bookmark: Bookmark, listed: datetime | None
) -> Listing:
    """All that the bookmark's start wants. ``listed``: when the last listing was whose state is lost, or None."""
    items, state = await _changes(client, uid, "", (*PROPERTIES, MODIFIED))
    wanted = [item for item in items if _wanted(item, bookmark, listed)]
    position = replace(bookmark, state=state).write()
    # Sizes change with flags, and beside ids that are never given twice another size would only raise questions about what is known.
    refs = [_ref(folder, item, sized=listed is None) for item in wanted]
    return Listing(refs, position, state)


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
    items, state = await _changes(client, uid, state, ())
    return bool(items), state


async def _changes(client: EwsClient, uid: str, state: str, properties: tuple[str, ...]) -> tuple[list[Item], str]:
    """The items that came since ``state`` and are still there, in order, and the state behind them."""
    items: dict[str, Item] = {}
    states = {state}
    while True:
        doing = "list the folder"
        replies = await client.ask(soap.sync_items(uid, state, properties, AT_ONCE), doing)
        if len(replies) == 1 and replies[0].code in STATE_LOST:
            raise StateLost(f"the server does not know the sync state: {replies[0].words}")
        node = of_folder(replies, doing).node
        before, state = state, node.value("SyncState")
        if not state or " " in state:
            raise HttpError(f"the server does not {doing}: no sync state")
        changes = node.find("Changes")
        for change in changes.children if changes is not None else ():
            _apply(change, items)
        if node.value("IncludesLastItemInRange").lower() in ("true", "1"):
            return list(items.values()), state
        if len(items) > MOST or (state in states and state != before) or state == before:
            raise HttpError(f"the server does not {doing}: its pages have no end")
        states.add(state)


def _apply(change: Node, items: dict[str, Item]) -> None:
    if change.name == "Create":
        for node in change.children:
            item = _item(node)
            if item is not None and item.kind not in NO_MAIL:
                items[item.uid] = item
    elif change.name == "Delete":
        found = change.find("ItemId")
        items.pop("" if found is None else found.attributes.get("Id", ""), None)


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
        received=instant(node.value("DateTimeReceived")),
        modified=instant(node.value("LastModifiedTime")),
    )


def instant(text: str) -> datetime | None:
    """An xs:dateTime, aware; EWS writes UTC. None if it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
