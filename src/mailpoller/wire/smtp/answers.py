"""The answers that LMTP gives after DATA, one for each recipient (RFC 2033 section 4.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiosmtplib import SMTPResponse
from aiosmtplib.errors import SMTPResponseException, SMTPServerDisconnected

from mailpoller.wire.smtp.line import Line
from mailpoller.wire.smtp.terms import RelayCut

_LONGEST = 8192
"""Octets of one answer, in all its lines."""


@dataclass(slots=True)
class Collected:
    """The answers that came so far, in the order of the recipients."""

    wanted: int
    lost: asyncio.Future[SMTPResponse]
    """Fails when the connection does; nothing else comes of it meanwhile."""
    answers: list[SMTPResponse] = field(default_factory=list)
    complete: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _buffer: bytearray = field(default_factory=bytearray)
    _lines: list[bytes] = field(default_factory=list)

    def received(self, data: bytes) -> None:
        """Take what the server says. What it says after the last answer is nobody's."""
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0 and not self.complete.done():
            line = bytes(self._buffer[:end]).rstrip()
            del self._buffer[: end + 1]
            self._take(line)
        if len(self._buffer) + sum(map(len, self._lines)) > _LONGEST:
            self._fail("an answer without end")

    def _take(self, line: bytes) -> None:
        if not line[:3].isdigit() or len(line) < 3:
            self._fail("an answer that is none")
            return
        self._lines.append(line[4:])
        if line[3:4] == b"-":
            return
        text = b"\n".join(self._lines).decode("utf-8", "surrogateescape")
        self._lines.clear()
        self.answers.append(SMTPResponse(int(line[:3]), text))
        if len(self.answers) == self.wanted:
            self.complete.set_result(None)

    def _fail(self, words: str) -> None:
        if not self.complete.done():
            self.complete.set_exception(SMTPResponseException(-1, words))
            self.complete.exception()

    async def all_of_them(self) -> SMTPResponse:
        """The last answer, once all have come. Raises what broke the connection."""
        await asyncio.wait((self.complete, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if not self.complete.done():
            self.lost.result()
            raise SMTPServerDisconnected("Connection lost")
        self.complete.result()
        return self.answers[-1]


@contextmanager
def answers_to_each(line: Line, wanted: int) -> Iterator[Collected]:
    """Inside, what the server says are so many answers.

    aiosmtplib knows one answer to a command, and drops what comes in one piece with it: that would be the others.
    """
    protocol = line.client.protocol
    if protocol is None or (lost := protocol._response_waiter) is None:
        raise RelayCut(f"{line.settings.place}: connection lost")
    collected, before = Collected(wanted, lost), vars(protocol).get("data_received")
    vars(protocol)["data_received"] = collected.received
    try:
        yield collected
    finally:
        if before is None:
            del vars(protocol)["data_received"]
        else:
            vars(protocol)["data_received"] = before
