"""Looking behind the bookmark at the start of a session: are the messages still those that were listed there?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Folder, MessageRef, Position, Survey
from mailpoller.sources.imap.bookmark import Bookmark
from mailpoller.sources.imap.details import WITNESS, Lines, Shown, search, within, witnesses
from mailpoller.wire.imap.protocol import ImapProtocol
from mailpoller.wire.imap.selected import SelectedFolder

FAMILIAR = 20
"""Messages that are compared, the newest ones."""
_SPAN = 64
"""Uids below the bookmark that are asked for at once: with a few messages among them one question is enough."""
_ENOUGH = 3
_MOST = 100_000
"""Messages that are listed where there are more than there were, the newest ones: 2 MB, and some 50 MB while they
come."""
AGAIN = 90
"""Seconds for which what looks like another numbering is shown at least, and for three polls, so that it is seen
twice a minute apart."""


async def survey_folder(
    protocol: ImapProtocol,
    mailbox: SelectedFolder,
    folder: Folder,
    position: Position | None,
    now: int,
    interval: float = 0.0,
) -> Survey:
    """See :meth:`mailpoller.core.ports.Session.survey`; the folder is selected. ``now``: seconds of the epoch;
    ``interval``: those between two polls.

    One round trip, none if the folder is empty. Raises :class:`TransientError` if the server refuses to show anything.
    """
    bookmark = Bookmark.read(position)
    if bookmark is None or bookmark.following <= 1:
        return Survey()
    found = await _Looking(protocol, mailbox, bookmark).look()
    again = max(AGAIN, 3 * interval)
    after, behind = bookmark, False
    strange: list[int] = []
    next_uid = found.next_uid
    if next_uid is not None and next_uid < bookmark.following:
        behind = True
        after = replace(
            after, low=min(next_uid, after.low or next_uid), high=max(after.high, after.following), caught_at=0
        )
    elif after.low:
        behind, after = _caught_up(after, now, again)
    if bookmark.low or behind:
        strange = [uid for uid in found.uids if (bookmark.low or after.low) <= uid < (bookmark.high or after.high)]
    every: Sequence[int] = ()
    if not after.low and not bookmark.low and found.count is not None:
        if after.below is None or found.count <= after.below:
            after = replace(after, below=found.count, grown_at=0)
        else:
            every = found.every if found.every is not None else await _all_below(protocol, mailbox, bookmark.following)
            behind, after = _grown(after, found.count, now, again)
    if every:
        every = every[-_MOST:]
        lines = await witnesses(protocol, mailbox, every)
        shown = Shown(folder, lines, [uid for uid in every if uid in lines.sizes])
        return Survey(shown, shown, behind=behind, position=_changed(bookmark, after))
    compared = sorted({*found.uids[-FAMILIAR:], *strange})
    familiar = Shown(folder, found.lines, compared)
    odd: Sequence[MessageRef] = Shown(folder, found.lines, strange) if strange else ()
    return Survey(familiar, odd, behind=behind, position=_changed(bookmark, after))


def _caught_up(bookmark: Bookmark, now: int, again: float) -> tuple[bool, Bookmark]:
    """The server has reached the place where it stood behind. What it shows there is shown until that was asked
    twice."""
    if not bookmark.caught_at:
        return True, replace(bookmark, caught_at=now)
    if 0 <= now - bookmark.caught_at < again:
        return True, bookmark
    return False, replace(bookmark, low=0, high=0, caught_at=0)


def _grown(bookmark: Bookmark, count: int, now: int, again: float) -> tuple[bool, Bookmark]:
    """More messages than there were. All of them are shown until that was asked twice; then it is how many there
    are."""
    if not bookmark.grown_at:
        return True, replace(bookmark, grown_at=now)
    if 0 <= now - bookmark.grown_at < again:
        return True, bookmark
    return False, replace(bookmark, below=count, grown_at=0)


def _changed(before: Bookmark, after: Bookmark) -> Position | None:
    return None if after == before else after.write()


class _Looking:
    """One look at what is below the bookmark: ``uids`` that are there, ascending, with ``lines``; how many there are
    in all, where that is known (``count``), and all of them, where they were asked for (``every``); what the server
    would give the next message (``next_uid``)."""

    def __init__(self, protocol: ImapProtocol, mailbox: SelectedFolder, bookmark: Bookmark) -> None:
        self._protocol = protocol
        self._mailbox = mailbox
        self._bookmark = bookmark
        self.lines = Lines()
        self.uids: list[int] = []
        self.count: int | None = None
        self.every: Sequence[int] | None = None
        self.next_uid = mailbox.uidnext

    async def look(self) -> _Looking:
        following, mailbox = self._bookmark.following, self._mailbox
        told = mailbox.uidnext
        if not mailbox.exists:
            self.count = 0
            if told is None:
                self.next_uid = await self._status()
            return self
        top = min(following, told or following)
        low = max(1, top - _SPAN)
        if self._bookmark.low:
            low = min(low, self._bookmark.low)
        self.lines = Lines(low, following - 1)
        request = self._protocol.submit(
            "FETCH", f"{low}:{following - 1}", WITNESS, within=mailbox, on_fetch=self.lines.note
        )
        if told is None:
            self.next_uid, status = await asyncio.gather(self._ask_next(), request.answer())
            answer = status.status
        else:
            answer = (await request.answer()).status
        self.uids = sorted(self.lines.sizes)
        if not answer.ok:
            await self._one_by_one(low)
        elif self.uids:
            self.count = self.lines.numbers[self.uids[-1]] or None
        elif low == 1:
            self.count = 0
        elif told == following and not mailbox.arrived and not mailbox.uncounted:
            self.count = mailbox.exists
        if low > 1 and len(self.uids) < _ENOUGH and (self.count is None or self.count > len(self.uids)):
            await self._far(following)
        if self.count is not None and mailbox.exists > self.count and self.next_uid is not None:
            # There are messages beyond: it has grown since it was selected.
            self.next_uid = max(self.next_uid, following)
        if self.next_uid is not None and self.uids:
            self.next_uid = max(self.next_uid, self.uids[-1] + 1)
        return self

    async def _one_by_one(self, low: int) -> None:
        """The set is refused, perhaps for the sake of one message."""
        every = await _all_below(self._protocol, self._mailbox, self._bookmark.following)
        self.every, self.count = every, len(every)
        asked = sorted(
            {*every[-FAMILIAR:], *(uid for uid in every if self._bookmark.low and uid >= self._bookmark.low)}
        )
        self.lines = await witnesses(self._protocol, self._mailbox, asked)
        self.uids = sorted(self.lines.sizes)

    async def _far(self, following: int) -> None:
        """Next to nothing near the bookmark: the newest ones lie further down."""
        every = await _all_below(self._protocol, self._mailbox, following)
        self.every, self.count = every, len(every)
        asked = sorted({*every[-FAMILIAR:], *self.uids})
        if asked:
            self.lines = await witnesses(self._protocol, self._mailbox, asked)
            self.uids = sorted(self.lines.sizes)

    async def _ask_next(self) -> int | None:
        """UIDNEXT of a server that does not tell it along with SELECT: by STATUS, else one more than the newest uid,
        which is less where the newest messages were deleted."""
        last = Lines()
        asked = self._protocol.submit("FETCH", "*", "(UID)", within=self._mailbox, on_fetch=last.note)
        told = await self._status()
        await asked.answer()
        return max([told or 0, *(uid + 1 for uid in last.numbers)]) or None

    async def _status(self) -> int | None:
        words = (self._protocol.named(self._mailbox.name), "(UIDNEXT)")
        answer = await self._protocol.run("STATUS", *words, wants=(b"STATUS",))
        for response in answer.data:
            line = response[0]
            assert isinstance(line, bytes)
            _, found, rest = line.upper().rpartition(b"UIDNEXT ")
            digits = rest.partition(b")")[0].split(b" ")[0]
            if found and digits.isdigit() and len(digits) < 11:
                return int(digits) or None
        return None


async def _all_below(protocol: ImapProtocol, mailbox: SelectedFolder, following: int) -> Sequence[int]:
    found = await search(protocol, mailbox, f"UID 1:{following - 1}")
    return within(found, 1, following - 1)


async def look_at(
    protocol: ImapProtocol, mailbox: SelectedFolder, refs: Sequence[MessageRef]
) -> Sequence[MessageRef | None]:
    """See :meth:`mailpoller.core.ports.Session.look`; the folder of ``refs`` is selected. Raises
    :class:`TransientError`."""
    if not mailbox.exists and not mailbox.uncounted:
        return [None for _ in refs]
    lines = await witnesses(protocol, mailbox, sorted({int(ref.uid) for ref in refs}))
    if protocol.mailbox is not mailbox:
        raise TransientError("another folder was opened meanwhile")
    return [lines.ref(ref.folder, int(ref.uid)) if int(ref.uid) in lines.sizes else None for ref in refs]
