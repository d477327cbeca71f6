"""aioimaplib's protocol and client, mended: what the server says, and whom it is for.

Of the library is kept: life cycle and states, the command table, tags, the command with its event, LOGOUT,
CAPABILITY, ID. It is subclassed here, in :mod:`~mailpoller.wire.imap.connection` and in
:mod:`~mailpoller.wire.imap.command`, and nowhere else. Every override says which fault it mends.
An answer finds its command by its tag, a message its taker by its UID (sequence numbers are never used), and other
data the first command that wants it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aioimaplib import aioimaplib as library

from mailpoller.core.spool import Octets
from mailpoller.wire.imap.command import Request
from mailpoller.wire.imap.connection import Connection
from mailpoller.wire.imap.names import quote_name
from mailpoller.wire.imap.reader import MAX_EARLY, ProtocolViolation, Response, octets_of
from mailpoller.wire.imap.responses import Fetched, Status, read_date, read_fetch, read_flags, read_status
from mailpoller.wire.imap.uids import count_set, read_set
from mailpoller.wire.redaction import spoken, without
from mailpoller.wire.unasked import PIECE

MAX_ALERTS = 10
"""Texts that one connection may bring to a human's attention."""
MAX_ODD_LINES = 1000
"""Lines of one connection that answer nothing; ten of them are told."""
_UNTAGGED = re.compile(
    rb"\* (?:\d+ (?:FETCH|EXISTS|EXPUNGE|RECENT)|OK|NO|BAD|BYE|CAPABILITY|FLAGS|LIST|LSUB|E?SEARCH|STATUS"
    rb"|VANISHED|ENABLED|ID|NAMESPACE|SORT|THREAD|QUOTA|QUOTAROOT|ACL|MYRIGHTS|METADATA|LANGUAGE|GENURLAUTH"
    rb"|URLFETCH|X[\w-]*)(?: |$)",
    re.IGNORECASE,
)
"""What may follow right behind a message. A line of a mail that begins with a star is no such thing."""
_IN_REV2 = {"ESEARCH", "IDLE", "MOVE", "NAMESPACE", "SASL-IR", "UIDPLUS", "UNSELECT"}


