"""aioimaplib's protocol and client, mended: the one place where the library is subclassed.

What is kept: life cycle and states, the command table, tags, the command with its event, LOGOUT, CAPABILITY, ID. Every
override says which fault it mends. Commands are pipelined: any number may be under way, for each answer finds its
command by its tag, each message by its UID (sequence numbers are never used), and other data the first command that wants it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol

from aioimaplib import aioimaplib as library

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.spool import Intake, Octets
from mailpoller.sources.imap.names import quote_name
from mailpoller.sources.imap.reader import ProtocolViolation, Response, ResponseReader
from mailpoller.sources.imap.responses import Fetched, Status, read_fetch, read_flags, read_set, read_status
from mailpoller.wire.pace import Pace
from mailpoller.wire.wording import spoken, without

# Its DEBUG lines hold passwords and every octet received.
library.log.setLevel(logging.INFO)

MAX_DATA = 32 << 20
"""Octets of untagged data that one command may gather."""
MAX_ALERTS = 10
"""Texts that one connection may bring to a human's attention."""
PATIENCE = 10
"""A command must be over after this many stall times, however lively the server is. What is read at the pace of
:data:`~mailpoller.wire.pace.LEAST` for a FETCH or a SEARCH takes none of that time."""
PATIENCE_FETCH = 60
"""The same for FETCH, whose answer may be many messages."""
MAX_ODD_LINES = 1000
"""Lines of one connection that answer nothing; ten of them are told."""
_UNTAGGED = re.compile(
    rb"\* (?:\d+ (?:FETCH|EXISTS|EXPUNGE|RECENT)|OK|NO|BAD|BYE|CAPABILITY|FLAGS|LIST|LSUB|E?SEARCH|STATUS|VANISHED|ENABLED|ID"
    rb"|NAMESPACE|SORT|THREAD|QUOTA|QUOTAROOT|ACL|MYRIGHTS|METADATA|LANGUAGE|GENURLAUTH|URLFETCH|X[\w-]*)(?: |$)",
    re.IGNORECASE,
)
"""What may follow right behind a message. A line of a mail that begins with a star is no such thing."""
_IN_REV2 = {"ESEARCH", "IDLE", "MOVE", "NAMESPACE", "SASL-IR", "UIDPLUS", "UNSELECT"}
_OTHER_FOLDER = Status("NO", "CLOSED", b"", "another folder was opened meanwhile")


@dataclass(slots=True)
class Mailbox:
    """What the server has said about the folder that is selected. ``news`` counts its hints that mail came."""

    name: str = ""
    exists: int = 0
    arrived: int = 0
    """How many messages have come since the folder was selected."""
    recent: int = 0
    uidvalidity: int | None = None
    uidnext: int | None = None
    permanent_flags: frozenset[str] | None = None
    read_only: bool = False
    news: int = 0
    renumbered: bool = False
    uncounted: bool = False
    """``exists`` means nothing until EXISTS is told again: messages left without being counted (VANISHED)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a command, and the untagged data it gathered, in order."""

    status: Status
    data: list[Response] = field(default_factory=list)


class BodyTaker(Protocol):
    """Who awaits the bodies of messages."""

    def intake(self, line: bytes, size: int) -> Intake | None:
        """Where a literal goes that follows ``line``; None if it is no awaited body."""

    def take(self, fetched: Fetched) -> bool:
        """Take a FETCH answer that names a body; False if nobody awaits it."""

    def proven(self) -> None:
        """Behind the last body that was taken came what may follow there: it ended where it should."""

    def disproved(self, reason: str) -> None:
        """What came behind the last body that was taken is nothing that may follow there."""

    def cut_off(self, response: Response, reason: str) -> None:
        """The first line and the body of an answer that has no end."""

    def lost(self) -> None:
        """The connection is gone: nothing more will come."""


