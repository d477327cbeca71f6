"""Cuts the octets that a server sends into responses: iteratively, in linear time, and never more than the bounds.

A response is a list of pieces (RFC 3501 section 4.3): a line without its line end; or line, literal, line, literal,
…, line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from mailpoller.core.spool import Intake, Octets

MAX_LINE = 12 << 20
"""Octets of one line. A SEARCH answer with 1,000,000 uids of ten digits fits; no honest line is longer."""
MAX_LITERAL = 1 << 20
"""Octets of a literal that is not the body of a message."""
MAX_RESPONSE = 16 << 20
"""Octets of one response, all its lines and literals together, but for the body of a message."""
MAX_EARLY = 8 << 10
"""Octets of a line, a literal or a response before the login: whoever answers may not be our server yet."""
MAX_BLANK = 10_000
"""Empty lines of one connection."""
TURN = 512
"""Responses that are dealt with in one go, before whoever else waits has his turn: a page of a listing, or 4 ms."""

_MESSAGE = 4
"""As how many of these a message counts."""


class ProtocolViolation(Exception):
    """The server broke the protocol, or our bounds. The connection cannot be used any more."""


class SpoolFailure(str):
    """Stands where a literal should: it could not be written to the spool, for this reason (``OSError.strerror``)."""

    __slots__ = ()


Piece = bytes | Octets | SpoolFailure
Response = list[Piece]
_USUAL = re.compile(
    rb'\* \d{1,10} FETCH \(UID (\d{1,10}) FLAGS \(([^()\r\n]{0,500})\) INTERNALDATE "([^"\r\n]{1,40})" BODY\[\]'
    rb"(?:<0>)? \{(\d{1,10})\}\r\n"
)
"""How servers begin a message that we ask for."""


def octets_of(response: Response) -> int:
    """Octets of a response, those in the spool too."""
    return sum([len(piece) if isinstance(piece, bytes) else getattr(piece, "size", 0) for piece in response])


class _Taker(Protocol):
    def write(self, chunk: bytes) -> None: ...
    def finish(self) -> Piece: ...
    def abort(self) -> None: ...


class _Collected:
    """A literal that is held as bytes."""

    def __init__(self) -> None:
        self._octets = bytearray()

    def write(self, chunk: bytes) -> None:
        self._octets += chunk

    def finish(self) -> bytes:
        return bytes(self._octets)

    def abort(self) -> None:
        self._octets.clear()


class _Dropped:
    """A literal for which the spool has no room: read past it, so that the connection stays usable."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def write(self, chunk: bytes) -> None:
        pass

    def finish(self) -> SpoolFailure:
        return SpoolFailure(self._reason)

    def abort(self) -> None:
        pass


