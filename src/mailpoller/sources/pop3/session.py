"""One POP3 session in the engine's eyes: a row of short connections, because a maildrop is locked while one is open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Protocol

import structlog

from mailpoller.core.delivery import Disposed, Settlement
from mailpoller.core.errors import MachineTrouble, SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, MessageRef, Page, Position, RawMessage, Survey
from mailpoller.core.ports import Clock, Start, Wake
from mailpoller.core.spool import Spool
from mailpoller.sources.pop3.config import Pop3Settings, impossible
from mailpoller.sources.pop3.download import SPOILT, Download
from mailpoller.sources.pop3.excerpt import Excerpt
from mailpoller.sources.pop3.maildrop import CONFIRMED, Contents, Maildrop, State, contradictory, shared_name
from mailpoller.sources.pop3.memory import Memory
from mailpoller.sources.pop3.protocol import Pop3Protocol
from mailpoller.sources.pop3.shown import Shown, digest_of, epoch_of, everything

log = structlog.get_logger(__name__)

INBOX = "INBOX"
PAGE = 1000
"""Messages in a page."""
GOODBYE = 4.5
"""Seconds that QUIT may take when the session is closed."""
LONGEST_PAUSE = timedelta(minutes=10)
"""What a wait, or a new look, may last if the server wants logins to be farther apart than the engine wants polls."""
BREAKS = 3
"""Connections that one fetch gives up because of what the server sent, at most; then the session is lost."""
FURTHER_LOOK = 60.0
"""Seconds after which a listing that is new is surveyed once more, though it is the same: absence is not concluded
from one look."""
SHORT_PAUSE = timedelta(minutes=1)
"""The same in the middle of a poll, where somebody waits with messages in hand: what takes longer is put off."""


class Dialler(Protocol):
    """Makes connections, no more often than the server wants."""

    async def log_in(self, patience: timedelta) -> Pop3Protocol:
        """A connection, logged in. Raises :class:`CredentialsRefused`, or :class:`TransientError`, also where the
        server wants us to stay away for longer than ``patience``; a shorter while is waited for."""

    @property
    def pause(self) -> timedelta:
        """How long the server still wants us to stay away; nothing if we may come at once."""


class Pop3Session:
    """See :class:`mailpoller.core.ports.Session`.

    ``open`` looks anew by a connection of its own; ``wait`` holds none. What is marked for deletion counts when a
    connection is ended in order; that it did is told only once a later one does not show the message any more.

    The numbers are those of one connection, and the names of some servers too. What was claimed by another connection
    is fetched or marked only if its name, size included, is the same in this one.
    """

    def __init__(
        self,
        name: str,
        config: Pop3Settings,
        dialler: Dialler,
        protocol: Pop3Protocol,
        memory: Memory,
        spool: Spool,
        clock: Clock,
    ) -> None:
        self._name = name
        self._config = config
        self._dialler = dialler
        self._memory = memory
        self._spool = spool
        self._clock = clock
        self._maildrop: Maildrop | None = Maildrop(protocol)
        self._folder: Folder | None = None
        self._fetching = asyncio.Lock()
        """Held by the download under way: each keeps the line busy by itself, and may end the connection in the
        middle."""
        self._turn = asyncio.Lock()
        """Held by whoever ends or begins a connection."""
        self._lost = ""
        self._surveying = b""
        """Digest of the listing that was told by :meth:`survey` and not yet gone on with."""
        self._overlong: set[str] = set()
        """The uids of messages that turned out larger than the limit."""
        self._hasty = False
        """The last wait was none."""

    @property
    def octets_in(self) -> int:
        """See :class:`mailpoller.core.ports.Progressing`: those of the connection in use."""
        return 0 if self._maildrop is None else self._maildrop.protocol.pace.octets

    # --- connections -----------------------------------------------------------------------------------------
    def _check(self) -> None:
        """Raise :class:`SessionLost` if a connection ended otherwise than by our own will."""
        protocol = None if self._maildrop is None else self._maildrop.protocol
        if protocol is not None and (protocol.cut or (protocol.broken and self._fetching.locked())):
            self._maildrop = None  # of what is broken the download under way says what is lost with it
        elif protocol is not None and protocol.lost is not None:
            self._lost = self._lost or protocol.lost
        if self._lost:
            raise SessionLost(self._lost)

    async def _enter(self, patience: timedelta = SHORT_PAUSE) -> tuple[Maildrop, Contents]:
        """The maildrop, listed; by a new connection if there is none. The caller has the turn."""
        self._check()
        if self._maildrop is None:
            protocol = await self._dialler.log_in(patience)
            if self._lost:
                protocol.lose(self._lost)
                raise SessionLost(self._lost)
            self._maildrop = Maildrop(protocol)
        maildrop = self._maildrop
        contents = maildrop.contents
        if contents is None:
            before = self._memory.knowledge.contradictions
            contents = await maildrop.look(self._memory.knowledge, self._config.max_message_size)
            if contents.contradiction and not before:
                log.warning("maildrop.contradicted", mailbox=self._name, reason=contents.contradiction)
            self._folder = Folder(self._name, INBOX, epoch_of(self._config, by_uidl=contents.by_uidl))
        return maildrop, contents

    async def _leave(self) -> None:
        """End the connection, if there is one: what is marked is deleted. The caller has the turn."""
        self._check()
        maildrop, self._maildrop = self._maildrop, None
        if maildrop is not None:
            try:
                await maildrop.quit(self._config.command_timeout.total_seconds())
            except SessionLost as error:
                self._lost = str(error)
                raise
            finally:
                # Whether or not the answer came: QUIT was said.
                self._memory.depart(maildrop.marked)

    async def _present(self, *folders: Folder) -> tuple[Maildrop, Contents]:
        async with self._turn:
            found = await self._enter()
        if any(folder != self._folder for folder in folders):
            raise TransientError(f"the folder {folders[0].name} is not open in this epoch")
        return found

    async def _renewed(self) -> tuple[Maildrop, Contents]:
        """The maildrop as it is now."""
        async with self._turn:
            await self._leave()
            return await self._enter()

    # --- folders ---------------------------------------------------------------------------------------------
    async def folders(self) -> Sequence[str]:
        """INBOX: POP3 has no other."""
        self._check()
        return [INBOX]

    async def open(self, name: str) -> Folder:
        """Look anew, by another connection if this one's listing was used. If the server wants logins farther apart
        than that, the listing stays the old one."""
        self._check()
        if name != INBOX:
            raise TransientError(f"there is no folder {name}: POP3 has only {INBOX}")
        async with self._turn:
            if self._maildrop is not None and self._maildrop.used and not self._dialler.pause:
                await self._leave()
            self._overlong.clear()
            await self._enter(LONGEST_PAUSE)
        assert self._folder is not None
        return self._folder

    # --- messages --------------------------------------------------------------------------------------------
    async def pending(self, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        """See the port. Without a position everything is listed; with one of this process what was listed since."""
        maildrop, contents = await self._present(folder)
        await self._confirm(maildrop, contents, since)
        if self._surveying:
            if self._memory.surveyed != self._surveying:
                self._memory.surveyed_again = self._clock.monotonic() + FURTHER_LOOK
            else:
                self._memory.surveyed_again = float("inf")
            self._memory.surveyed, self._surveying = self._surveying, b""
        position = await self._memory.note(contents)
        wanted: Sequence[str] = everything(contents) if since is None else self._memory.after(since)
        unwanted: Sequence[str] = ()
        if since is None and start.kind == "now":
            wanted, unwanted = (), wanted
        elif since is None and start.kind == "since" and start.instant is not None:
            received = await maildrop.received(wanted)
            unwanted = [uid for uid in wanted if uid in received and received[uid] < start.instant]
            left_out = frozenset(unwanted)
            wanted = [uid for uid in wanted if uid not in left_out]
        shown = Shown(folder, contents, wanted)
        for begin in range(0, max(1, len(wanted)), PAGE):
            last = begin + PAGE >= len(wanted)
            others = Shown(folder, contents, unwanted) if last and unwanted else ()
            yield Page(shown[begin : begin + PAGE], position if last else None, len(wanted), others)

    async def _confirm(self, maildrop: Maildrop, contents: Contents, since: Position | None) -> None:
        """A contradiction that was there in the last process too may be one too many."""
        maildrop.used = True
        if contents.lacking and self._memory.contradictions(since) >= CONFIRMED:
            await maildrop.complete(self._memory.knowledge, self._config.max_message_size)

    async def survey(self, folder: Folder, position: Position | None) -> Survey:
        """See the port. All that is listed; nothing if that is the same as the last time, and as a minute after that.

        To be asked after each :meth:`open`, for each is another connection. What was told and not gone on with, by
        :meth:`pending`, is told again.
        """
        maildrop, contents = await self._present(folder)
        await self._confirm(maildrop, contents, position)
        digest = contents.digest or await digest_of(contents)
        if digest == self._memory.surveyed and self._clock.monotonic() < self._memory.surveyed_again:
            return Survey()
        self._surveying = digest
        return Survey(Shown(folder, contents, everything(contents)), whole=contents.whole, names=contents.numbers)

    async def look(self, refs: Sequence[MessageRef]) -> Sequence[MessageRef | None]:
        """See the port. A ref comes back without a size where the size would prove nothing: the server tells none,
        its listing contradicts itself and lacks the name, or the name may have got another bearer since we deleted
        the one we knew. Then only the message itself tells what it is."""
        if not refs:
            return []
        maildrop, contents = await self._present(*{ref.folder for ref in refs})
        maildrop.used = True
        found: list[MessageRef | None] = []
        for ref in refs:
            if ref.uid not in contents.numbers:
                found.append(None if contents.whole else MessageRef(ref.folder, ref.uid))
            elif self._memory.doubts(ref.uid) and ref.uid not in maildrop.seen:
                found.append(MessageRef(ref.folder, ref.uid))
            else:
                size = contents.size(ref.uid)
                if size is not None and size == ref.size:
                    maildrop.seen.add(ref.uid)
                found.append(MessageRef(ref.folder, ref.uid, size))
        return found

    async def fetch(self, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        """See the port. Raises :class:`TransientError` after all that could be had, if something could not.

        A message that is larger than the limit comes last and alone: by TOP, and where that is no good by RETR, whose
        connection is cut once the limit is reached.
        """
        if not claims:
            return
        async with self._fetching:
            maildrop, contents = await self._present(*{claim.ref.folder for claim in claims})
            maildrop.used = True
            left = {claim.ref.uid: claim for claim in claims}
            refused: set[str] = set()
            failed: dict[str, str] = {}
            sizes = {uid: contents.size(uid) for uid in left if uid in contents.numbers}
            breaks = 0
            while left:
                for uid in [uid for uid in left if uid not in contents.numbers]:
                    claim = left.pop(uid)
                    if contents.whole:
                        yield Gone(claim)
                    else:
                        failed[uid] = contradictory(contents)
                for uid in [uid for uid in left if contents.size(uid) != sizes.get(uid)]:
                    del left[uid]
                    failed[uid] = "another connection shows it with another size"
                if not left:
                    break
                download = self._download(maildrop, list(left.values()), limit)
                async with aclosing(download.answers()) as answers:
                    async for answer in answers:
                        del left[answer.claim.ref.uid]
                        if not answer.doubt:
                            maildrop.seen.add(answer.claim.ref.uid)
                        yield answer
                if maildrop.protocol.broken:
                    breaks += 1
                    self._give_up(maildrop, breaks < BREAKS and bool(download.broken))
                self._check()
                self._overlong.add(download.overlong)
                failed |= download.failed
                failed |= {uid: f"the server says {reply}" for uid, reply in download.refused.items() if uid in refused}
                refused.update(download.refused)
                left = {uid: claim for uid, claim in left.items() if uid not in failed}
                if left and (download.refused or download.stale):
                    # Refused: only another look tells whether it is gone.
                    maildrop, contents = await self._renewed()
                elif left and self._maildrop is not maildrop:
                    async with self._turn:
                        maildrop, contents = await self._enter()
            if failed:
                reasons = "; ".join(sorted(set(failed.values()))[:3])
                kind = MachineTrouble if any(SPOILT in reason for reason in failed.values()) else TransientError
                raise kind(f"{len(failed)} of the messages could not be downloaded: {reasons}")

    def _download(self, maildrop: Maildrop, claims: Sequence[Claim], limit: int) -> Download | Excerpt:
        """What is downloaded next: all that is within the limit, in the server's order; or else one that is not."""
        contents = maildrop.contents
        assert contents is not None
        ordered = sorted(claims, key=lambda claim: contents.numbers[claim.ref.uid])
        small = [
            claim
            for claim in ordered
            if (contents.size(claim.ref.uid) or 0) <= limit and claim.ref.uid not in self._overlong
        ]
        if small or not ordered:
            return Download(maildrop, small, self._spool, limit, quiet=self._config.mode == "shadow")
        return Excerpt(maildrop, ordered[0], self._spool, limit)

    def _give_up(self, maildrop: Maildrop, go_on: bool) -> None:
        """A connection whose answers make no sense is given up, with what it has marked; and the session, unless it
        is to go on by another one."""
        if self._maildrop is maildrop:
            self._maildrop = None
        if not go_on:
            self._lost = self._lost or maildrop.protocol.lost or ""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        """See the port. A deletion is ``pending`` until a later connection does not show the message any more."""
        self._check()
        if self._config.mode == "shadow":
            return [Disposed(one, "applied") for one in settlements]
        doomed = [one for one in settlements if one.disposition.delete and not impossible(one.disposition)]
        states: dict[str, State] = {}
        if doomed:
            sizes = {one.ref.uid: one.ref.size for one in doomed}
            maildrop: Maildrop | None = None
            try:
                maildrop, _ = await self._present(*{one.ref.folder for one in doomed})
                maildrop.used = True
                states = await maildrop.delete(sizes, {uid for uid in sizes if self._memory.doubts(uid)})
            except SessionLost:
                if maildrop is None or not maildrop.protocol.broken:
                    self._check()  # passes if it was we who cut the connection
            except TransientError as error:
                states = dict.fromkeys(sizes, ("pending", str(error)))
        return [Disposed(one, *self._state(one, states)) for one in settlements]

    def _state(self, one: Settlement, states: dict[str, State]) -> State:
        if wish := impossible(one.disposition):
            return "failed", f"POP3 cannot {wish}"
        if not one.disposition.delete:
            return "applied", ""
        return states.get(one.ref.uid, ("pending", "the connection was ended before the server could delete it"))

    # --- waiting ---------------------------------------------------------------------------------------------
    async def wait(self, limit: timedelta) -> Wake:
        """End the connection and sleep: for ``limit``, at most ``poll_interval`` (there may be news then), and longer
        than both where the server wants fewer logins.

        Where a message was deleted whose name another one may bear next, there may be news at once: only a look
        before that other one comes tells the two apart.
        """
        async with self._turn:
            marked = () if self._maildrop is None else tuple(self._maildrop.marked)
            await self._leave()
        pause = self._dialler.pause
        self._hasty = not self._hasty and pause <= SHORT_PAUSE and any(map(shared_name, marked))
        if self._hasty:
            await self._clock.sleep(pause.total_seconds())
            self._check()
            return Wake.NEWS
        interval = min(limit, self._config.poll_interval)
        await self._clock.sleep(max(interval, min(self._dialler.pause, LONGEST_PAUSE)).total_seconds())
        self._check()
        return Wake.LIMIT if interval == limit else Wake.NEWS

    # --- the end ---------------------------------------------------------------------------------------------
    async def close(self) -> None:
        """QUIT, for at most 5 s. Raises :class:`SessionLost` if it is not known that what was marked is deleted."""
        maildrop, self._maildrop = self._maildrop, None
        self._lost = self._lost or "the session was closed"
        if maildrop is not None:
            try:
                await maildrop.quit(GOODBYE)
            except SessionLost:
                if maildrop.marked and not maildrop.protocol.cut:
                    raise
            finally:
                self._memory.depart(maildrop.marked)
