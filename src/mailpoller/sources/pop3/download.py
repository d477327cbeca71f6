"""Downloading messages: as many RETRs under way as keep the line busy, counted in octets, and never beyond the limit.

Everything here happens as the answers come in, never when the consumer asks for more: a slow consumer delays nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from mailpoller.core.message import Claim, RawMessage
from mailpoller.core.spool import Intake, Octets, Spool
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
SLACK = 64 << 10
"""Octets beyond the limit that are read and dropped, if the message was not announced as larger: cheaper than a new connection."""


class Body:
    """Takes one message, at most ``limit`` octets of it. ``most``: when these have come, the connection is cut."""

    __slots__ = ("_done", "_intake", "_limit", "_most", "_size", "failure", "octets")

    def __init__(self, spool: Spool, limit: int, most: int, done: Callable[[Body], None]) -> None:
        self.octets: Octets | None = None
        self.failure = ""
        """Why the octets could not be kept."""
        self._intake: Intake | None = spool.begin(limit)
        self._limit = limit
        self._most = most
        self._size = 0
        self._done = done

    @property
    def overlong(self) -> bool:
        """More came than the limit allows."""
        return self._size > self._limit

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._intake is not None:
            try:
                self._intake.write(chunk)
            except OSError as error:
                # Read past it, so that the connection stays usable.
                self._intake.abort()
                self._intake = None
                self.failure = f"the spool cannot be written: {error.strerror or error}"
        if self._size > self._most:
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

    ``quiet``: by TOP, if the server has it, because RETR makes some servers mark a message as read.
    """

    def __init__(
        self, maildrop: Maildrop, claims: Sequence[Claim], spool: Spool, limit: int, *, quiet: bool = False
    ) -> None:
        self.refused: dict[str, Reply] = {}
        self.failed: dict[str, str] = {}
        self.stale = False
        self._maildrop = maildrop
        self._protocol = maildrop.protocol
        self._spool = spool
        self._limit = limit
        self._left = deque(claims)
        self._quiet = quiet and "TOP" in maildrop.protocol.capabilities
        self._under_way = 0
        self._commands = 0
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
                if protocol.lost is not None or not (self._commands or self._left):
                    return
                self._event.clear()
                await self._event.wait()
        finally:
            protocol.on_lost = before
            self._abandoned = True
            self._left.clear()
            while self._arrived:
                self._arrived.popleft().octets.close()

    def _ask(self) -> None:
        """Ask for as many messages as the window allows."""
        while self._left and self._commands < COMMANDS and (self._commands < 2 or self._under_way < WINDOW):
            self._retrieve(self._left.popleft())
        self._protocol.send()

    def _retrieve(self, claim: Claim) -> None:
        uid, contents = claim.ref.uid, self._maildrop.contents
        assert contents is not None
        number = contents.numbers[uid]
        size = contents.sizes.get(number)
        large = size is not None and size > self._limit
        # Of what was announced as larger not one octet more is read than tells that it is.
        body = Body(
            self._spool, self._limit, self._limit + (0 if large else SLACK), lambda body: self._take(claim, size, body)
        )
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
        words = ("TOP", str(number), EVERYTHING) if self._quiet else ("RETR", str(number))
        self._protocol.submit(*words, taker=body, patience=PATIENCE_BODY, on_done=done)

    def _take(self, claim: Claim, announced: int | None, body: Body) -> None:
        if body.octets is None:
            self.failed[claim.ref.uid] = body.failure
        elif self._abandoned:
            body.octets.close()
        else:
            self._arrived.append(RawMessage(claim, body.octets, body.overlong, announced))
        self._event.set()
