"""A mailbox in memory, for tests of what talks to sources: it can fail at any step and remembers what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal

from mailpoller.core.delivery import Disposed, Disposition, Settlement
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Account, Claim, Folder, Gone, MessageRef, Page, Position, RawMessage, Survey
from mailpoller.core.ports import Stage, Start, Wake
from mailpoller.core.spool import Octets
from mailpoller.testing.fake_mailbox import INBOX, FakeFolder, FakeMail, FakeMailbox
from mailpoller.testing.faults import Faults

PAGE = 500
SURVEYED = 20
"""Names behind the position that a survey shows."""
Lie = Literal["", "nothing", "unproven", "unheard"]
"""What a server does that says OK to a disposition: as it says; nothing, as a look shows; nothing, and no look shows
it; as it says, and no look shows it."""


class FakeSource:
    """See :class:`mailpoller.core.ports.Source`. All that happened to it, over every session:

    ``steps``: the calls, in order, by name. ``told``: the settlements whose disposition was asked for, in order;
    ``applied``: those that were carried out. ``asked``: (folder, uid, limit) of every message that was downloaded.
    ``witness`` is called with each settlement before it is carried out: a test looks there whether the ledger knows.
    ``lies`` says of each what its server does behind its OK.
    """

    def __init__(
        self,
        mailbox: FakeMailbox,
        faults: Faults | None = None,
        *,
        name: str = "support",
        folders: Sequence[str] = (INBOX,),
        mode: Literal["live", "shadow"] = "live",
        witness: Callable[[Settlement], None] | None = None,
        settable: Iterable[str] = ("\\Seen", "\\Flagged", "\\Answered", "$Done"),
        lies: Callable[[Settlement], Lie] = lambda settlement: "",
    ) -> None:
        self.account = Account("fake", "fake.example", name)
        self.mailbox = mailbox
        self.faults = faults or Faults()
        self.name = name
        self.watched = tuple(folders)
        self.mode = mode
        self.witness = witness
        self.settable = frozenset(settable)
        self.lies = lies
        self.steps: list[str] = []
        self.told: list[Settlement] = []
        self.applied: list[Settlement] = []
        self.asked: list[tuple[str, str, int]] = []
        self.sessions: list[FakeSession] = []
        self.lowest: dict[str, int] = {}
        """Folder -> the lowest number that came next while it stood behind the position."""

    async def connect(self) -> FakeSession:
        self.steps.append("connect")
        await self.faults.at("connect")
        session = FakeSession(self)
        self.sessions.append(session)
        return session

    async def probe(self, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
        self.steps.append("probe")
        for name in self.watched:
            if name not in self.mailbox.folders:
                yield Stage("folder", False, timedelta(0), f"there is no folder {name}", "create it")
                return
        yield Stage("folder", True, timedelta(0), ", ".join(self.watched))

    def cut(self) -> None:
        """Every open connection breaks."""
        for session in self.sessions:
            session.lost = session.lost or "the connection was cut"


class FakeSession:
    """See :class:`mailpoller.core.ports.Session`. ``lost`` is why it is of no more use, or empty."""

    def __init__(self, source: FakeSource) -> None:
        self.lost = ""
        self.opened: str | None = None
        self._source = source
        self._mailbox = source.mailbox
        self._seen_by_wait: int | None = None
        self._surveyed: set[str] = set()

    async def folders(self) -> Sequence[str]:
        await self._step("folders")
        return [name for name in self._source.watched if name in self._mailbox.folders]

    async def open(self, name: str) -> Folder:
        await self._step("open")
        await self._fault(f"open:{name}")
        if name not in self._mailbox.folders:
            raise TransientError(f"there is no folder {name}")
        self.opened = name
        return self._folder(name)

    async def pending(self, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        await self._step("pending")
        place = self._current(folder)
        mails = place.listed()
        unwanted: list[MessageRef] = []
        if since is not None:
            mails = [mail for mail in mails if int(mail.uid) >= int(since)]
        else:
            if self._mailbox.whole:  # there is no position to remember them by
                unwanted = [self._named(folder, mail) for mail in mails if not _wanted(mail, start)]
            mails = [mail for mail in mails if _wanted(mail, start)]
        if folder.name == self._source.watched[0]:
            self._seen_by_wait = place.uid_next
        refs = [self._told(folder, mail) if start.dated else self._named(folder, mail) for mail in mails]
        pages = [refs[n : n + PAGE] for n in range(0, len(refs), PAGE)] or [[]]
        position = None if self._mailbox.whole else self._reached(place, since)
        if position is not None:
            # What has come back before the position since is not forgotten by this.
            begin, uids = int(since or 1), [int(mail.uid) for mail in place.listed()]
            before = sum(uid < begin for uid in uids)
            before = min(before, place.below.get(since or "", before))
            place.below[position] = before + sum(begin <= uid < int(position) for uid in uids)
        for page in pages[:-1]:
            yield Page(page, listed=sum(map(len, pages)))
        partial = place.unlisted(int(since or 1)) is not None
        yield Page(pages[-1], position, sum(map(len, pages)), unwanted, partial=partial)

    def _reached(self, place: FakeFolder, since: Position | None) -> Position:
        """Before the first that the listing lacks, and never back."""
        begin = int(since or 1)
        gap = place.unlisted(begin)
        return Position(str(max(begin, place.shown_next if gap is None else min(gap, place.shown_next))))

    async def survey(self, folder: Folder, position: Position | None) -> Survey:
        """The newest known names, once a session; all that is there while the numbering stands behind the position."""
        await self._step("survey")
        place = self._current(folder)
        if self._mailbox.whole:
            return Survey([self._told(folder, mail) for mail in place.listed()], whole=not place.unlisted())
        following = int(position or 1)
        behind = place.shown_next < following
        below = [mail for mail in place.listed() if int(mail.uid) < following]
        grown = len(below) > place.below.get(position or "", len(below))
        if position in place.below and not grown:
            place.below[position] = len(below)
        if folder.name in self._surveyed and not behind and not grown:
            return Survey()
        self._surveyed.add(folder.name)
        low = self._source.lowest[folder.name] = min(place.shown_next, self._source.lowest.get(folder.name, following))
        strange = [self._told(folder, mail) for mail in below if grown or int(mail.uid) >= low]
        if not behind:
            self._source.lowest.pop(folder.name, None)
        return Survey([self._told(folder, mail) for mail in below[-SURVEYED:]], strange, behind=behind)

    async def look(self, refs: Sequence[MessageRef]) -> Sequence[MessageRef | None]:
        await self._step("look")
        found = [self._current(ref.folder).shown.get(ref.uid) for ref in refs]
        return [None if mail is None else self._told(ref.folder, mail) for ref, mail in zip(refs, found, strict=True)]

    async def fetch(self, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        await self._step("fetch")
        for number, claim in enumerate(claims):
            await self._fault(f"fetch:{number}")
            self._alive()
            mail = self._current(claim.ref.folder).shown.get(claim.ref.uid)
            if mail is None:
                yield Gone(claim)
                continue
            self._source.asked.append((claim.ref.folder.name, mail.uid, limit))
            octets, size = mail.octets[:limit], len(mail.octets)
            flags = tuple(sorted(mail.flags))
            yield RawMessage(claim, Octets.of(octets), size > limit, size, self._date(mail), flags, mail.doubt)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        self._source.told += settlements
        await self._step("settle")
        results = []
        for number, settlement in enumerate(settlements):
            self._current(settlement.ref.folder)  # a numbering that changed ends the session, and nothing is done
            if self._source.witness is not None:
                self._source.witness(settlement)
            results.append(self._dispose(settlement))
            await self._fault(f"settle:{number + 1}")
            self._alive()
        return results

    def _dispose(self, settlement: Settlement) -> Disposed:
        disposition, uid = settlement.disposition, settlement.ref.uid
        place = self._current(settlement.ref.folder)
        mail = place.shown.get(uid)
        lie = self._source.lies(settlement) if mail is not None and self._source.mode == "live" else ""
        if lie == "nothing":
            return Disposed(settlement, "failed", "the server said OK, and nothing was done")
        if lie == "unproven":
            return Disposed(settlement, "pending", "the server said OK, and nothing shows that it was done")
        if unknown := [flag for flag in disposition.flags if flag not in self._source.settable]:
            return Disposed(settlement, "failed", f"the server does not keep the flag {unknown[0]}")
        if mail is not None and self._source.mode == "live":
            mail.flags |= {*disposition.flags, *(("\\Seen",) if disposition.seen else ())}
            if disposition.delete or disposition.move is not None:
                del place.mails[uid]
                place.below = {at: n - (n > 0 and int(uid) < int(at)) for at, n in place.below.items()}
            if disposition.move is not None:
                self._mailbox.deliver(mail.octets, disposition.move, flags=mail.flags, received=mail.received)
        self._source.applied.append(settlement)
        if lie == "unheard":
            return Disposed(settlement, "pending", "the server said OK, and nothing shows that it was done")
        return Disposed(settlement, "applied")

    async def wait(self, limit: timedelta) -> Wake:
        await self._step("wait")
        loop = asyncio.get_running_loop()
        ends = loop.time() + limit.total_seconds()
        place = self._mailbox.folders[self._source.watched[0]]
        before = place.uid_next if self._seen_by_wait is None else self._seen_by_wait
        while place.uid_next == before:
            self._alive()
            if loop.time() >= ends:
                return Wake.LIMIT
            await asyncio.sleep(0.005)
        return Wake.NEWS

    async def close(self) -> None:
        self._source.steps.append("close")
        try:
            await self._fault("close")
        finally:
            self.lost = self.lost or "the session was closed"

    # --- steps -------------------------------------------------------------------------------------------------
    async def _step(self, name: str) -> None:
        self._source.steps.append(name)
        self._alive()
        await self._fault(name)
        self._alive()

    async def _fault(self, step: str) -> None:
        try:
            await self._source.faults.at(step)
        except SessionLost as error:
            self.lost = str(error)
            raise

    def _alive(self) -> None:
        if self.lost:
            raise SessionLost(self.lost)

    def _named(self, folder: Folder, mail: FakeMail) -> MessageRef:
        return MessageRef(folder, mail.uid, len(mail.octets) if mail.told is None else mail.told)

    def _told(self, folder: Folder, mail: FakeMail) -> MessageRef:
        size = len(mail.octets) if mail.told is None else mail.told
        return MessageRef(folder, mail.uid, size, self._date(mail))

    def _date(self, mail: FakeMail) -> datetime | None:
        return None if self._mailbox.whole else mail.received

    def _folder(self, name: str) -> Folder:
        return Folder(
            self._source.name, name, f"fake fake.example {self._source.name} {self._mailbox.folders[name].validity}"
        )

    def _current(self, folder: Folder) -> FakeFolder:
        """What the open folder holds. A real server keeps its numbering while a folder is open; so does this one, by
        ending."""
        if self.opened != folder.name:
            raise AssertionError(f"the folder {folder.name} is not the one that is open")
        if self._folder(folder.name) != folder:
            self.lost = "the numbering of the folder changed"
            raise SessionLost(self.lost)
        return self._mailbox.folders[folder.name]


def _wanted(mail: FakeMail, start: Start) -> bool:
    if start.kind == "unseen":
        return "\\Seen" not in mail.flags
    if start.kind == "since" and start.instant is not None:
        return mail.received >= start.instant
    return start.kind != "now"