class ResponseReader:
    """Feed it what arrives; it calls ``deliver(response)`` for each whole response, in order.

    ``early``: until this is set to False, which the login does, nothing is longer than :data:`MAX_EARLY`.

    ``intake(line, size)`` is asked at every literal: an :class:`Intake` streams the literal away (it then appears
    as :class:`Octets`), None collects it as bytes. It raises :class:`ProtocolViolation` to refuse it.
    ``message(uid, flags, date, octets)`` is offered, in place of a response, a message in the shape that servers give
    to our own FETCH, if all of it is there; False: it goes the long way, which costs twice as much. Mends what
    aioimaplib does here: recursion per line, no bound on line or literal, ``{5}`` at the end of any line taken for a
    literal, ``* `` removed inside data.
    """

    __slots__ = (
        "_blank", "_deliver", "_held", "_intake", "_message", "_missing", "_pieces", "_tail", "_taker", "early"
    )  # fmt: skip

    def __init__(
        self,
        deliver: Callable[[Response], None],
        intake: Callable[[bytes, int], Intake | None],
        message: Callable[[bytes, bytes, bytes, bytes], bool] = lambda uid, flags, date, octets: False,
    ) -> None:
        self.early = True
        self._blank = 0
        self._deliver = deliver
        self._intake = intake
        self._message = message
        self._tail = bytearray()  # of a line that has not ended
        self._held = 0  # octets of the pieces, but for a body
        self._pieces: Response = []  # of a response that has not ended
        self._taker: _Taker | None = None  # of a literal that has not ended
        self._missing = 0

    @property
    def clean(self) -> bool:
        """True between two responses, when nothing is buffered."""
        return not (self._tail or self._pieces)

    def feed(self, data: bytes) -> int:
        """Take what has arrived, and return how much of it: after :data:`TURN` responses the rest is to be fed later.
        Raises :class:`ProtocolViolation`; then nothing more may be fed."""
        position, end, left = 0, len(data), TURN
        while position < end:
            if self._taker is not None:
                position = self._continue_literal(data, position)
                continue
            if not self._pieces and not self._tail and (found := _USUAL.match(data, position)) is not None:
                uid, flags, date, size = found.groups()
                stop = found.end() + int(size)
                if data.startswith(b")\r\n", stop) and self._message(uid, flags, date, data[found.end() : stop]):
                    position = stop + 3
                    left -= _MESSAGE
                    if left <= 0:
                        return position
                    continue
            newline = data.find(b"\n", position)
            if newline < 0:
                self._tail += data[position:] if position else data
                self._bound(len(self._tail))
                break
            if self._tail:
                self._tail += data[position : newline + 1]
                with memoryview(self._tail) as tail:  # one copy of a long line, not two
                    line = bytes(tail[: -2 if self._tail.endswith(b"\r\n") else -1])
                self._tail.clear()
            else:
                line = data[position : newline - 1 if newline > position and data[newline - 1] == 13 else newline]
            position = newline + 1
            if len(line) > MAX_EARLY:
                self._bound(len(line))
            if line.endswith(b"}") and (size := literal_size(line, continued=bool(self._pieces))) is not None:
                position = self._begin_literal(line, size, data, position)
                continue
            if self._pieces:
                response, self._pieces = self._pieces, []
                response.append(line)
                self._deliver(response)
            elif line:
                self._deliver([line])
            else:
                self._blank += 1
                if self._blank > MAX_BLANK:
                    raise ProtocolViolation(f"more than {MAX_BLANK} empty lines")
            left -= 1
            if left <= 0:
                return position
        return end

    def _bound(self, size: int) -> None:
        most = MAX_EARLY if self.early else MAX_LINE
        if size > most:
            raise ProtocolViolation(f"a line is longer than {most} octets{' before the login' * self.early}")

    def unfinished(self) -> Response | None:
        """The beginning of a response that will never end, if it has the whole body of a message: its first line and
        that body."""
        if len(self._pieces) < 2 or not isinstance(self._pieces[1], Octets):
            return None
        pieces, self._pieces = self._pieces, []
        return pieces[:2]

    def close(self) -> None:
        """Drop what is buffered; spool files are removed."""
        if self._taker is not None:
            self._taker.abort()
            self._taker = None
        for piece in self._pieces:
            if isinstance(piece, Octets):
                piece.close()
        self._pieces = []
        self._tail.clear()

    def _begin_literal(self, line: bytes, size: int, data: bytes, position: int) -> int:
        if not self._pieces:
            self._held = 0
        self._pieces.append(line)
        intake = self._intake(line, size)
        if intake is None:
            if size > MAX_LITERAL:
                raise ProtocolViolation(f"a literal of {size} octets where none that large was asked for")
            self._held += size
        elif any(isinstance(piece, Octets) for piece in self._pieces):
            raise ProtocolViolation("two bodies in one response")
        self._held += len(line) + 100  # what an empty piece costs
        if self._held > (most := MAX_EARLY if self.early else MAX_RESPONSE):
            raise ProtocolViolation(f"a response is longer than {most} octets")
        stop = position + size
        if stop <= len(data):
            # The usual case: all of it is here already, and one slice is all the copying there is.
            octets = data[position:stop]
            if intake is not None:
                self._pieces.append(Octets.of(octets if size <= intake.limit else octets[: intake.limit]))
            else:
                self._pieces.append(octets)
            return stop
        self._taker = _Collected() if intake is None else intake
        self._missing = size
        return position

    def _continue_literal(self, data: bytes, position: int) -> int:
        taker = self._taker
        assert taker is not None
        stop = min(position + self._missing, len(data))
        chunk = data[position:stop]
        self._missing -= len(chunk)
        try:
            taker.write(chunk)
        except OSError as error:
            taker.abort()
            self._taker = taker = _Dropped(error.strerror or str(error))
        if not self._missing:
            self._taker = None
            self._pieces.append(taker.finish())
        return stop


def literal_size(line: bytes, *, continued: bool) -> int | None:
    """The size that a line which ends in ``}`` announces, or None if that is only text.

    Text: tagged answers, continuations and status responses (their words are free), and what stands in quotes.
    """
    brace = line.rfind(b"{")
    digits = line[brace + 1 : -1]
    if brace < 0 or not digits.isdigit() or len(digits) > 19:
        return None
    if not continued and not line.startswith(b"* "):
        return None
    if not continued and line[2:5].upper() in (b"OK ", b"NO ", b"BAD", b"BYE", b"PRE"):
        return None
    if b'"' in line and _inside_quotes(line, brace):
        return None
    return int(digits)


_CLOSED = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""What stands outside quotes, and in quotes that end. A backslash means something in quotes alone."""


def _inside_quotes(line: bytes, at: int) -> bool:
    if b"\\" not in line:
        return line.count(b'"', 0, at) % 2 == 1
    closed = _CLOSED.match(line, 0, at)
    return closed is None or closed.end() < at