class Request(library.Command):  # type: ignore[misc]
    """A command on its way, and what has come for it.

    Mends: ``repr`` showed the arguments, passwords among them; a timer was made anew for every line (the protocol
    watches all commands with one); the end of a command could only be awaited, so that sending on needed a task.
    """

    def __init__(
        self,
        name: str,
        tag: str,
        line: bytes,
        *,
        alone: bool,
        wants: Collection[bytes] = (),
        on_fetch: Callable[[Fetched], bool] | None = None,
        on_done: Callable[[Status], None] | None = None,
        replies: Iterable[bytes] = (),
        converse: bool = False,
    ) -> None:
        super().__init__(name, tag, loop=None)
        self.line = line
        self.alone = alone
        self.within: Mailbox | None = None
        self.wants = wants
        self.on_fetch = on_fetch
        self.on_done = on_done
        self.replies = deque(replies)
        self.challenges: asyncio.Queue[bytes | None] | None = asyncio.Queue() if converse else None
        self.unwanted = False  # an IDLE that is to end as soon as it has begun
        self.said_done = False
        self.status: Status | None = None
        self.expunged = 0  # messages that left the folder meanwhile, as the server says
        self.copied: set[int] = set()  # uids that were copied by it, as the server says (COPYUID, RFC 4315)
        self.data: list[Response] = []
        self.expires_at = float("inf")
        self._gathered = 0

    def __repr__(self) -> str:
        return f"<{self.tag} {self.name}>"

    @property
    def done(self) -> bool:
        """Answered or failed."""
        return bool(self._event.is_set())

    def gather(self, response: Response) -> None:
        """Keep untagged data. Raises :class:`ProtocolViolation` when it is too much."""
        self._gathered += 100 + sum(len(piece) for piece in response if isinstance(piece, bytes))
        if self._gathered > MAX_DATA:
            raise ProtocolViolation(f"the answer to {self.name} is larger than {MAX_DATA} octets")
        self.data.append(response)

    def end(self, status: Status) -> None:
        """The tagged answer has come."""
        self.status = status
        self._event.set()
        if self.challenges is not None:
            self.challenges.put_nowait(None)
        if self.on_done is not None:
            self.on_done(status)

    def fail(self, loss: SessionLost) -> None:
        """It will never come."""
        self._exception = loss
        self._event.set()
        if self.challenges is not None:
            self.challenges.put_nowait(None)

    async def challenged(self) -> bytes | None:
        """The server's next challenge, to be answered by :meth:`ImapProtocol.reply`; None when the command has ended."""
        assert self.challenges is not None
        return await self.challenges.get()

    async def answer(self) -> Answer:
        """Wait for the end. Raises :class:`SessionLost`."""
        await self.wait()
        assert self.status is not None
        return Answer(self.status, self.data)


