"""A connection and its commands: sent in turn, as soon as those before allow it, and failed together when it is lost.

Commands are pipelined: any number may be under way. Whose an answer is, :mod:`~mailpoller.wire.imap.protocol`
finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Protocol

from aioimaplib import aioimaplib as library

from mailpoller.core.errors import MailpollerError, SessionLost, TransientError
from mailpoller.core.spool import Intake
from mailpoller.wire.dial import keep_alive
from mailpoller.wire.imap.command import Answer, Request
from mailpoller.wire.imap.reader import ProtocolViolation, Response, ResponseReader
from mailpoller.wire.imap.responses import Fetched, Status
from mailpoller.wire.imap.selected import SelectedFolder
from mailpoller.wire.pace import REST, Pace
from mailpoller.wire.redaction import spoken
from mailpoller.wire.turnstile import Turnstile
from mailpoller.wire.unasked import Allowance

# Its DEBUG lines hold passwords and every octet received.
library.log.setLevel(logging.INFO)

PATIENCE = 10
"""A command must be over after this many stall times, however lively the server is. What is read at the pace of
:data:`~mailpoller.wire.pace.LEAST` for a FETCH or a SEARCH takes none of that time."""
PATIENCE_FETCH = 60
"""The same for FETCH, whose answer may be many messages."""
_OTHER_FOLDER = Status("NO", "CLOSED", b"", "another folder was opened meanwhile")


class BodyTaker(Protocol):
    """Who awaits the bodies of messages."""

    def intake(self, line: bytes, size: int) -> Intake | None:
        """Where a literal goes that follows ``line``; None if it is no awaited body."""

    def awaits(self, uid: str, size: int) -> bool:
        """A body of ``size`` octets is awaited of ``uid``, and none of it will have to be dropped."""

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


class Connection(library.IMAP4ClientProtocol):  # type: ignore[misc]
    """One connection. Lives until :attr:`lost` is set; then every pending and every later command raises SessionLost.

    ``stall`` (seconds): with a command under way and no octet for this long, the connection is given up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stall: float) -> None:
        super().__init__(loop)
        self.stall = stall
        self.capabilities: set[str] = set()
        self.mailbox = SelectedFolder()
        self.bodies: BodyTaker | None = None
        self.lost: str | None = None
        self.hidden: Sequence[str] = ()
        """Secrets that went over the wire: masked wherever the server's words are quoted, as long as the connection
        lasts."""
        self.greeting: asyncio.Future[Status] = loop.create_future()
        self.changed = asyncio.Event()
        """Set at every hint of news, when a command ends, and when the connection is lost; whoever waits clears it."""
        self._reader = ResponseReader(self._respond, self._place, self._message)
        self._late = b""  # what has come and waits for its turn; nothing more is read meanwhile
        self._allowance = Allowance(loop.time())
        self._queue: deque[Request] = deque()
        self._sent: dict[bytes, Request] = {}
        self._alone: Request | None = None
        self._idling = False
        self._upgrading = False
        self._pause: timedelta | None = None
        self._progress_at = 0.0
        self._unsent = 0
        self.pace = Pace(loop.time())
        self.turnstile = Turnstile(loop, self._send)
        self._watch: asyncio.TimerHandle | None = None

    # --- the connection --------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """With TCP keepalive."""
        super().connection_made(transport)
        keep_alive(transport)

    def data_received(self, d: bytes) -> None:
        """Mends: one recursion per line, work quadratic in the lines of an answer, no bound on lines and literals, and
        the ``repr`` of every octet received, made whether or not anybody logs."""
        if self.lost is not None:
            return
        self._progress_at = self.loop.time()
        self.pace.octets += len(d)
        if self._late:
            self._late += d
        else:
            self._take(d)

    def _take(self, data: bytes) -> None:
        with suppress(SessionLost), self.reading():
            taken = self._reader.feed(data)
            if self._upgrading and (taken < len(data) or not self._reader.clean):
                raise ProtocolViolation("data in clear after STARTTLS")
            if taken < len(data) and self.lost is None:
                self._late = data[taken:]
                self.transport.pause_reading()
                self.loop.call_later(REST, self._go_on)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """For whoever reads what the server said. The one place where whatever a reader raises ends the connection:
        as :class:`SessionLost`, with the kind of fault named."""
        try:
            yield
        except MailpollerError:
            raise
        except ProtocolViolation as violation:
            raise self._given_up(str(violation)) from None
        except Exception as error:  # not its words: they may quote anybody's mail
            raise self._given_up(f"what it says cannot be read ({type(error).__name__})") from error

    def _go_on(self) -> None:
        """Whoever else waited has had his turn."""
        late, self._late = self._late, b""
        if late and self.lost is None:
            self._take(late)
            if not self._late and self.lost is None and not self._upgrading:
                self.transport.resume_reading()

    def _given_up(self, reason: str) -> SessionLost:
        if self.bodies is not None and (cut := self._reader.unfinished()) is not None:
            self.bodies.cut_off(cut, "the server's answer has no end")
        self.lose(f"the server broke the protocol: {reason}")
        return self.loss()

    def unasked(self, octets: int) -> None:
        """So many octets came that nobody asked for. Raises :class:`ProtocolViolation` if it were too many."""
        if not self._allowance.spend(octets, self._progress_at):
            raise ProtocolViolation("it says too much that nobody asked for")

    def logged_in(self) -> None:
        """It is our server: what it says may be longer, and more."""
        self.state = library.AUTH
        self._reader.early = False
        self._allowance.widen()

    def connection_lost(self, exc: Exception | None) -> None:
        """Mends: nobody was told; a command waited for its time-out, IDLE for 29 minutes."""
        while self._late and self.lost is None:  # its last words
            self._go_on()
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
        self._late = b""
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
        within: SelectedFolder | None = None,
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
        ``replies`` are sent one by one when the server asks to go on; with ``converse`` the caller answers each
        challenge himself. ``on_done`` is called at the tagged answer, not when
        the connection is lost. Raises :class:`SessionLost`; :class:`TransientError` where the command table forbids
        the command.
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
        if within is not None:
            request.belong(within)
        self._queue.append(request)
        self._send()
        return request

    async def run(self, name: str, *arguments: str, **options: Any) -> Answer:
        """:meth:`submit` and wait for the answer."""
        return await self.submit(name, *arguments, **options).answer()

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
            if request.within is not None and request.within is not self.mailbox:
                self._queue.popleft()
                self.loop.call_soon(request.end, _OTHER_FOLDER)
                continue
            if request.name != "LOGOUT" and not self.turnstile.opens():
                return
            self._queue.popleft()
            self._sent[request.tag.encode()] = request
            if request.alone:
                self._alone = request
                if request.name in ("SELECT", "EXAMINE"):
                    self.mailbox = SelectedFolder()  # whatever comes from here on is about the new folder
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
        before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if 0 < self._unsent < before:  # a large message on its way to the server, over a thin line
            self._progress_at = now
            for one in waiting:
                one.expires_at += self.stall
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
        self.mailbox = SelectedFolder()
        transport: asyncio.Transport = self.transport
        return transport

    def end_tls(self, transport: asyncio.Transport) -> None:
        """TLS is up; from now on everything goes through ``transport``."""
        self.transport = transport
        self._upgrading = False

    # --- what has come ---------------------------------------------------------------------------------------
    def _place(self, line: bytes, size: int) -> Intake | None:
        return None if self.bodies is None else self.bodies.intake(line, size)

    def _message(self, uid: bytes, flags: bytes, date: bytes, octets: bytes) -> bool:
        raise NotImplementedError

    def _respond(self, response: Response) -> None:
        raise NotImplementedError
