"""Downloading messages: as many RETRs under way as keep the line busy, counted in octets, and never beyond the limit.

Everything here happens as the answers come in, never when the consumer asks for more: a slow consumer delays nobody.

A message is handed on once its end is known to be one. If it has the size that was announced, an answer that follows
will do. If not (some servers estimate, or count line ends otherwise), it waits with all that follow it until STAT has
been answered as it must be: a body that was cut short, or had no end, shifts every answer behind it, and then that
one is missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

from mailpoller.core.message import Claim, RawMessage
from mailpoller.core.spool import Intake, Octets, Spool
from mailpoller.remote.standins import stand_in
from mailpoller.sources.pop3.maildrop import Maildrop
from mailpoller.sources.pop3.protocol import PATIENCE_BODY, Reply
from mailpoller.sources.pop3.reader import Enough

WINDOW = 8 << 20
"""Octets asked for and not yet received, at most (one message may exceed it)."""
COMMANDS = 400
"""RETRs under way, at most."""
UNKNOWN_SIZE = 100_000
"""What a message without a size counts, in octets."""
EVERYTHING = "99999999"
"""Lines that TOP is asked for when it stands for RETR; no message has more."""
PROOF_COMMANDS = 50
PROOF_OCTETS = 1 << 20
"""After so many messages, or octets, the server is asked something whose answer is known."""
SLACK = 64 << 10
"""Octets beyond the limit that are read and dropped, if the message was not announced as larger: cheaper than a new
connection."""


SPOILT = "the spool cannot be written"
"""How a reason begins that is our own disk's."""