class ImapProtocol(library.IMAP4ClientProtocol):  # type: ignore[misc]
    """One connection. Lives until :attr:`lost` is set; then every pending and every later command raises SessionLost.

    ``stall`` (seconds): with a command under way and no octet for this long, the connection is given up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stall: float) -> None:
        super().__init__(loop)
        self.stall = stall
        self.capabilities: set[str] = set()
        self.mailbox = Mailbox()
        self.utf8 = False
        """Names and headers come and go in UTF-8: the server gives mail with such headers as it is (RFC 9755)."""
        self.on_downgrade: Callable[[str], None] = lambda numbers: None
        """Told of which messages the server gives something else than they are, for want of UTF-8 (RFC 6858)."""
        self.bodies: BodyTaker | None = None
        self.lost: str | None = None
        self.hidden: Sequence[str] = ()
        """Secrets that went over the wire: masked wherever the server's words are quoted, as long as the connection lasts."""
        self.on_alert: Callable[[str], None] = lambda text: None
        """Told what the server wants a human to read, each text once."""
        self.on_odd: Callable[[str], None] = lambda text: None
        """Told how a line begins that answers nothing, of the first ten."""
        self.greeting: asyncio.Future[Status] = loop.create_future()
        self.changed = asyncio.Event()
        """Set at every hint of news, when a command ends, and when the connection is lost; whoever waits clears it."""
        self._reader = ResponseReader(self._respond, self._place)
        self._queue: deque[Request] = deque()
        self._sent: dict[bytes, Request] = {}
        self._alone: Request | None = None
        self._idling = False
        self._upgrading = False
        self._pause: timedelta | None = None
        self._alerts: set[str] = set()
        self._odd_lines = 0
        self._unproven = False  # the last response had a body, which counts if what follows is proper
        self._progress_at = 0.0
        self.pace = Pace(loop.time())
        self._watch: asyncio.TimerHandle | None = None

    # --- the connection --------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Adds TCP keepalive: a half-open connection is noticed after two minutes (60 s, then 3 probes 20 s apart)."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3)):
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def data_received(self, d: bytes) -> None:
        """Mends: one recursion per line, work quadratic in the lines of an answer, no bound on lines and literals, and
        the ``repr`` of every octet received, made whether or not anybody logs."""
        if self.lost is not None:
            return
        self._progress_at = self.loop.time()
        self.pace.octets += len(d)
        try:
            self._reader.feed(d)
            if self._upgrading and not self._reader.clean:
                raise ProtocolViolation("data in clear after STARTTLS")
        except ProtocolViolation as violation:
            if self.bodies is not None and (cut := self._reader.unfinished()) is not None:
                self.bodies.cut_off(cut, "the server's answer has no end")
            self.lose(f"the server broke the protocol: {violation}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Mends: nobody was told; a command waited for its time-out, IDLE for 29 minutes."""
        reason = "the server closed it" if exc is None else getattr(exc, "strerror", None) or str(exc)
        self.lose(f"the connection was lost: {reason}")

    def loss(self) -> SessionLost:
        """What every command raises once the connection is lost."""
        return SessionLost(self.lost or "", retry_after=self._pause)

    def lose(self, reason: str, *, pause: timedelta | None = None) -> None:
        """Give the connection up: every pending command fails at once, every later one too. Harmless when repeated.

        ``pause``: for how long the server wants to be left alone.
        """
        if self.lost is not None:
            return
        self.lost = spoken(reason, self.hidden) if self.hidden else reason
        self._pause = pause
        if self._watch is not None:
            self._watch.cancel()
        if self.transport is not None:
            self.transport.abort()
        self._reader.close()
        if not self.greeting.done():
            self.greeting.set_exception(self.loss())
            self.greeting.exception()  # seen: whoever waits for it gets it, and nobody need wait
        pending = [*self._sent.values(), *self._queue]
        self._sent.clear()
        self._queue.clear()
        self._alone = None
        for request in pending:
            request.fail(self.loss())
        if self.bodies is not None:
            self.bodies.lost()
        self.changed.set()

    # --- commands --------------------------------------------------------------------------------------------
    def submit(
        self,
        name: str,
        *arguments: str,
        within: Mailbox | None = None,
        wants: Collection[bytes] = (),
        on_fetch: Callable[[Fetched], bool] | None = None,
        on_done: Callable[[Status], None] | None = None,
        replies: Iterable[bytes] = (),
        converse: bool = False,
        tag: str | None = None,
    ) -> Request:
        """Queue a command; it is sent as soon as those before it allow. ``arguments`` are ready for the wire.

        ``within`` makes it a UID command about messages of that folder: should another one be selected when its turn
        comes, it is not sent but ends in ``NO [CLOSED]``, for the uids would be those of other messages.
        ``on_fetch`` is shown FETCH answers without an awaited body and says whether they were meant for it.
        ``replies`` are sent one by one when the server asks to go on; with ``converse`` the caller answers each challenge
        himself. ``on_done`` is called at the tagged answer, not when
        the connection is lost. Raises :class:`SessionLost`; :class:`TransientError` where the command table forbids the command.
        """
        if self.lost is not None:
            raise self.loss()
        known = library.Commands[name]
        if self.state not in known.valid_states and (within is None or within is self.mailbox):
            raise TransientError(f"{name} is not possible now, in the state {self.state}")
        tag = tag or self.new_tag()
        words = " ".join((tag, "UID", name, *arguments) if within is not None else (tag, name, *arguments))
        if "\r" in words or "\n" in words or "\0" in words:
            raise ValueError(f"a line end or NUL in the arguments of {name}")
        # MOVE stands alone in the library's table for the sake of its untagged answers, which we need not assign.
        alone = known.exec is library.Exec.is_sync and name != "MOVE"
        line = words.encode() + library.CRLF
        request = Request(
            name, tag, line, alone=alone, wants=wants, on_fetch=on_fetch, on_done=on_done, replies=replies,
            converse=converse,
        )  # fmt: skip
        request.within = within
        self._queue.append(request)
        self._send()
        return request

    async def run(self, name: str, *arguments: str, **options: Any) -> Answer:
        """:meth:`submit` and wait for the answer."""
        return await self.submit(name, *arguments, **options).answer()

    async def capability(self) -> None:
        """Ask anew what the server can do. Mends: an answer without data was an IndexError, case mattered."""
        self.capabilities = set()
        await self.run("CAPABILITY")

    async def enable_utf8(self) -> str:
        """Let the server give mail with headers in UTF-8 as it is, where it can; otherwise it shows something that it made of it (RFC 6857,
        RFC 6858), or nothing. Why not, in the server's words, if it cannot be had; empty if it is, or there is no such thing."""
        if not self.capabilities & {"UTF8=ACCEPT", "UTF8=ONLY"}:
            # A server that knows IMAP4rev2 alone has never had names in UTF-7 (RFC 9051 appendix A).
            self.utf8 = "IMAP4REV2" in self.capabilities and "IMAP4REV1" not in self.capabilities
            return ""
        answer = await self.run("ENABLE", "UTF8=ACCEPT", wants=(b"ENABLED",))
        enabled = b" ".join(one[0] for one in answer.data if isinstance(one[0], bytes)).upper().split()
        self.utf8 = answer.status.ok and b"UTF8=ACCEPT" in enabled
        return "" if self.utf8 else str(answer.status)

    def named(self, name: str) -> str:
        """A folder's name as it stands in a command to this server."""
        return quote_name(name, utf8=self.utf8)

    def offers(self, capability: str) -> bool:
        """True if the server has this extension, by its name or as part of IMAP4rev2 (RFC 9051 appendix E)."""
        return capability in self.capabilities or ("IMAP4REV2" in self.capabilities and capability in _IN_REV2)

    async def execute(self, command: library.Command, scrub: str | None = None) -> library.Response:
        """What the library's own methods end in. Mends: one FETCH at a time, others failed; a time-out followed by the
        late answer killed the protocol. Here a command cannot time out alone: the connection does."""
        arguments = [str(one) for one in command.args if one is not None]
        answer = await self.run(
            command.name, *arguments, within=self.mailbox if command.prefix else None, wants=(command.untagged_resp_name.encode(),), tag=command.tag
        )  # fmt: skip
        texts = [response[0].split(b" ", 2)[-1] for response in answer.data if isinstance(response[0], bytes)]
        return library.Response(answer.status.kind, [*texts, answer.status.text.encode()])

    @property
    def busy(self) -> bool:
        """A command is under way or waits to be sent."""
        return bool(self._sent or self._queue)

    def _send(self) -> None:
        while self._queue:
            request = self._queue[0]
            if self._alone is not None or (request.alone and self._sent):
                if self._alone is not None and self._alone.name == "IDLE":
                    self.idle_done()
                return
            self._queue.popleft()
            if request.within is not None and request.within is not self.mailbox:
                self.loop.call_soon(request.end, _OTHER_FOLDER)
                continue
            self._sent[request.tag.encode()] = request
            if request.alone:
                self._alone = request
                if request.name in ("SELECT", "EXAMINE"):
                    self.mailbox = Mailbox()  # whatever comes from here on is about the new folder
            now = self.loop.time()
            request.expires_at = now + (PATIENCE_FETCH if request.name == "FETCH" else PATIENCE) * self.stall
            self._progress_at = now
            self.transport.write(request.line)
            self._keep_watch()

    def _keep_watch(self) -> None:
        if self._watch is None:
            self.pace.begin(self.loop.time())
            self._watch = self.loop.call_later(self.stall, self._look)

    def _look(self) -> None:
        self._watch = None
        waiting = [one for one in self._sent.values() if one.name != "IDLE" or not self._idling]
        if not waiting or self.lost is not None:
            return
        now = self.loop.time()
        quiet = now - self._progress_at
        # A large message over a thin line, or the listing of a huge folder: who waits behind it waits with it.
        if (credit := self.pace.credit(now)) and waiting[0].name in ("FETCH", "SEARCH"):
            for one in waiting:
                one.expires_at += credit
        if quiet >= self.stall:
            self.lose(f"no answer to {waiting[0].name} for {self.stall:g} s")
        elif any(now > one.expires_at for one in waiting):
            self.lose(f"no end of the answer to {waiting[0].name} in sight")
        else:
            self._watch = self.loop.call_later(self.stall - quiet, self._look)

    # --- responses -------------------------------------------------------------------------------------------
    def _place(self, line: bytes, size: int) -> Intake | None:
        return None if self.bodies is None else self.bodies.intake(line, size)

    def _respond(self, response: Response) -> None:
        if self._upgrading:
            raise ProtocolViolation("data in clear after STARTTLS")
        line = response[0]
        assert isinstance(line, bytes)
        if self._unproven:
            self._prove(line)
        if line.startswith(b"* "):
            if self.state == library.CONNECTED:
                self._greet(line)
            else:
                self._untagged_response(response)
        elif line.startswith(b"+"):
            self._continuation(line)
        else:
            self._response_done(line)

    def _prove(self, line: bytes) -> None:
        """The line right behind a message: other data, or the end of a command. Anything else is a piece of the message."""
        assert self.bodies is not None
        self._unproven = False
        if _UNTAGGED.match(line) is None and line.partition(b" ")[0].upper() not in self._sent:
            self.bodies.disproved("the server's answer goes on behind its end")
            raise ProtocolViolation(f"{len(line)} octets that answer nothing, right behind a message")
        self.bodies.proven()

    def _status(self, words: bytes) -> Status:
        """A status response whose text repeats no secret of ours: it is quoted in logs and errors as long as we are connected."""
        status = read_status(words)
        text = status.text
        for secret in self.hidden:
            text = without(text, secret)
        return status if text == status.text else replace(status, text=text)

    def _greet(self, line: bytes) -> None:
        """Mends: ``* BYE`` as greeting hung until the time-out and its reason was lost."""
        status = self._status(line[2:])
        self._heed(status)
        if status.kind == "BYE":
            self.lose(f"the server refuses the connection: {status.text or 'no reason given'}")
            return
        if status.kind not in ("OK", "PREAUTH"):
            raise ProtocolViolation("the greeting is none")
        self.state = library.AUTH if status.kind == "PREAUTH" else library.NONAUTH
        if not self.greeting.done():
            self.greeting.set_result(status)

    def _untagged_response(self, response: Response) -> None:
        """Mends: ``* `` removed inside data; FETCH data that nobody asked for given to whatever command was pending;
        EXISTS and EXPUNGE during FETCH lost; an ``* BYE`` noticed by no one."""
        line = response[0]
        assert isinstance(line, bytes)
        word, _, rest = line[2:].partition(b" ")
        if word.isdigit():
            kind = rest[:6].upper()
            if kind == b"FETCH ":
                self._fetched(response)
                return
            self._count(kind, int(word) if len(word) < 11 else 0)
            return
        keyword = word.upper()
        if keyword in (b"OK", b"NO", b"BAD"):
            status = self._status(line[2:])
            self._heed(status)
            if status.code == "COPYUID":  # MOVE tells it like this (RFC 6851 section 4.3)
                moving = next((one for one in self._sent.values() if one.name in ("MOVE", "COPY")), None)
                self._copied(status, moving)
        elif keyword == b"BYE":
            if not any(one.name == "LOGOUT" for one in self._sent.values()):
                text = self._status(line[2:]).text
                self.lose(f"the server ended the session: {text or 'no reason given'}")
                return
        elif keyword == b"CAPABILITY":
            self._capable(rest)
        elif keyword == b"VANISHED":
            self.mailbox.uncounted = True
            if re.fullmatch(rb"[\d:,]{1,1000000}", rest):
                self._expunged(len(read_set(rest)))
        for request in self._sent.values():
            if keyword in request.wants:
                request.gather(response)
                return

    def _fetched(self, response: Response) -> None:
        fetched = read_fetch(response)
        if fetched is not None and fetched.asked and self.bodies is not None and self.bodies.take(fetched):
            self._unproven = True
            if fetched.broken:
                raise ProtocolViolation("the answer with a message goes on where it should end")
            return
        for piece in response:
            if isinstance(piece, Octets):
                piece.close()
        if fetched is not None:
            for request in self._sent.values():
                if request.on_fetch is not None and request.on_fetch(fetched):
                    return
        # What is left are changes of flags, which say nothing to us.

    def _count(self, kind: bytes, number: int) -> None:
        mailbox = self.mailbox
        if kind == b"EXISTS":
            if number != mailbox.exists:
                # Fewer, though nobody said which are gone: who knows what has come in their place.
                mailbox.arrived += max(1, number - mailbox.exists)
                mailbox.news += 1
                self.changed.set()
            mailbox.exists = number
            mailbox.uncounted = False
        elif kind == b"RECENT":
            if number > mailbox.recent:
                mailbox.news += 1
                self.changed.set()
            mailbox.recent = number
        elif kind == b"EXPUNG":
            mailbox.exists = max(0, mailbox.exists - 1)
            self._expunged(1)

    def _expunged(self, count: int) -> None:
        for request in self._sent.values():
            if request.name in ("MOVE", "EXPUNGE"):
                request.expunged += count
                return

    def _heed(self, status: Status) -> None:
        """Response codes that tell about the session or the folder, in tagged and untagged answers alike."""
        mailbox, arguments = self.mailbox, status.arguments
        if status.code == "CAPABILITY":
            self._capable(arguments)
        elif status.code in ("UIDVALIDITY", "UIDNEXT") and arguments.isdigit() and len(arguments) < 11:
            number = int(arguments)
            if status.code == "UIDNEXT":
                mailbox.uidnext = number or None
            else:
                if mailbox.uidvalidity not in (None, number):
                    mailbox.renumbered = True
                    mailbox.news += 1
                    self.changed.set()
                mailbox.uidvalidity = number
        elif status.code == "PERMANENTFLAGS":
            mailbox.permanent_flags = frozenset(flag.lower() for flag in read_flags(arguments.strip(b"()")))
        elif status.code == "READ-ONLY":
            mailbox.read_only = True
        elif status.code == "DOWNGRADED":
            self.on_downgrade(arguments.decode("ascii", "replace")[:60])
        elif status.code == "ALERT" and status.text not in self._alerts and len(self._alerts) < MAX_ALERTS:
            self._alerts.add(status.text)
            self.on_alert(status.text)

    def _copied(self, status: Status, request: Request | None) -> None:
        """``[COPYUID 38505 304,319:320 3956:3958]``: uidvalidity, what was copied, and what it is in the other folder."""
        words = status.arguments.split()
        if request is not None and len(words) == 3:
            request.copied.update(read_set(words[1]))

    def _capable(self, words: bytes) -> None:
        self.capabilities = set(words.decode("ascii", "replace").upper().split())

    def _response_done(self, line: bytes) -> None:
        """Mends: one pending command per kind of answer, so that two FETCHes could not be under way."""
        tag, _, words = line.partition(b" ")
        status = self._status(words)
        if (pause := status.pause) is not None:
            # It hangs up on whoever goes on asking; most do it right behind this answer.
            self.lose(f"the server wants to be left alone: {status}", pause=pause)
            return
        request = self._sent.get(tag.upper())
        ours = tag.upper().startswith(self.tagpre.encode())
        if request is None and not ours and status.kind not in ("OK", "NO", "BAD") and self._pass_over(line):
            return
        if request is None or status.kind not in ("OK", "NO", "BAD"):
            raise ProtocolViolation(f"an answer to nothing that was asked: {self._quoted(line, status)}")
        self._heed(status)
        if status.code == "COPYUID":
            self._copied(status, request)
        del self._sent[tag.upper()]  # and not before: what is raised up to here must reach whoever waits for it
        if request is self._alone:
            self._alone = None
            self._idling = False
            if request.name == "STARTTLS" and status.ok:
                # Nothing more is read in clear: what is in our buffers now is an attacker's, what is still in the
                # kernel's goes to the TLS handshake, which takes it for what it is.
                self._upgrading = True
                self.transport.pause_reading()
        request.end(status)
        self.changed.set()
        if not self._upgrading:
            self._send()

    def _pass_over(self, line: bytes) -> bool:
        """A whole line that answers nothing, such as Exchange's bare ``[COPYUID …]``. False: no server that we are logged in to says so
        much of that."""
        if self.state in (library.CONNECTED, library.NONAUTH) or self._odd_lines >= MAX_ODD_LINES:
            return False
        self._odd_lines += 1
        if self._odd_lines <= MAX_ALERTS:
            self.on_odd(spoken(line[:1000].decode("utf-8", "replace"), self.hidden)[:60])
        return True

    def _quoted(self, line: bytes, status: Status) -> str:
        """A line that makes no sense. Once we are logged in it may be anything: our own words, or those of somebody's mail."""
        if self.state in (library.CONNECTED, library.NONAUTH):
            return spoken(line.decode("utf-8", "replace"), self.hidden)[:60]  # masked first: half a secret is not found
        return status.kind if status.kind in ("OK", "NO", "BAD") else f"{len(line)} octets"

    def _continuation(self, line: bytes) -> None:
        """Mends: the challenge that explains a refusal (XOAUTH2: ``+ <base64>``) was never answered, so that the refusal
        never came. One that nobody waits for is not answered: an empty line would be taken for a command."""
        request = self._alone
        if request is None:
            return
        if request.name == "IDLE":
            if request.said_done:
                return
            self._idling = True
            request.expires_at = float("inf")
            if self._queue or request.unwanted:
                self.idle_done()
        elif request.challenges is not None:
            if not request.challenges.empty():
                raise ProtocolViolation("two challenges at once")
            request.challenges.put_nowait(line[2:])
        elif request.replies:
            self.transport.write(request.replies.popleft() + library.CRLF)

    def reply(self, line: str) -> None:
        """Answer a challenge. Harmless if the connection is gone: the request tells."""
        if self.lost is None:
            self._progress_at = self.loop.time()
            self.transport.write(line.encode("ascii") + library.CRLF)
            self._keep_watch()

    # --- IDLE and STARTTLS -----------------------------------------------------------------------------------
    def idle_done(self) -> None:
        """End IDLE, if there is one. Mends: DONE could be sent before the server had agreed to idle."""
        request = self._alone
        if request is None or request.name != "IDLE":
            return
        if not self._idling:
            request.unwanted = True
            return
        self._idling = False
        request.said_done = True
        self._progress_at = self.loop.time()
        request.expires_at = self._progress_at + PATIENCE * self.stall
        self.transport.write(b"DONE\r\n")
        self._keep_watch()

    async def idle(self, seconds: float) -> Status:
        """IDLE (RFC 2177) until there is news, until another command wants to be sent, or for ``seconds``."""
        heard = self.mailbox.news
        request = self.submit("IDLE")
        try:
            async with asyncio.timeout(seconds):
                while not request.done and self.mailbox.news == heard:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            pass
        finally:
            if request in self._queue:
                self._queue.remove(request)
                request.end(Status("OK", "", b"", "not begun"))
            elif request is self._alone:
                self.idle_done()
        return (await request.answer()).status

    def begin_tls(self) -> asyncio.Transport:
        """After STARTTLS was agreed to: forget all that was said in clear (RFC 3501 section 6.2.1), and give the plain
        transport. Raises :class:`SessionLost` if anything is buffered."""
        if self.lost is not None:
            raise self.loss()
        self.capabilities = set()
        self.mailbox = Mailbox()
        transport: asyncio.Transport = self.transport
        return transport

    def end_tls(self, transport: asyncio.Transport) -> None:
        """TLS is up; from now on everything goes through ``transport``."""
        self.transport = transport
        self._upgrading = False


class ImapClient(library.IMAP4):  # type: ignore[misc]
    """The library's client with :class:`ImapProtocol` in it.

    Mends: the connection was made in a task without an owner, by ``create_connection`` with a TLS context of its
    own; here :mod:`~mailpoller.sources.imap.connecting` makes it step by step.
    """

    protocol: ImapProtocol

    def __init__(self, host: str, port: int, stall: float) -> None:
        super().__init__(host, port, timeout=stall)

    def create_client(self, host: str, port: int, loop: Any, conn_lost_cb: Any = None, ssl_context: Any = None) -> None:
        self.protocol = ImapProtocol(loop or asyncio.get_running_loop(), self.timeout)
