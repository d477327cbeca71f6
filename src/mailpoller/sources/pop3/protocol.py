"""The connection: commands out, answers in, any number under way (RFC 2449 section 6.6), and a watch on silence."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.record import record
from mailpoller.sources.pop3.reader import AnswerReader, Collected, Enough, ProtocolViolation, Taker
from mailpoller.wire.dial import keep_alive
from mailpoller.wire.pace import Pace
from mailpoller.wire.redaction import spoken
from mailpoller.wire.turnstile import Turnstile

MAX_CAPABILITIES = 64 << 10
_AT_ONCE = 64 << 10
"""Octets that are read, and dealt with, in one go: some milliseconds of a listing."""
PATIENCE = 10
"""An answer must be over after this many stall times, however lively the server is. What is read of a body at the
pace of :data:`~mailpoller.wire.pace.LEAST` takes none of that time."""
PATIENCE_BODY = 60
"""The same for a message, which may be many megabytes over a thin line."""

_CODE = re.compile(r"\[([A-Za-z0-9/_.-]{1,40})[^\]]{0,80}\]")


@record
class Reply:
    """A status line. ``code`` is its response code in capitals (RFC 2449 section 8, RFC 3206), or nothing."""

    ok: bool
    code: str
    text: str

    @classmethod
    def read(cls, line: bytes) -> Reply | None:
        """The reply that ``line`` is, or None if it is none."""
        if line[:3].upper() == b"+OK" and line[3:4] in (b"", b" ", b"\t"):
            ok, rest = True, line[3:]
        elif line[:4].upper() == b"-ERR" and line[4:5] in (b"", b" ", b"\t"):
            ok, rest = False, line[4:]
        else:
            return None
        text = rest.decode("utf-8", "replace").strip()
        found = _CODE.match(text) if text[:1] == "[" else None
        return cls(ok, found[1].upper() if found else "", text)

    def __str__(self) -> str:
        return spoken(self.text) or ("+OK" if self.ok else "-ERR, without a reason")


class Request:
    """A command on its way. ``taker`` takes the body of its answer, if that has one; ``reply`` is set at the end.

    ``challenges`` brings what the server asks in between (``+ ``, RFC 5034), then None; without it a challenge is a
    violation.
    """

    __slots__ = ("_waiter", "challenges", "command", "line", "on_done", "patience", "reply", "taker")

    def __init__(
        self,
        command: str,
        line: bytes,
        *,
        taker: Taker | None = None,
        patience: int = PATIENCE,
        on_done: Callable[[Reply], None] | None = None,
    ) -> None:
        self.command = command
        self.line = line
        self.taker = taker
        self.patience = patience
        self.on_done = on_done
        self.challenges: asyncio.Queue[bytes | None] | None = None
        self.reply: Reply | None = None
        self._waiter: asyncio.Future[Reply] | None = None

    def __repr__(self) -> str:
        return f"<{self.command}>"

    def end(self, reply: Reply) -> None:
        """The answer is complete."""
        self.reply = reply
        if self.challenges is not None:
            self.challenges.put_nowait(None)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(reply)
        if self.on_done is not None:
            self.on_done(reply)

    def fail(self, reason: str) -> None:
        """It will never come."""
        if self.taker is not None:
            self.taker.abort()
        if self.challenges is not None:
            self.challenges.put_nowait(None)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(SessionLost(reason))
            self._waiter.exception()  # seen: whoever waits for it gets it, and nobody need wait

    async def answer(self, protocol: Pop3Protocol) -> Reply:
        """Wait for the end. Raises :class:`SessionLost`."""
        if self.reply is not None:
            return self.reply
        if protocol.lost is not None:
            raise SessionLost(protocol.lost)
        if self._waiter is None:
            self._waiter = protocol.loop.create_future()
        return await asyncio.shield(self._waiter)


class Pop3Protocol(asyncio.Protocol):
    """One connection. Lives until :attr:`lost` is set; then every pending and every later command raises SessionLost.

    ``stall`` (seconds): with a command under way and no octet for this long, the connection is given up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stall: float) -> None:
        self.loop = loop
        self.stall = stall
        self.transport: asyncio.Transport | None = None
        self.capabilities: dict[str, tuple[str, ...]] = {}
        """Name -> arguments, both in capitals (RFC 2449 section 5)."""
        self.lost: str | None = None
        self.hidden: Sequence[str] = ()
        """Secrets on the wire, while we log in: masked wherever the server's words are quoted."""
        self.cut = False
        """True if it was we who ended the connection, in the middle of an answer of which we had enough."""
        self.broken = False
        """True if what the server sent made no sense: nothing that came after the last proper answer is believed, and
        that answer's own end is not."""
        self.hung_up = False
        """True if the server closed the connection in an orderly way."""
        self.on_lost: Callable[[], None] | None = None
        self.greeting = Request("the greeting", b"")
        self._reader = AnswerReader(self)
        self._queue: deque[Request] = deque()
        self._sent: deque[Request] = deque([self.greeting])
        self._current: Request | None = None
        self._reply: Reply | None = None
        self._upgrading = False
        self._progress_at = self._head_at = loop.time()
        self.pace = Pace(loop.time())
        self._watch: asyncio.TimerHandle | None = None
        self.turnstile = Turnstile(loop, self.send)

    # --- the connection --------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """With TCP keepalive."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if hasattr(transport, "max_size"):  # asyncio's, for a plain connection
            transport.max_size = _AT_ONCE
        keep_alive(transport)
        self._progress_at = self._head_at = self.loop.time()
        self._keep_watch()

    def data_received(self, data: bytes) -> None:
        if self.lost is not None:
            return
        self._progress_at = self.loop.time()
        self.pace.octets += len(data)
        try:
            self._reader.feed(data)
            if self._upgrading and not self._sent and not self._reader.clean:
                raise ProtocolViolation("data in clear after STLS")
        except ProtocolViolation as violation:
            self._give_up(str(violation))
        except Enough:
            self.cut = True
            self.lose("we ended the connection in the middle of a message that is larger than the limit")
        except Exception as error:  # not its words: they may quote anybody's mail
            self._give_up(f"what it says cannot be read ({type(error).__name__})")

    def _give_up(self, reason: str) -> None:
        """The one place where whatever a reader of ours raises ends the connection."""
        self.broken = True
        self.lose(f"the server broke the protocol: {reason}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.hung_up = exc is None and self.lost is None
        reason = "the server closed it" if exc is None else getattr(exc, "strerror", None) or str(exc)
        self.lose(f"the connection was lost: {reason}")

    def lose(self, reason: str) -> None:
        """Give the connection up: every pending command fails at once, every later one too. Harmless when repeated."""
        if self.lost is not None:
            return
        self.lost = reason = spoken(reason, self.hidden) if self.hidden else reason
        if self._watch is not None:
            self._watch.cancel()
        if self.transport is not None:
            self.transport.abort()
        self._reader.close()
        pending = [*self._sent, *self._queue]
        self._sent.clear()
        self._queue.clear()
        self._current = None
        for request in pending:
            request.fail(reason)
        if self.on_lost is not None:
            self.on_lost()

    def begin_tls(self) -> asyncio.Transport:
        """The transport to put TLS on. Nothing that was said before survives: not a capability, not an octet.

        Raises :class:`SessionLost` if somebody slipped data in front of it.
        """
        if self.lost is None and not self._reader.clean:
            self.lose("the server broke the protocol: data in clear after STLS")
        if self.lost is not None or self.transport is None:
            raise SessionLost(self.lost or "there is no connection")
        self.capabilities = {}
        return self.transport

    def end_tls(self, transport: asyncio.Transport) -> None:
        """TLS is up."""
        self.transport = transport
        self._upgrading = False

    def stay_clear(self) -> None:
        """The server refused STLS: the conversation goes on as it was."""
        self._upgrading = False

    @property
    def protected(self) -> bool:
        """True if the connection is encrypted."""
        return self.transport is not None and self.transport.get_extra_info("ssl_object") is not None

    # --- commands --------------------------------------------------------------------------------------------
    def submit(
        self,
        command: str,
        *arguments: str,
        taker: Taker | None = None,
        patience: int = PATIENCE,
        on_done: Callable[[Reply], None] | None = None,
    ) -> Request:
        """Queue a command; it is sent at once if the server takes commands in advance (PIPELINING), else in its turn.

        ``taker`` says that a successful answer has a body. ``on_done`` is called at the end of the answer, not when the
        connection is lost: then the taker is aborted. Raises :class:`SessionLost`.
        """
        if self.lost is not None:
            raise SessionLost(self.lost)
        words = " ".join((command, *arguments))
        if "\r" in words or "\n" in words or "\0" in words:
            raise ValueError(f"a line end or NUL in the arguments of {command}")
        request = Request(command, words.encode() + b"\r\n", taker=taker, patience=patience, on_done=on_done)
        self._queue.append(request)
        if command == "STLS":
            self._upgrading = True
        return request

    def send(self) -> None:
        """Send what is queued, as far as the server allows; whoever submits calls it once for all."""
        if not self._queue or self.lost is not None:
            return
        assert self.transport is not None
        pipelining = "PIPELINING" in self.capabilities
        ready: list[Request] = []
        while self._queue and (pipelining or not (self._sent or ready)):
            if self._queue[0].command != "QUIT" and not self.turnstile.opens():
                break
            ready.append(self._queue.popleft())
        if not ready:
            return
        now = self.loop.time()
        if not self._sent:
            self._head_at = now
            self._progress_at = now
        self._sent.extend(ready)
        self.transport.write(b"".join([request.line for request in ready]))
        self._keep_watch()

    async def run(self, command: str, *arguments: str) -> Reply:
        """Send a command whose answer is one line, and wait for it. Raises :class:`SessionLost`."""
        request = self.submit(command, *arguments)
        self.send()
        return await request.answer(self)

    def converse(self, command: str, *arguments: str) -> Request:
        """Send a command that the server answers with challenges before its reply; each is answered by :meth:`say`."""
        request = self.submit(command, *arguments)
        request.challenges = asyncio.Queue()
        self.send()
        return request

    def say(self, words: str) -> None:
        """Answer a challenge."""
        if self.lost is None and self.transport is not None:
            self.transport.write(words.encode() + b"\r\n")

    async def gather(self, command: str, *arguments: str, limit: int) -> tuple[Reply, bytes]:
        """Send a command whose answer has a body of at most ``limit`` octets, and wait for it. Raises
        :class:`SessionLost`."""
        taker = Collected(limit)
        return await self.collect(taker, command, *arguments), taker.octets

    async def collect(self, taker: Taker, command: str, *arguments: str) -> Reply:
        """Send a command, whose answer's body ``taker`` takes, and wait for its end. Raises :class:`SessionLost`."""
        request = self.submit(command, *arguments, taker=taker, patience=PATIENCE_BODY)
        self.send()
        return await request.answer(self)

    async def capability(self) -> None:
        """Ask anew what the server can do. A server without CAPA can do nothing but RFC 1939."""
        reply, body = await self.gather("CAPA", limit=MAX_CAPABILITIES)
        self.capabilities = {}
        for line in body.decode("latin-1").upper().splitlines() if reply.ok else ():
            if words := line.split():
                self.capabilities[words[0]] = tuple(words[1:])

    @property
    def busy(self) -> int:
        """How many commands are under way or wait to be sent."""
        return len(self._sent) + len(self._queue)

    # --- answers ---------------------------------------------------------------------------------------------
    def line(self, line: bytes) -> Taker | None:
        """See :class:`~mailpoller.sources.pop3.reader.LineTaker`."""
        if not self._sent:
            raise ProtocolViolation(f"it speaks without having been asked: {self._quoted(line)}")
        request = self._sent[0]
        if request.challenges is not None and (line[:2] == b"+ " or line == b"+"):
            if not request.challenges.empty():
                raise ProtocolViolation("two challenges at once")
            request.challenges.put_nowait(line[2:])
            return None
        reply = Reply.read(line)
        if reply is None:
            raise ProtocolViolation(f"this is no answer to {request.command}: {self._quoted(line)}")
        if reply.ok and request.taker is not None:
            self._current, self._reply = request, reply
            return self
        self._end(request, reply)
        return None

    def _quoted(self, line: bytes) -> str:
        """A line that makes no sense. Once we log in it may be anything: our own words, or those of somebody's mail."""
        if self.greeting.reply is None or line.startswith((b"+OK", b"-ERR")):
            return spoken(line.decode("utf-8", "replace"), self.hidden)
        return f"{len(line)} octets"

    # The protocol stands between the reader and the taker of a body, to know when the answer is complete.
    def write(self, chunk: bytes) -> None:
        """See :class:`~mailpoller.sources.pop3.reader.Taker`."""
        assert self._current is not None and self._current.taker is not None
        self._current.taker.write(chunk)

    def finish(self) -> None:
        """See :class:`~mailpoller.sources.pop3.reader.Taker`."""
        request, self._current = self._current, None
        assert request is not None and request.taker is not None and self._reply is not None
        request.taker.finish()
        self._end(request, self._reply)

    def abort(self) -> None:
        """See :class:`~mailpoller.sources.pop3.reader.Taker`. The request itself is failed with all the others."""

    def _end(self, request: Request, reply: Reply) -> None:
        self._sent.popleft()
        self._head_at = self._progress_at
        request.end(reply)
        if self._queue:
            self.send()

    # --- silence ---------------------------------------------------------------------------------------------
    def _keep_watch(self) -> None:
        if self._watch is None and self.lost is None:
            self.pace.begin(self.loop.time())
            self._watch = self.loop.call_later(self.stall, self._look)

    def _look(self) -> None:
        self._watch = None
        if not self._sent or self.lost is not None:
            return
        now = self.loop.time()
        quiet, first = now - self._progress_at, self._sent[0]
        if (credit := self.pace.credit(now)) and first.taker is not None:
            self._head_at += credit  # a large message, or a long listing, over a thin line
        if quiet >= self.stall:
            self.lose(f"no answer to {first.command} for {self.stall:g} s")
        elif now - self._head_at > first.patience * self.stall:
            self.lose(f"no end of the answer to {first.command} in sight")
        else:
            self._watch = self.loop.call_later(max(0.01, self.stall - quiet), self._look)


def refuse_unless(reply: Reply, doing: str) -> None:
    """Raise :class:`TransientError` with the server's words if it refused."""
    if not reply.ok:
        raise TransientError(f"the server refuses {doing}: {reply}")