class Body:
    """Takes one message, at most ``limit`` octets of it. ``most``: when these have come, the connection is cut.
    ``begun`` is told that the first octets are there, ``done`` that the last ones are."""

    __slots__ = ("_begun", "_done", "_intake", "_limit", "_most", "failure", "octets", "size")

    def __init__(
        self,
        spool: Spool,
        limit: int,
        most: int,
        done: Callable[[Body], None],
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        self.octets: Octets | None = None
        self.failure = ""
        """Why the octets could not be kept."""
        self.size = 0
        """Octets that came, also those beyond the limit."""
        self._intake: Intake | None = spool.begin(limit)
        self._limit = limit
        self._most = most
        self._begun = begun
        self._done = done

    @property
    def overlong(self) -> bool:
        """More came than the limit allows."""
        return self.size > self._limit

    def write(self, chunk: bytes) -> None:
        if not self.size:
            self._begun()
        self.size += len(chunk)
        if self._intake is not None:
            try:
                self._intake.write(chunk)
            except OSError as error:
                # Read past it, so that the connection stays usable.
                self._intake.abort()
                self._intake = None
                self.failure = f"{SPOILT}: {error.strerror or error}"
        if self.size > self._most:
            self.finish()
            raise Enough

    def finish(self) -> None:
        if self._intake is not None:
            self.octets = self._intake.finish()
            self._intake = None
        self._done(self)

    def abort(self) -> None:
        if self._intake is not None:
            self._intake.abort()
            self._intake = None


class Download:
    """Some messages of one maildrop on their way. ``refused``: uid -> the server's word about those it does not give;
    ``failed``: uid -> why a message could not be kept.

    ``quiet``: by TOP, if the server has it, because RETR makes some servers mark a message as read. ``broken``: why
    the server's answers are not believed any more; one of the messages was given with a doubt then, and the
    connection must be given up. ``overlong``: the uid of the message that the connection was cut for, if that is not
    answered.
    """

    def __init__(
        self, maildrop: Maildrop, claims: Sequence[Claim], spool: Spool, limit: int, *, quiet: bool = False
    ) -> None:
        self.refused: dict[str, Reply] = {}
        self.failed: dict[str, str] = {}
        self.stale = False
        self.broken = ""
        self.overlong = ""
        self._maildrop = maildrop
        self._protocol = maildrop.protocol
        self._spool = spool
        self._limit = limit
        self._left = deque(claims)
        self._quiet = quiet and "TOP" in maildrop.protocol.capabilities
        self._under_way = 0
        self._commands = 0
        self._proofs = 0
        self._unproven = self._unproven_octets = 0
        self._held: deque[RawMessage] = deque()
        """What has come, and whose end is not known to be one."""
        self._arrived: deque[RawMessage] = deque()
        self._event = asyncio.Event()
        self._abandoned = False

    async def answers(self) -> AsyncGenerator[RawMessage, None]:
        """Each message as it comes. Ends when all have come, or were refused, or the connection is lost."""
        protocol = self._protocol
        before, protocol.on_lost = protocol.on_lost, self._event.set
        try:
            self._ask()
            while True:
                while self._arrived:
                    yield self._arrived.popleft()
                if protocol.lost is not None and self._held:
                    self._conclude()
                    continue
                if protocol.lost is not None or not (self._commands or self._proofs or self._left):
                    return
                self._event.clear()
                await self._event.wait()
        finally:
            protocol.on_lost = before
            self._abandoned = True
            self._left.clear()
            for waiting in (self._held, self._arrived):
                while waiting:
                    waiting.popleft().octets.close()

    def _ask(self) -> None:
        """Ask for as many messages as the window allows."""
        while self._left and self._commands < COMMANDS and (self._commands < 2 or self._under_way < WINDOW):
            self._retrieve(self._left.popleft())
            if self._unproven >= PROOF_COMMANDS or self._unproven_octets >= PROOF_OCTETS:
                self._prove()
        if self._unproven and not self._left:
            self._prove()
        self._protocol.send()

    def _retrieve(self, claim: Claim) -> None:
        uid, contents = claim.ref.uid, self._maildrop.contents
        assert contents is not None
        number = contents.numbers[uid]
        size = contents.sizes.get(number)
        large = size is not None and size > self._limit
        # Of what was announced as larger not one octet more is read than tells that it is.
        most = self._limit + (0 if large else SLACK)
        body = Body(self._spool, self._limit, most, lambda body: self._take(claim, size, body), self._release)
        expected = min(UNKNOWN_SIZE if size is None else size, self._limit)

        def done(reply: Reply) -> None:
            self._under_way -= expected
            self._commands -= 1
            if not reply.ok:
                body.abort()
                self.refused[uid] = reply
            if not self._abandoned and self._protocol.lost is None:
                self._ask()
            self._event.set()

        self._under_way += expected
        self._commands += 1
        self._unproven += 1
        self._unproven_octets += expected
        words = ("TOP", str(number), EVERYTHING) if self._quiet else ("RETR", str(number))
        self._protocol.submit(*words, taker=body, patience=PATIENCE_BODY, on_done=done)

    def _take(self, claim: Claim, announced: int | None, body: Body) -> None:
        if not body.size:
            self._release()  # else it was told when the first octets came
        if body.octets is None:
            self.failed[claim.ref.uid] = body.failure
        elif self._abandoned:
            body.octets.close()
        else:
            doubt = "" if body.overlong or body.size == announced else stand_in(body.octets, announced)
            self._held.append(RawMessage(claim, body.octets, body.overlong, announced, doubt=doubt))
        self._event.set()

    # --- what is believed ------------------------------------------------------------------------------------
    def _prove(self) -> None:
        self._proofs += 1
        self._unproven = self._unproven_octets = 0
        self._maildrop.prove(self._proven)

    def _proven(self, proven: bool) -> None:
        if self._protocol.lost is not None:
            return
        self._proofs -= 1
        if proven:
            self._arrived.extend(self._held)
            self._held.clear()
        else:
            self._protocol.broken = True
            self._protocol.lose("the server broke the protocol: its answers are not those to our questions")
        self._event.set()

    def _release(self) -> None:
        """An answer follows what has come: that is enough for what is as large as was announced, and has nothing
        before it that is not."""
        held = self._held
        while held:
            first = held[0]
            if first.octets.size != first.announced:
                return
            self._arrived.append(held.popleft())
            self._event.set()

    def _conclude(self) -> None:
        """The connection is lost, and the end of these is not known to be one."""
        protocol, held = self._protocol, self._held
        if protocol.broken:
            # What came with another size than was announced is where the answers went wrong, or else what came last.
            odd = next((raw for raw in held if raw.octets.size != raw.announced), held[-1])
            held.remove(odd)
            self.broken = protocol.lost or ""
            self._arrived.append(replace(odd, doubt=odd.doubt or f"its end was none: {self.broken}"))
        elif protocol.cut and held[-1].truncated:
            self.overlong = held[-1].claim.ref.uid
            if held[0].truncated:
                self._arrived.append(held.popleft())  # all before it is proven, and of it the end is not wanted
        while held:
            held.popleft().octets.close()