class ImapProtocol(Connection):
    """A connection that understands what it is told; see :class:`~mailpoller.wire.imap.connection.Connection`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stall: float) -> None:
        super().__init__(loop, stall)
        self.utf8 = False
        """Names and headers come and go in UTF-8: the server gives mail with such headers as it is (RFC 9755)."""
        self.on_downgrade: Callable[[str], None] = lambda numbers: None
        """Told of which messages the server gives something else than they are, for want of UTF-8 (RFC 6858)."""
        self.on_alert: Callable[[str], None] = lambda text: None
        """Told what the server wants a human to read, each text once."""
        self.on_odd: Callable[[str], None] = lambda text: None
        """Told how a line begins that answers nothing, of the first ten."""
        self._alerts: set[str] = set()
        self._odd_lines = self._downgrades = 0
        self._unproven = False  # the last response had a body, which counts if what follows is proper

    # --- what the server can do ------------------------------------------------------------------------------
    async def capability(self) -> None:
        """Ask anew what the server can do. Mends: an answer without data was an IndexError, case mattered."""
        self.capabilities = set()
        await self.run("CAPABILITY")

    async def enable_utf8(self) -> str:
        """Let the server give mail with headers in UTF-8 as it is, where it can;
        otherwise it shows something that it made of it (RFC 6857, RFC 6858), or nothing.
        Why not, in the server's words, if it cannot be had; empty if it is, or there is no such thing."""
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

    # --- responses -------------------------------------------------------------------------------------------
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
        elif self.state == library.CONNECTED:
            raise ProtocolViolation(f"the greeting is none of IMAP: {self._quoted(line, self._status(line))}")
        elif line.startswith(b"+"):
            self._continuation(line)
        else:
            self._response_done(line)

    def _message(self, uid: bytes, flags: bytes, date: bytes, octets: bytes) -> bool:
        """A message in the usual shape; False: it is not awaited, or more than was asked for. That it came proves the
        one before."""
        bodies = self.bodies
        if bodies is None or self._upgrading or not bodies.awaits(name := uid.decode(), len(octets)):
            return False
        if self._unproven:
            self._unproven = False
            bodies.proven()
        held = Octets.of(octets)
        fetched = Fetched(name, None, read_flags(flags), read_date(date), True, held, held.size)
        self._unproven = bodies.take(fetched)
        return self._unproven

    def _prove(self, line: bytes) -> None:
        """The line right behind a message: other data, or the end of a command.
        Anything else is a piece of the message."""
        assert self.bodies is not None
        self._unproven = False
        if _UNTAGGED.match(line) is None and line.partition(b" ")[0].upper() not in self._sent:
            self.bodies.disproved("the server's answer goes on behind its end")
            raise ProtocolViolation(f"{len(line)} octets that answer nothing, right behind a message")
        self.bodies.proven()

    def _status(self, words: bytes) -> Status:
        """A status response whose text repeats no secret of ours: it is quoted in logs and errors as long as we are
        connected."""
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
        self.state = library.NONAUTH
        if status.kind == "PREAUTH":
            self.logged_in()
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
            self.unasked(len(line))
            if kind == b"EXPUNG":
                self._expunged(1)
            if self.mailbox.count(kind, int(word) if len(word) < 11 else 0):
                self.changed.set()
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
                self._expunged(count_set(rest))
        for request in self._sent.values():
            if keyword in request.wants:
                request.gather(response)
                return
        self.unasked(octets_of(response))

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
        asking: Request | None = None
        if fetched is not None:
            for request in self._sent.values():
                if request.on_fetch is not None:
                    asking = asking or request
                    if request.on_fetch(fetched):
                        request.count()
                        return
        # What is left are changes of flags, which say nothing to us.
        if asking is None:
            self.unasked(octets_of(response))
        else:
            asking.count()

    def _expunged(self, count: int) -> None:
        for request in self._sent.values():
            if request.name in ("MOVE", "EXPUNGE"):
                request.expunged += count
                return

    def _heed(self, status: Status) -> None:
        """Response codes that tell about the session or the folder, in tagged and untagged answers alike."""
        if status.code == "CAPABILITY":
            self._capable(status.arguments)
        elif status.code == "DOWNGRADED":
            self._downgrades += 1
            if self._downgrades <= MAX_ALERTS:
                self.on_downgrade(status.arguments.decode("ascii", "replace")[:60])
        elif status.code == "ALERT":
            if status.text not in self._alerts and len(self._alerts) < MAX_ALERTS:
                self._alerts.add(status.text)
                self.on_alert(status.text)
        elif status.code and self.mailbox.heed(status):
            self.changed.set()

    def _copied(self, status: Status, request: Request | None) -> None:
        """``[COPYUID 38505 304,319:320 3956:3958]``: uidvalidity, what was copied, and what it is in the other
        folder."""
        words = status.arguments.split()
        if request is not None and len(words) == 3:
            self.unasked(PIECE * count_set(words[1]))
            request.copied.update(read_set(words[1]))

    def _capable(self, words: bytes) -> None:
        self.capabilities = set(words[:MAX_EARLY].decode("ascii", "replace").upper().split())

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
        if status.ok and request.replies:  # a literal or an answer of ours that it cannot have read
            raise ProtocolViolation(f"it says that {request.name} is done, and never asked for all of it")
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
        """A whole line that answers nothing, such as Exchange's bare ``[COPYUID …]``.
        False: no server that we are logged in to says so much of that."""
        if self.state in (library.CONNECTED, library.NONAUTH) or self._odd_lines >= MAX_ODD_LINES:
            return False
        self._odd_lines += 1
        if self._odd_lines <= MAX_ALERTS:
            self.on_odd(spoken(line[:1000].decode("utf-8", "replace"), self.hidden)[:60])
        return True

    def _quoted(self, line: bytes, status: Status) -> str:
        """A line that makes no sense. Once we are logged in it may be anything: our own words, or those of somebody's
        mail."""
        if self.state in (library.CONNECTED, library.NONAUTH):
            return spoken(line.decode("utf-8", "replace"), self.hidden)[:60]  # masked first: half a secret is not found
        return status.kind if status.kind in ("OK", "NO", "BAD") else f"{len(line)} octets"

    def _continuation(self, line: bytes) -> None:
        """Mends: the challenge that explains a refusal (XOAUTH2: ``+ <base64>``) was never answered, so that the
        refusal never came. One that nobody waits for is not answered: an empty line would be taken for a command."""
        request = self._alone
        if request is None or request.said_done or (request.name == "IDLE" and self._idling):
            self.unasked(len(line))
            return
        if request.name == "IDLE":
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


class ImapClient(library.IMAP4):  # type: ignore[misc]
    """The library's client with :class:`ImapProtocol` in it.

    Mends: the connection was made in a task without an owner, by ``create_connection`` with a TLS context of its
    own; here :mod:`~mailpoller.wire.imap.connecting` makes it step by step.
    """

    protocol: ImapProtocol

    def __init__(self, host: str, port: int, stall: float) -> None:
        super().__init__(host, port, timeout=stall)

    def create_client(self, host: str, port: int, loop: Any, conn_lost_cb: Any = None, ssl_context: Any = None) -> None:
        self.protocol = ImapProtocol(loop or asyncio.get_running_loop(), self.timeout)
