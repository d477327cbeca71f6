"""What a server says of messages beside their octets: sequence number, size, date."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from operator import lt
from typing import overload

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Folder, MessageRef
from mailpoller.wire.imap.command import Request
from mailpoller.wire.imap.names import uid_sets
from mailpoller.wire.imap.protocol import ImapProtocol
from mailpoller.wire.imap.reader import ProtocolViolation
from mailpoller.wire.imap.responses import Fetched
from mailpoller.wire.imap.search import hits
from mailpoller.wire.imap.selected import SelectedFolder
from mailpoller.wire.imap.uids import MAX_UIDS
from mailpoller.wire.pace import REST

MAX_UID = 0xFFFFFFFF
"""The last that there can be (RFC 3501 section 9, nz-number)."""
TURN = 1000
"""Uids that are dealt with in one go: two milliseconds, for whoever else waits may need twenty turns."""
WITNESS = "(RFC822.SIZE INTERNALDATE)"
"""What tells a message from another one under its name, as far as that costs no octets of it."""


class Lines:
    """FETCH answers about uids from ``low`` to ``high``, as they come."""

    def __init__(self, low: int = 1, high: int = MAX_UID, wanted: Collection[int] | None = None) -> None:
        self.numbers: dict[int, int] = {}
        self.sizes: dict[int, int | None] = {}
        self.dates: dict[int, datetime] = {}
        self.last = 0
        """The highest sequence number of all, also of uids that are not asked for."""
        self._low, self._high, self._wanted = low, high, wanted

    def note(self, fetched: Fetched) -> bool:
        """Take a line; True if it tells what was asked for."""
        uid = int(fetched.uid or 0)
        self.last = max(self.last, fetched.number)
        if not self._low <= uid <= self._high or (self._wanted is not None and uid not in self._wanted):
            return fetched.size is not None and self._wanted is None
        self.numbers[uid] = fetched.number
        self.sizes[uid] = fetched.size or self.sizes.get(uid)  # also if only its flags are told: it is there
        if fetched.received is not None:
            self.dates[uid] = fetched.received
        if len(self.sizes) > MAX_UIDS:
            raise ProtocolViolation(f"a listing of more than {MAX_UIDS} messages")
        return fetched.size is not None

    def ref(self, folder: Folder, uid: int) -> MessageRef:
        """What was told of the message."""
        return MessageRef(folder, str(uid), self.sizes.get(uid), self.dates.get(uid))


class Order:
    """Which uids there are from ``low`` to ``high``, and their sequence numbers, by FETCH answers: in columns, for a
    folder may have a million."""

    def __init__(self, low: int = 1, high: int = MAX_UID) -> None:
        self.uids = array("I")
        """Ascending once :meth:`sort` was called."""
        self.last = 0
        """The highest sequence number of all, also of uids that are not asked for."""
        self._numbers = array("I")
        self._low, self._high = low, high

    def note(self, fetched: Fetched) -> bool:
        """Take a line; never claims it, for what else it tells may be for somebody else."""
        self.last = max(self.last, fetched.number)
        uid = int(fetched.uid or 0)
        if self._low <= uid <= self._high and (not self.uids or uid != self.uids[-1]):
            self.uids.append(uid)
            self._numbers.append(min(fetched.number, MAX_UID))
        return False

    def sort(self) -> Order:
        """That was all."""
        if not ascending(self.uids):
            told = dict(zip(self.uids, self._numbers, strict=True))
            self.uids = array("I", sorted(told))
            self._numbers = array("I", map(told.__getitem__, self.uids))
        return self

    def number(self, uid: int) -> int:
        """The sequence number of the message; 0 if it was not told."""
        place = bisect_left(self.uids, uid)
        return self._numbers[place] if place < len(self.uids) and self.uids[place] == uid else 0


def ascending(uids: array[int]) -> bool:
    """True if each is greater than the one before."""
    return all(map(lt, uids, islice(uids, 1, None)))


def within(uids: array[int], low: int, high: int) -> array[int]:
    """Those from ``low`` to ``high``, ascending, each once. Servers tell them in order, with hardly an exception."""
    if not ascending(uids):
        ordered = sorted(uids)  # a set would take twice as much
        uids = array("I", (uid for place, uid in enumerate(ordered) if not place or ordered[place - 1] != uid))
    return uids[bisect_left(uids, low) : bisect_right(uids, high)]


async def merged(*several: array[int]) -> array[int]:
    """Uids of all of them, each ascending, in order and each once."""
    both = array("I")
    async for uid in in_turns(merge(*several)):
        if not both or both[-1] != uid:
            both.append(uid)
    return both


async def in_turns(uids: Iterable[int]) -> AsyncIterator[int]:
    """The same; whoever else waits has his turn now and then."""
    for place, uid in enumerate(uids, 1):
        yield uid
        if not place % TURN:
            await asyncio.sleep(REST)


class Shown(Sequence[MessageRef]):
    """Refs that are made when they are asked for: 20 octets a message until then."""

    def __init__(self, folder: Folder, lines: Lines, uids: Sequence[int]) -> None:
        self._folder = folder
        self._uids = array("I", uids)
        self._sizes = array("q", (-1 if (size := lines.sizes.get(uid)) is None else size for uid in uids))
        self._dates = array("d", (date.timestamp() if (date := lines.dates.get(uid)) else -1.0 for uid in uids))

    def __len__(self) -> int:
        return len(self._uids)

    @overload
    def __getitem__(self, index: int) -> MessageRef: ...
    @overload
    def __getitem__(self, index: slice) -> list[MessageRef]: ...
    def __getitem__(self, index: int | slice) -> MessageRef | list[MessageRef]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        size, date = self._sizes[index], self._dates[index]
        received = None if date < 0 else datetime.fromtimestamp(date, UTC)
        return MessageRef(self._folder, str(self._uids[index]), None if size < 0 else size, received)

    def __iter__(self) -> Iterator[MessageRef]:
        return (self[one] for one in range(len(self)))


def ask(
    protocol: ImapProtocol, mailbox: SelectedFolder, uids: Sequence[int], lines: Lines, items: str = WITNESS
) -> list[Request]:
    """Ask for ``items`` of ``uids`` (ascending), in sets, and wait for nothing."""
    return [protocol.submit("FETCH", piece, items, within=mailbox, on_fetch=lines.note) for _, piece in uid_sets(uids)]


async def witnesses(protocol: ImapProtocol, mailbox: SelectedFolder, uids: Sequence[int]) -> Lines:
    """Sizes and dates of ``uids`` (ascending). What is not shown is not there: by two kinds of question, FETCH and
    SEARCH.

    A set that is refused is asked for one by one; of what is refused even alone only presence is told. Raises
    :class:`TransientError` if that is refused too: a refusal is no absence.
    """
    lines = Lines(wanted=frozenset(uids))
    refused: list[int] = []
    requests = [
        (piece, protocol.submit("FETCH", words, WITNESS, within=mailbox, on_fetch=lines.note))
        for piece, words in uid_sets(uids, 3000)
    ]
    for piece, request in requests:
        status = (await request.answer()).status
        if not status.ok:
            if status.busy or status.code == "CLOSED":
                raise TransientError(f"the server does not show what is in the folder: {status}")
            refused += [uid for uid in piece if lines.sizes.get(uid) is None]
    for request in [one for uid in refused for one in ask(protocol, mailbox, (uid,), lines)]:
        await request.answer()
    absent = [uid for uid in uids if uid not in lines.sizes]
    if absent:
        for words in [words for _, words in uid_sets(absent)]:
            for uid in await search(protocol, mailbox, f"UID {words}"):
                lines.note(Fetched(str(uid)))
    return lines


async def search(protocol: ImapProtocol, mailbox: SelectedFolder, criteria: str) -> array[int]:
    """The uids that SEARCH finds, as they come. Raises :class:`TransientError` with the server's words if it
    refuses."""
    options = ("RETURN", "(ALL)") if protocol.offers("ESEARCH") else ()
    answer = await protocol.run("SEARCH", *options, criteria, within=mailbox, wants=(b"SEARCH", b"ESEARCH"))
    if not answer.status.ok:
        raise TransientError(f"the server does not list the folder: {answer.status}")
    with protocol.reading():
        return hits(answer.data)


async def newest(protocol: ImapProtocol, mailbox: SelectedFolder) -> tuple[int, int]:
    """The uid of the last message and its sequence number, or 0. By FETCH, because Courier, which tells no UIDNEXT,
    does not know ``*`` in a SEARCH."""
    lines = Lines()
    await protocol.run("FETCH", "*", "(UID)", within=mailbox, on_fetch=lines.note)
    uid = max(lines.numbers, default=0)
    return uid, lines.numbers.get(uid, 0)
