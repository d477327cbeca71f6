"""Cuts the octets that a POP3 server sends into lines and multi-line answers: iteratively, in linear time, within
bounds."""

from __future__ import annotations

from typing import Protocol

MAX_LINE = 8192
"""Octets of a status line. RFC 2449 section 4 allows 512."""

_END = b"\r\n.\r\n"
_HELD = len(_END) - 1
"""Octets at the end of what has come that may be the beginning of the end."""


class ProtocolViolation(Exception):
    """The server broke the protocol, or our bounds. The connection cannot be used any more."""


class Enough(Exception):
    """Raised by a :class:`Taker`: of this answer nothing more is wanted. The connection is cut, for POP3 has no other
    way."""


class Taker(Protocol):
    """Takes the body of one multi-line answer as it comes, dot-unstuffed. May raise :class:`ProtocolViolation` or
    :class:`Enough`."""

    def write(self, chunk: bytes) -> None:
        """The next octets."""

    def finish(self) -> None:
        """The body is whole. Every line of it, also the last one, ends with CRLF."""

    def abort(self) -> None:
        """The rest will never come."""


class LineTaker(Protocol):
    """Takes status lines and says what follows."""

    def line(self, line: bytes) -> Taker | None:
        """A line without its line end. Whoever takes the body that follows it, or None if another line does."""


class AnswerReader:
    """Feed it what arrives; it brings each line and each body to its taker, in order.

    A body ends with CRLF, dot, CRLF and nothing else: a lone LF around a dot is data (RFC 1939 section 3), else a
    mail could end its own download and speak for the server. The first dot of any line is stuffing and taken away.
    """

    __slots__ = ("_body", "_held", "_lines")

    def __init__(self, lines: LineTaker) -> None:
        self._lines = lines
        self._body: Taker | None = None
        self._held = b""
        """What is not dealt with. Inside a body it begins with two octets that are: what a dot looks back at."""

    @property
    def clean(self) -> bool:
        """True between two answers, when nothing is held."""
        return self._body is None and not self._held

    def feed(self, data: bytes) -> None:
        """Take what has arrived. Raises :class:`ProtocolViolation` or :class:`Enough`; then nothing more may be fed."""
        buffer = self._held + data if self._held else data
        position = 0
        while True:
            if self._body is None:
                newline = buffer.find(b"\n", position)
                if (newline if newline >= 0 else len(buffer)) - position > MAX_LINE:
                    raise ProtocolViolation(f"a line is longer than {MAX_LINE} octets")
                if newline < 0:
                    break
                ended = newline > position and buffer[newline - 1] == 13
                self._body = self._lines.line(buffer[position : newline - ended])
                position = newline + 1
                if self._body is not None:
                    # The line end before it is the body's context: the body may begin with a dot.
                    if not ended:
                        buffer, position = b"\r\n" + buffer[position:], 2
                    position -= 2
                continue
            end = buffer.find(_END, position)
            if end < 0:
                stop = len(buffer) - _HELD
                if stop > position + 2:
                    self._write(buffer, position, stop)
                    position = stop - 2
                break
            self._write(buffer, position, end + 2)
            position = end + len(_END)
            body, self._body = self._body, None
            body.finish()
        self._held = buffer[position:]

    def close(self) -> None:
        """Drop what is unfinished."""
        body, self._body = self._body, None
        self._held = b""
        if body is not None:
            body.abort()

    def _write(self, buffer: bytes, start: int, stop: int) -> None:
        """Bring the octets after the first two, which are only there to be looked back at, to the taker."""
        assert self._body is not None
        if buffer.find(b"\r\n.", start, stop) < 0:
            chunk = buffer[start + 2 : stop]
        else:
            chunk = buffer[start:stop].replace(b"\r\n.", b"\r\n")[2:]
        if chunk:
            self._body.write(chunk)


class Collected:
    """A body that is held as bytes, of at most ``limit`` octets."""

    __slots__ = ("_limit", "_parts", "_size", "octets")

    def __init__(self, limit: int) -> None:
        self.octets = b""
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._limit:
            raise ProtocolViolation(f"an answer is larger than {self._limit} octets")
        self._parts.append(chunk)

    def finish(self) -> None:
        self.octets = b"".join(self._parts)
        self._parts.clear()

    def abort(self) -> None:
        self._parts.clear()
