"""The beginning of a message that is larger than the limit: by TOP, so that the connection need not be cut."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from mailpoller.core.errors import SessionLost
from mailpoller.core.message import Claim, RawMessage
from mailpoller.core.spool import Octets, Spool
from mailpoller.remote.standins import stand_in
from mailpoller.sources.pop3.download import SLACK, Body, Download
from mailpoller.sources.pop3.maildrop import Maildrop
from mailpoller.sources.pop3.protocol import PATIENCE_BODY, Reply, Request

BASE64_LINE = 78
"""Octets of a full line of base64 with its end: what most of a large message is made of."""
TRIES = 3


class Excerpt:
    """One message of more than ``limit`` octets on its way, up to the limit; the same to its user as :class:`Download`.

    TOP counts lines, so their number is guessed, first from what a line of base64 holds, then from what the lines of
    this message hold. What comes beyond the limit is dropped. Where TOP is no good, RETR has to do, and the
    connection is cut at the limit.
    """

    def __init__(self, maildrop: Maildrop, claim: Claim, spool: Spool, limit: int) -> None:
        contents = maildrop.contents
        assert contents is not None
        self.refused: dict[str, Reply] = {}
        self.failed: dict[str, str] = {}
        self.stale = False
        """Nothing was done: the connection has to be cut for it, and what it has marked must be deleted before."""
        self._maildrop = maildrop
        self._claim = claim
        self._spool = spool
        self._limit = limit
        self._number = contents.numbers[claim.ref.uid]
        self._announced = contents.sizes.get(self._number)
        self.broken = ""
        self.overlong = ""
        self._abandoned = False

    async def answers(self) -> AsyncGenerator[RawMessage, None]:
        """The message, unless it was refused or failed or the connection is lost."""
        try:
            raw = await self._by_top()
        except BaseException:
            self._abandoned = True
            raise
        if raw is not None:
            yield raw
        elif not self.failed and self._maildrop.marked:
            self.stale = True
        elif not self.failed:
            whole = Download(self._maildrop, [self._claim], self._spool, self._limit)
            self.refused, self.failed = whole.refused, whole.failed
            async with aclosing(whole.answers()) as answers:
                async for answer in answers:
                    yield answer
            self.broken = whole.broken

    async def _by_top(self) -> RawMessage | None:
        capabilities = self._maildrop.protocol.capabilities
        if capabilities and "TOP" not in capabilities:
            return None
        lines, before = self._limit // BASE64_LINE + 1, -1
        for _ in range(TRIES):
            body = await self._top(lines)
            if body is None or body.octets is None:
                return None
            octets = body.octets
            if self.broken:
                return RawMessage(self._claim, octets, body.overlong, self._announced, doubt=self.broken)
            whole = octets.size == before  # more lines, and no more octets: it is smaller than was announced
            if body.overlong or whole:
                doubt = "" if body.overlong else stand_in(octets, self._announced)
                return RawMessage(self._claim, octets, body.overlong, self._announced, doubt=doubt)
            before, lines = octets.size, max(lines + 1, _lines_for(self._limit, octets, lines))
            octets.close()
        return None

    async def _top(self, lines: int) -> Body | None:
        """What TOP gives, and whether its end is one (:attr:`broken`); None if the server refuses."""
        protocol = self._maildrop.protocol
        body = Body(self._spool, self._limit, self._limit + SLACK, self._take)
        request = protocol.submit("TOP", str(self._number), str(lines), taker=body, patience=PATIENCE_BODY)
        proof = protocol.submit("STAT")
        protocol.send()
        try:
            reply = await request.answer(protocol)
        except SessionLost:
            if not protocol.cut:
                raise
        else:
            if not reply.ok:
                body.abort()
                return None
            await self._check(proof)
        if body.failure:
            self.failed[self._claim.ref.uid] = body.failure
        return body

    async def _check(self, proof: Request) -> None:
        protocol = self._maildrop.protocol
        try:
            if self._maildrop.proven(await proof.answer(protocol)):
                return
        except SessionLost:
            if not protocol.broken:
                raise
        protocol.lose("the server broke the protocol: its answers are not those to our questions")
        self.broken = f"its end was none: {protocol.lost}"

    def _take(self, body: Body) -> None:
        if self._abandoned and body.octets is not None:
            body.octets.close()


def _lines_for(limit: int, octets: Octets, lines: int) -> int:
    """How many lines of the body it takes to reach the limit, if those to come are like the first ``lines``."""
    head = octets.head(1 << 16).find(b"\r\n\r\n") + 4
    per_line = max(2.0, (octets.size - head) / lines)
    return int((limit - head) / per_line) + 2
