"""Downloading bodies: sets of messages sized by octets, as many under way as keep the line busy.

Everything here happens as the answers come in, never when the consumer asks for more: a slow consumer delays nobody.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mailpoller.core.errors import MachineTrouble, TransientError
from mailpoller.core.message import Claim, Gone, RawMessage
from mailpoller.core.spool import Intake, Octets, Spool
from mailpoller.remote.standins import LONGEST, stand_in
from mailpoller.sources.imap.trust import Trust
from mailpoller.wire.imap.names import uid_set
from mailpoller.wire.imap.protocol import ImapProtocol
from mailpoller.wire.imap.reader import ProtocolViolation, Response, SpoolFailure
from mailpoller.wire.imap.responses import Fetched, Status, read_fetch
from mailpoller.wire.imap.search import hits

WINDOW = 8 << 20
"""Octets asked for and not yet received, at most (one set may exceed it)."""
SET_MESSAGES = 50
SET_OCTETS = 1 << 20
COMMANDS = 24
"""FETCH commands under way, at most."""
UNKNOWN_SIZE = 100_000
"""What a message without a size counts, in octets."""
_UID = re.compile(rb"\bUID (\d+)")
_REMOVED = (
    b"From: System Administrator <root@localhost>\r\nSubject: message unavailable\r\n\r\n"
    b"This message is no longer available on the server.\r\n"
)
"""What Courier gives in place of a message that somebody has removed, until it has had a chance to say so; whatever
size was told."""


@dataclass(slots=True)
class _Set:
    """Messages that are asked for by one command. ``alone``: it is the second attempt at a single message."""

    uids: list[int]
    section: str
    octets: int
    alone: bool = False


class Downloads:
    """The downloads of one session; the protocol brings it every body."""

    def __init__(self, protocol: ImapProtocol, spool: Spool, trust: Trust) -> None:
        self.protocol = protocol
        self.spool = spool
        self.trust = trust
        self.awaited: dict[str, Download] = {}
        self.active: set[Download] = set()
        self.limit = 0
        self.epoch = ""
        self._unproven: tuple[Download, RawMessage] | None = None

    def intake(self, line: bytes, size: int) -> Intake | None:
        """A place in the spool for an awaited body. More than was asked for is not taken in: the connection ends."""
        if not self.awaited or b"BODY[]" not in line.upper():
            return None
        if size > self.limit + 1:
            self._learn(line)
            raise ProtocolViolation(f"{size} octets of a message, of which at most {self.limit + 1} were asked for")
        return self.spool.begin(self.limit)

    def awaits(self, uid: str, size: int) -> bool:
        return uid in self.awaited and size <= self.limit

    def _learn(self, line: bytes) -> None:
        found = _UID.search(line)
        if self.trust.sizes or found is None:
            self.trust.sizes = False
        else:
            self.trust.overlong.add((self.epoch, found[1].decode()))

    def take(self, fetched: Fetched) -> bool:
        download = self.awaited.get(fetched.uid or "")
        return download is not None and download.take(fetched)

    def hold(self, download: Download, message: RawMessage) -> None:
        """Keep a message back until what follows it has come."""
        if self._unproven is not None:
            self.proven()
        self._unproven = download, message

    def proven(self) -> None:
        held, self._unproven = self._unproven, None
        if held is not None:
            held[0].arrive(held[1])

    def disproved(self, reason: str) -> None:
        if self._unproven is not None:
            download, message = self._unproven
            self._unproven = download, replace(message, doubt=message.doubt or reason)
            self.proven()

    def cut_off(self, response: Response, reason: str) -> None:
        fetched, octets = read_fetch([*response, b""]), response[1]
        if fetched is not None and fetched.asked:
            fetched.doubt = reason
            if self.take(fetched):
                return
        if isinstance(octets, Octets):
            octets.close()

    def lost(self) -> None:
        self.proven()  # its own end was proper
        for download in self.active:
            download.event.set()

    async def begin(self, claims: Sequence[Claim], epoch: str, limit: int) -> Download:
        """A download of ``claims``, begun. Downloads with one limit overlap; one with another limit waits for them."""
        while self.active and self.limit != limit:
            if self.protocol.lost is not None:
                raise self.protocol.loss()
            self.protocol.changed.clear()
            await self.protocol.changed.wait()
        self.limit, self.epoch = limit, epoch
        return Download(self, claims)


class Download:
    """One call of fetch: what is asked for, what has come, and what is still owed."""

    def __init__(self, downloads: Downloads, claims: Sequence[Claim]) -> None:
        self.event = asyncio.Event()
        self.failed: dict[str, str] = {}
        self._spoilt = False
        self._downloads = downloads
        self._protocol = downloads.protocol
        self._mailbox = downloads.protocol.mailbox
        self._limit = downloads.limit
        self._arrived: deque[RawMessage | Gone] = deque()
        self._waiting: dict[str, Claim] = {}
        self._empty: set[str] = set()  # answered NIL, nothing where there is something, or a stand-in
        self._again: set[str] = set()  # asked for a second time, alone
        self._held = 0  # taken, and kept back until what follows has come
        self._under_way = 0  # octets
        self._commands = 0
        self._abandoned = False
        for claim in claims:
            if (downloads.epoch, claim.ref.uid) in downloads.trust.overlong:
                self.failed[claim.ref.uid] = "the server sends more of it than was asked for"
            else:
                self._waiting[claim.ref.uid] = claim
        self._sets = deque(self._cut(self._waiting.values()))
        for uid in self._waiting:
            downloads.awaited[uid] = self
        downloads.active.add(self)
        self._send()

    # --- for the consumer ------------------------------------------------------------------------------------
    def arrived(self) -> Iterator[RawMessage | Gone]:
        """What has come and was not given out yet."""
        while self._arrived:
            yield self._arrived.popleft()

    @property
    def complete(self) -> bool:
        """Nothing more will come."""
        return not self._waiting and not self._arrived and not self._held

    async def more(self) -> None:
        """Wait until something has come or nothing more will. Raises :class:`SessionLost`."""
        while not self._arrived and (self._waiting or self._held):
            if self._protocol.lost is not None:
                raise self._protocol.loss()
            self.event.clear()
            await self.event.wait()

    def end(self) -> None:
        """The consumer wants no more: what has come is dropped, what still comes will be, the rest is not asked for."""
        self._abandoned = True
        for unsent in self._sets:
            self._forget(unsent.uids)
        self._sets.clear()
        for answer in self.arrived():
            if isinstance(answer, RawMessage):
                answer.octets.close()
        self._retire()

    def complaint(self) -> TransientError:
        """What to say about the messages that could not be had."""
        reasons = sorted(set(self.failed.values()))
        kind = MachineTrouble if self._spoilt else TransientError
        return kind(f"{len(self.failed)} of the messages could not be downloaded: {'; '.join(reasons[:3])}")

    # --- as answers come -------------------------------------------------------------------------------------
    def take(self, fetched: Fetched) -> bool:
        """Take a body. False: it was not asked for, or has come before, and is the protocol's to drop."""
        assert fetched.uid is not None
        claim = self._waiting.get(fetched.uid)
        if claim is None:
            return False
        body = fetched.body
        if body is None or (not fetched.announced and claim.ref.size):
            self._empty.add(fetched.uid)
            return True
        doubt = fetched.doubt
        if not doubt and not isinstance(body, SpoolFailure) and (notice := self._notice(fetched, claim)) is not None:
            if fetched.uid not in self._again:
                # Asked for again it is gone, or had, or still what it is now.
                self._empty.add(fetched.uid)
                return True
            doubt = notice
        del self._waiting[fetched.uid]
        if isinstance(body, SpoolFailure):
            self.failed[fetched.uid] = f"the spool cannot be written: {body}"
            self._spoilt = True
        else:
            octets = body if isinstance(body, Octets) else Octets.of(body)
            hint = claim.ref.size
            truncated = fetched.announced > self._limit or (
                hint is not None and hint > self._limit and octets.size >= self._limit
            )
            self._held += 1
            self._downloads.hold(
                self, RawMessage(claim, octets, truncated, hint, fetched.received, fetched.flags or (), doubt)
            )
        self.event.set()
        return True

    def arrive(self, message: RawMessage) -> None:
        """Give out what was kept back."""
        self._held -= 1
        if self._abandoned:
            message.octets.close()
        else:
            self._arrived.append(message)
        self.event.set()

    def _notice(self, fetched: Fetched, claim: Claim) -> str | None:
        """Why the body is perhaps the server's own notice in place of the message; empty if nothing but its words
        says so."""
        body = fetched.body
        if not isinstance(body, Octets) or body.size > LONGEST:
            return None
        if notice := stand_in(body, claim.ref.size):
            return notice
        return "" if fetched.announced == len(_REMOVED) and body.view() == _REMOVED else None

    def _ended(self, asked: _Set, status: Status) -> None:
        """The command for ``asked`` was answered: what it left out is gone, or doubtful."""
        self._under_way -= asked.octets
        self._commands -= 1
        missing = [uid for uid in asked.uids if str(uid) in self._waiting]
        if missing and not self._abandoned:
            silent = [uid for uid in missing if str(uid) not in self._empty]
            if status.code == "CLOSED":
                self._fail(missing, status.text)
            elif status.busy:
                self._fail(missing, f"the server says {status}")
            elif asked.alone and not (status.ok and silent):
                words = "the server shows no body" if status.ok else f"the server says {status}"
                self._fail(missing, words)
            elif status.ok:
                self._verify(silent)
                self._retry([uid for uid in missing if str(uid) in self._empty], asked)
            else:
                self._retry(missing, asked)
        self._forget(uid for uid in asked.uids if self._abandoned or str(uid) not in self._waiting)
        self._send()
        self._retire()
        self.event.set()

    def _verify(self, uids: list[int]) -> None:
        """Nothing was said about ``uids``. Gone, unless the server lists them still, by FETCH or by SEARCH: Exchange
        leaves out what it cannot convert, and a message must not be called gone for that, nor for a line that is
        lacking."""
        if not uids or self._protocol.lost is not None:
            return
        present: set[int] = set()
        wanted = set(uids)
        shown: list[Status] = []

        def note(fetched: Fetched) -> bool:
            uid = int(fetched.uid or 0)
            if uid in wanted:
                present.add(uid)
            return uid in wanted

        def conclude(status: Status) -> None:
            if status.ok:
                present.update(wanted.intersection(hits(searching.data)))
            told = shown[0].ok and status.code != "CLOSED"
            self._fail([uid for uid in uids if uid in present or not told], "the server does not give its body")
            for uid in uids:
                claim = self._waiting.pop(str(uid), None)
                if claim is not None and not self._abandoned:
                    self._arrived.append(Gone(claim))
            self._forget(uids)
            self._retire()
            self.event.set()

        words = uid_set(uids)
        self._submit(words, "(UID FLAGS)", on_fetch=note, on_done=shown.append)
        searching = self._protocol.submit(
            "SEARCH", f"UID {words}", within=self._mailbox, wants=(b"SEARCH", b"ESEARCH"), on_done=conclude
        )

    def _retry(self, uids: list[int], asked: _Set) -> None:
        """Once more, one by one, after the server had a chance to say which of them are gone (RFC 2180 section 4.1)."""
        if not uids:
            return
        self._empty.difference_update(map(str, uids))
        self._again.update(map(str, uids))
        if self._protocol.lost is None:
            self._protocol.submit("NOOP")
        share = max(1, asked.octets // len(asked.uids))
        self._sets.extend(_Set([uid], asked.section, share, alone=True) for uid in uids)

    def _fail(self, uids: list[int], reason: str) -> None:
        for uid in uids:
            if self._waiting.pop(str(uid), None) is not None:
                self.failed[str(uid)] = reason
        self._forget(uids)

    def _forget(self, uids: Iterable[int]) -> None:
        for uid in map(str, uids):
            if self._downloads.awaited.get(uid) is self:
                del self._downloads.awaited[uid]

    def _send(self) -> None:
        while self._sets and self._commands < COMMANDS and (self._commands < 2 or self._under_way < WINDOW):
            wanted = self._sets.popleft()
            self._under_way += wanted.octets
            self._commands += 1
            items = f"(UID FLAGS INTERNALDATE {wanted.section})"
            self._submit(uid_set(wanted.uids), items, on_done=partial(self._ended, wanted))

    def _submit(self, *arguments: str, **options: object) -> None:
        if self._protocol.lost is None:
            self._protocol.submit("FETCH", *arguments, within=self._mailbox, **options)  # type: ignore[arg-type]

    def _retire(self) -> None:
        if self._commands == 0 and (self._abandoned or not self._waiting):
            self._downloads.active.discard(self)
            self._protocol.changed.set()

    # --- what to ask -----------------------------------------------------------------------------------------
    def _cut(self, claims: Iterable[Claim]) -> list[_Set]:
        """Sets of at most 50 messages or about 1 MB, each of one section, ascending."""
        sets: dict[str, list[_Set]] = {}
        for claim in sorted(claims, key=_number):
            size = claim.ref.size
            section = self._section(size)
            octets = min(UNKNOWN_SIZE if size is None else size, self._limit + 1)
            row = sets.setdefault(section, [])
            if not row or len(row[-1].uids) >= SET_MESSAGES or row[-1].octets + octets > SET_OCTETS:
                row.append(_Set([], section, 0))
            row[-1].uids.append(_number(claim))
            row[-1].octets += octets
        return [one for row in sets.values() for one in row]

    def _section(self, size: int | None) -> str:
        """The whole, if by its size it is well below the limit; else a part that is one octet longer than the limit, so
        that we can tell; or exactly the limit, if we know already that there is more.

        Sizes are hints (Exchange estimates), hence "well below": half. Not a part for everything, because
        fetching by parts is what servers get wrong.
        """
        if size is not None and size <= self._limit // 2 and self._downloads.trust.sizes:
            return "BODY.PEEK[]"
        if size is not None and size > self._limit:
            return f"BODY.PEEK[]<0.{max(1, self._limit)}>"
        return f"BODY.PEEK[]<0.{self._limit + 1}>"


def _number(claim: Claim) -> int:
    return int(claim.ref.uid)
