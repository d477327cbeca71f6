"""One IMAP session: the port that the engine speaks to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import timedelta

import structlog

from mailpoller.core.delivery import Disposed, Disposition, Settlement
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, MessageRef, Page, Position, RawMessage, Survey
from mailpoller.core.ports import Clock, Start, Wake
from mailpoller.core.spool import Spool
from mailpoller.core.tasks import TaskGroup
from mailpoller.sources.imap.config import ImapSettings
from mailpoller.sources.imap.download import Downloads
from mailpoller.sources.imap.listing import Sightings, list_folder, lowered
from mailpoller.sources.imap.opened import Mark, NewsPace, OpenFolder, Seen, epoch_of
from mailpoller.sources.imap.patterns import PolledFolders
from mailpoller.sources.imap.settling import Settling, State, alike
from mailpoller.sources.imap.survey import look_at, survey_folder
from mailpoller.sources.imap.trust import Trust
from mailpoller.wire.imap.connecting import name_ourselves
from mailpoller.wire.imap.folders import Folders
from mailpoller.wire.imap.protocol import ImapClient
from mailpoller.wire.imap.responses import Status
from mailpoller.wire.imap.selected import SelectedFolder

log = structlog.get_logger(__name__)

RENEW_IDLE = 9 * 60.0
"""Seconds of one IDLE at most: NAT forgets a silent connection after ten minutes and servers end it after thirty."""
NOOP_INTERVAL = 4 * 60.0
"""Seconds between signs of life where there is no IDLE."""
RESELECT = 15 * 60.0
"""Seconds after which an open folder is selected anew: only SELECT tells its UIDVALIDITY for sure."""
PATIENCE_ASIDE = 10.0
"""Seconds for which downloads are waited for before another folder is opened for a while."""
GOODBYE = 5.0
"""Seconds that LOGOUT may take."""


class ImapSession:
    """See :class:`mailpoller.core.ports.Session`. Commands are pipelined; what must stand alone (SELECT, IDLE) waits
    its turn, and IDLE ends when anything else is wanted."""

    def __init__(
        self,
        name: str,
        config: ImapSettings,
        client: ImapClient,
        spool: Spool,
        trust: Trust,
        clock: Clock,
        renew_in: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._name = name
        self._config = config
        self._client = client
        self._clock = clock
        self._protocol = client.protocol
        self._downloads = Downloads(client.protocol, spool, trust)
        self._protocol.bodies = self._downloads
        self._protocol.on_alert = lambda text: log.warning("server.alerted", mailbox=name, reason=text)
        self._protocol.on_odd = lambda text: log.warning("response.ignored", mailbox=name, text=text)
        self._protocol.on_downgrade = lambda numbers: log.warning("messages.downgraded", mailbox=name, numbers=numbers)
        self._folders = Folders(client.protocol)
        self._open: OpenFolder | None = None
        self._seen: dict[str, Seen] = {}
        self._surveyed: dict[str, SelectedFolder] = {}
        self._marks: dict[str, Mark] = {}
        self._sightings = Sightings()
        self._named = False
        self._noted: dict[str, tuple[Position | None, Position]] = {}
        """What the last survey made of a position: a listing from that position begins with it, lest it be forgotten
        again."""
        self._first = next(iter(config.named_folders()), "INBOX")
        self._polled = PolledFolders(self._folders, config, name)
        self._selecting = asyncio.Lock()
        self._listing = asyncio.Lock()
        self._may_idle = config.idle
        ends = renew_in()  # this session's, whatever others are opened later
        self._news = NewsPace()
        self._renew_at = float("inf") if ends is None else asyncio.get_running_loop().time() + ends

    @property
    def octets_in(self) -> int:
        """See :class:`mailpoller.core.ports.Progressing`."""
        return self._protocol.pace.octets

    # --- folders ---------------------------------------------------------------------------------------------
    async def folders(self) -> Sequence[str]:
        """As configured and found to exist; one that is missing is logged and left out.

        Raises :class:`TransientError` if none exists.
        """
        self._check()
        found = await self._polled.existing()
        if not found:
            raise TransientError("none of the mailbox's folders exists")
        self._first = found[0]
        return found

    async def open(self, name: str) -> Folder:
        """Make the folder current. One that is open already is not selected anew but for every 15 minutes, since
        SELECT makes servers read the whole folder."""
        if (reason := self._polled.excess.get(name)) is not None:
            raise TransientError(reason)
        async with self._selecting:
            now = asyncio.get_running_loop().time()
            opened = self._open
            if (
                opened is not None
                and opened.folder.name == name
                and not opened.mailbox.renumbered
                and now - opened.selected_at < RESELECT
                and await self._refresh(opened)
                and not opened.mailbox.renumbered
            ):
                return opened.folder
            return await self._select(name)

    async def _refresh(self, opened: OpenFolder) -> bool:
        """Let the server tell its news. False: it refuses even that, as Exchange does once it has lost the mailbox
        behind a session ("authenticated but not connected"), so that its silence means nothing."""
        opened.refreshed = (await self._protocol.run("NOOP")).status.ok
        return opened.refreshed

    async def _select(self, name: str) -> Folder:
        wire, _ = await self._folders.find(name)
        self._open = None
        verb = "EXAMINE" if self._config.mode == "shadow" else "SELECT"

        def selected(status: Status) -> None:
            # At the tagged answer, not when we get to run: an EXISTS that follows in the same breath is news already.
            self._protocol.mailbox.arrived = self._protocol.mailbox.news = 0

        status = (await self._protocol.run(verb, self._protocol.named(wire), on_done=selected)).status
        if not status.ok and "unsafe login" in status.text.lower() and not self._named:
            # NetEase (163.com, 126.com) wants to be told who we are, and has not made use of what it was told at the
            # login.
            self._named = True
            await name_ourselves(self._protocol).answer()
            status = (await self._protocol.run(verb, self._protocol.named(wire), on_done=selected)).status
        if not status.ok:
            self._protocol.state = "AUTH"  # a refused SELECT leaves no folder selected (RFC 3501 section 6.3.1)
            self._folders.forget(name)
            raise TransientError(f"the folder {name} cannot be opened: the server says {status}")
        self._protocol.state = "SELECTED"
        mailbox = self._protocol.mailbox
        mailbox.name = wire
        if mailbox.uidvalidity is None:
            raise TransientError(f"the folder {name} has no UIDVALIDITY, so its messages cannot be told apart for long")
        folder = Folder(self._name, name, epoch_of(self._config, mailbox.uidvalidity))
        self._open = OpenFolder(folder, wire, mailbox, asyncio.get_running_loop().time())
        return folder

    # --- messages --------------------------------------------------------------------------------------------
    async def pending(self, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        """See the port. Without news since the last complete listing it costs a NOOP, and after :meth:`open`
        nothing."""
        opened = self._require((folder,))
        if not opened.refreshed:
            if not await self._refresh(opened):
                raise TransientError(f"the folder {folder.name} has to be opened anew: the server refuses NOOP")
            self._require((folder,))
        opened.refreshed = False
        before, noted = self._noted.get(folder.name, (None, None))
        if since is not None and since == before:
            since = noted
        seen = self._seen.get(folder.name)
        mailbox, today = opened.mailbox, self._clock.now().toordinal()
        news = mailbox.news
        if seen and seen.mailbox is mailbox and (seen.position, seen.news, seen.day) == (since, news, today):
            position = since if mailbox.uncounted else lowered(since, mailbox.exists)
            self._seen[folder.name] = Seen(position, mailbox, news, seen.gap, today)
            yield Page((), position, gap=seen.gap)
            return
        async with self._listing:
            listing = await list_folder(
                self._protocol, mailbox, folder, since, start, sightings=self._sightings, today=today
            )
        last = Page(())
        async for last in listing.pages(self._protocol):
            yield last
        if listing.complete:
            self._seen[folder.name] = Seen(last.position, mailbox, news, last.gap, today)
        self._heed(opened, news, listing.following)

    async def survey(self, folder: Folder, position: Position | None) -> Survey:
        """See the port. Once each time the folder is selected, for a numbering stays what it is for so long; and
        again while the server stands behind. One round trip, none for an empty folder; more only where there is
        something to find out."""
        opened = self._require((folder,))
        if self._surveyed.get(folder.name) is opened.mailbox:
            return Survey()
        now, interval = int(self._clock.now().timestamp()), self._config.poll_interval.total_seconds()
        found = await survey_folder(self._protocol, opened.mailbox, folder, position, now, interval)
        self._noted.pop(folder.name, None)
        if found.position is not None:
            self._noted[folder.name] = position, found.position
        if not found.behind:
            self._surveyed[folder.name] = opened.mailbox
        return found

    async def look(self, refs: Sequence[MessageRef]) -> Sequence[MessageRef | None]:
        """See the port: sizes and dates. Raises :class:`TransientError` if the server refuses to show them, which is
        no absence."""
        if not refs:
            return []
        opened = self._require(ref.folder for ref in refs)
        return await look_at(self._protocol, opened.mailbox, refs)

    async def fetch(self, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        """See the port. Raises :class:`TransientError` after all that could be had, if something could not."""
        if not claims:
            return
        opened = self._require(claim.ref.folder for claim in claims)
        download = await self._downloads.begin(claims, opened.folder.epoch, limit)
        try:
            while not download.complete:
                came = False  # one pace for all that has come at once
                for answer in download.arrived():
                    if not came and isinstance(answer, RawMessage):
                        self._news, came = NewsPace(), True
                    yield answer
                await download.more()
        finally:
            download.end()
        if download.failed:
            raise download.complaint()

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        """See the port. Like dispositions go together; a folder that is not open any more leaves them ``pending``."""
        if self._config.mode == "shadow":
            return [Disposed(one, "applied") for one in settlements]
        if not settlements:
            return []
        try:
            opened = self._require(one.ref.folder for one in settlements)
        except SessionLost:
            raise
        except TransientError as error:
            return [Disposed(one, "pending", str(error)) for one in settlements]
        pieces = alike(settlements)
        groups: dict[Disposition, list[int]] = defaultdict(list)
        for disposition, several in pieces:
            groups[disposition] += [int(one.ref.uid) for one in several]
        states: dict[Disposition, dict[int, State]] = {}

        async def work(disposition: Disposition, uids: list[int]) -> None:
            settling = Settling(
                self._protocol, self._folders, opened.mailbox, opened.wire, sorted(set(uids)),
                epoch=opened.folder.epoch, trust=self._downloads.trust, aside=self._aside,
            )  # fmt: skip
            states[disposition] = await settling.apply(disposition)

        try:
            async with TaskGroup() as tasks:
                for disposition, uids in groups.items():
                    tasks.create_task(work(disposition, uids), name=f"settle {self._name}")
        except ExceptionGroup as trouble:
            lost = next((one for one in trouble.exceptions if isinstance(one, SessionLost)), trouble.exceptions[0])
            raise lost from trouble
        told = [(states[disposition], several) for disposition, several in pieces]
        return [Disposed(one, *found[int(one.ref.uid)]) for found, several in told for one in several]

    async def _aside(self, wire: str, work: Callable[[SelectedFolder], Awaitable[None]]) -> SelectedFolder:
        """See :class:`mailpoller.sources.imap.settling.Aside`. Downloads that are under way are waited for, a while."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_ASIDE
        while self._downloads.active and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await self._changed(left)
        async with self._selecting:
            opened = self._open
            if opened is None:
                raise TransientError("no folder is open")
            self._open = None
            status = (await self._protocol.run("EXAMINE", self._protocol.named(wire))).status
            try:
                if status.ok:
                    self._protocol.state = "SELECTED"
                    await work(self._protocol.mailbox)
            finally:
                folder = await self._select(opened.folder.name)
            now = self._open
            if not status.ok or now is None or folder != opened.folder:
                raise TransientError(f"the folder {opened.folder.name} cannot be opened again as it was")
            return now.mailbox

    # --- waiting ---------------------------------------------------------------------------------------------
    async def wait(self, limit: timedelta) -> Wake:
        """See the port. With IDLE the first folder is selected; news since its last listing count at once, but each
        hint is told only once, so that a caller who cannot list now is not called again and again. A session that was
        opened with a token wants to be renewed before that ends, for the server would cut it off."""
        loop = asyncio.get_running_loop()
        deadline = min(loop.time() + limit.total_seconds(), self._renew_at)
        noop_at = loop.time() + NOOP_INTERVAL
        protocol = self._protocol
        idle = self._may_idle and protocol.offers("IDLE")
        while True:
            self._check()
            left = deadline - loop.time()
            news = self._has_news()
            if news and loop.time() >= self._news.begins_at:
                self._tell_news()
                return Wake.NEWS
            if left <= 0:
                return Wake.RENEW if deadline == self._renew_at else Wake.LIMIT
            if news:
                await asyncio.sleep(min(left, self._news.begins_at - loop.time(), 1.0))
            elif protocol.busy or self._downloads.active:
                await self._changed(left)
            elif idle and (self._open is None or self._open.folder.name != self._first):
                idle = await self._watch_first()
            elif idle:
                began = loop.time()
                status = await protocol.idle(min(left, RENEW_IDLE))
                if not status.ok:
                    log.info("idle.refused", mailbox=self._name, reason=str(status))
                    self._may_idle = idle = False
                elif loop.time() - began < 1.0 and not protocol.busy and not self._has_news():
                    # A server that ends IDLE at once is not asked all the time.
                    await self._changed(min(deadline - loop.time(), 30.0))
            elif loop.time() >= noop_at:
                noop_at = loop.time() + NOOP_INTERVAL
                await protocol.run("NOOP")
            else:
                await self._changed(min(left, noop_at - loop.time()))

    async def _watch_first(self) -> bool:
        """Select the first folder, to idle on it. False: it cannot be opened; the next poll says why."""
        async with self._selecting:
            try:
                await self._select(self._first)
            except SessionLost:
                raise
            except TransientError:
                return False
        opened = self._open
        assert opened is not None
        mailbox = opened.mailbox
        before, now = self._marks.get(self._first), Mark(mailbox.uidvalidity, mailbox.uidnext, mailbox.exists)
        if before is None or before.moved(now):
            mailbox.news += 1  # found out by us instead of told
        return True

    def _has_news(self) -> bool:
        """The server has hinted at mail since the folder that is open was last listed, selected, or told of."""
        return self._open is not None and self._open.mailbox.news > self._open.heeded

    def _tell_news(self) -> None:
        assert self._open is not None
        self._heed(self._open, self._open.mailbox.news, 0)
        self._news.told(asyncio.get_running_loop().time())

    def _heed(self, opened: OpenFolder, news: int, listed_to: int) -> None:
        mailbox = opened.mailbox
        opened.heeded = max(opened.heeded, news)
        uidnext = None if mailbox.uidnext is None else max(mailbox.uidnext, listed_to)
        self._marks[opened.folder.name] = Mark(mailbox.uidvalidity, uidnext, mailbox.exists)

    async def _changed(self, seconds: float) -> None:
        self._protocol.changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._protocol.changed.wait()
        except TimeoutError:
            pass

    # --- the end ---------------------------------------------------------------------------------------------
    async def close(self) -> None:
        """LOGOUT, for at most 5 s, unless bodies are still coming in; then the connection is cut."""
        protocol = self._protocol
        try:
            if protocol.lost is None and not self._downloads.active:
                async with asyncio.timeout(GOODBYE):
                    await protocol.run("LOGOUT")
        except (TimeoutError, SessionLost):
            pass
        finally:
            protocol.lose("the session was closed")

    def _check(self) -> None:
        if self._protocol.lost is not None:
            raise self._protocol.loss()

    def _require(self, folders: Iterable[Folder]) -> OpenFolder:
        """What is open, if every one of these is that: nearly always the very same object, which is not hashed."""
        self._check()
        opened = self._open
        current = None if opened is None or opened.mailbox.renumbered else opened.folder
        for folder in folders:
            if folder is not current and folder != current:
                raise TransientError(f"the folder {folder.name} is not open in this epoch")
        assert opened is not None  # whoever asks has a folder, or messages
        return opened
