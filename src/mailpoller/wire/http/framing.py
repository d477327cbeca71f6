"""What wraps an answer, held against the answer: headers, interim responses, chunks and their extensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailpoller.wire.http.errors import HttpError

if TYPE_CHECKING:
    import httpcore

_WRAPPING = 256 << 10
"""Octets on the wire that an answer may need besides as many again as it has itself."""
_PIECES, _PIECE = 10_000, 64
"""Pieces of any size that an answer may come in; those beyond have so many octets on average."""
_TURN = 64
"""Pieces that are dealt with in one go, before whoever else waits has his turn."""


class Framing:
    """Counts what came of one answer. ``place``: for errors. From here on the header of ``response`` is complete."""

    def __init__(self, response: httpcore.Response, place: str) -> None:
        stream = response.extensions.get("network_stream")
        self._told = getattr(stream, "told", None)  # None: another protocol is spoken there
        self._place = place
        self._before = 0 if self._told is None else self._told.octets
        if self._told is not None:
            self._told.answered = True
        self._pieces = self._octets = 0

    def came(self, octets: int) -> bool:
        """A piece of so many octets. True: others should have their turn now.

        Raises :class:`HttpError` if the answer is little, and what it comes in much.
        """
        self._pieces += 1
        self._octets += octets
        wire = 0 if self._told is None else self._told.octets - self._before
        if wire > 2 * self._octets + _WRAPPING or self._pieces > _PIECES + self._octets // _PIECE:
            raise HttpError(f"{self._place}: the answer is less than what it comes in")
        return self._pieces % _TURN == 0


class Told:
    """What one connection has said: ``octets`` in all. ``answered``: the header of an answer is complete; until then
    what came since the request is counted in ``head``, and ``since`` is when its first octet came."""

    __slots__ = ("answered", "head", "octets", "since")

    def __init__(self) -> None:
        self.octets = 0
        self.asked()

    def asked(self) -> None:
        """A request goes out."""
        self.answered, self.head, self.since = False, 0, 0.0
