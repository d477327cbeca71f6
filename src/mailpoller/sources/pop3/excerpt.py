"""The beginning of a message that is larger than the limit, by TOP, so that the connection need not be cut."""

from __future__ import annotations

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, RawMessage
from mailpoller.core.spool import Octets, Spool
from mailpoller.sources.pop3.download import SLACK, Body
from mailpoller.sources.pop3.maildrop import Maildrop
from mailpoller.sources.pop3.protocol import PATIENCE_BODY

BASE64_LINE = 78
"""Octets of a full line of base64 with its end: what most of a large message is made of."""
TRIES = 3


async def beginning(maildrop: Maildrop, claim: Claim, spool: Spool, limit: int) -> RawMessage | None:
    """The first ``limit`` octets; None if TOP does not give them, and RETR has to.

    TOP counts lines, so their number is guessed from what a line of base64 holds, and then from what the lines of this message
    hold. What comes beyond the limit is dropped; with more than some kilobytes of it the connection is cut.
    """
    contents = maildrop.contents
    assert contents is not None
    if maildrop.protocol.capabilities and "TOP" not in maildrop.protocol.capabilities:
        return None
    number = contents.numbers[claim.ref.uid]
    announced = contents.sizes.get(number)
    lines, before = limit // BASE64_LINE + 1, -1
    for _ in range(TRIES):
        octets, overlong = await _top(maildrop, number, lines, spool, limit)
        if octets is None:
            return None
        whole = octets.size == before  # more lines, and no more octets: it is smaller than was announced
        if overlong or whole:
            return RawMessage(claim, octets, overlong, announced)
        before, lines = octets.size, max(lines + 1, _lines_for(limit, octets, lines))
        octets.close()
    return None


async def _top(maildrop: Maildrop, number: int, lines: int, spool: Spool, limit: int) -> tuple[Octets | None, bool]:
    """What TOP gives, cut at the limit, and whether there was more; None if the server refuses.

    Raises :class:`TransientError` if the spool cannot be written.
    """
    protocol = maildrop.protocol
    wanted = True

    def done(body: Body) -> None:
        if not wanted and body.octets is not None:
            body.octets.close()

    body = Body(spool, limit, limit + SLACK, done)
    request = protocol.submit("TOP", str(number), str(lines), taker=body, patience=PATIENCE_BODY)
    protocol.send()
    try:
        reply = await request.answer(protocol)
    except SessionLost:
        if not protocol.cut:
            raise
    except BaseException:
        wanted = False
        raise
    else:
        if not reply.ok:
            body.abort()
            return None, False
    if body.failure:
        raise TransientError(body.failure)
    return body.octets, body.overlong


def _lines_for(limit: int, octets: Octets, lines: int) -> int:
    """How many lines of the body it takes to reach the limit, if those to come are like the first ``lines``."""
    head = bytes(octets.head(1 << 16)).find(b"\r\n\r\n") + 4
    per_line = max(2.0, (octets.size - head) / lines)
    return int((limit - head) / per_line) + 2
