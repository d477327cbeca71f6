"""One request to the intake of type ``http``: read within bounds, or refused with a status (RFC 9110)."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import h11

from mailpoller.core.record import record

PATH = "/entries"
HEAD_DEADLINE = timedelta(seconds=5)
"""For whoever has connected, to say what he wants."""
BODY_STALLS = timedelta(seconds=5)
"""So long the next octets of a body are waited for."""
LONGEST_HEAD = 16 << 10
"""Octets of a request line with its header fields."""
PIECE = 64 << 10
TURN = 64
"""Chunks, however small, that are read before others have their turn."""
LONGEST_KEY = 200

_ORIGIN = re.compile(rb"^https?://[^/]*", re.IGNORECASE)
_BARE = re.compile(r"[!#-\[\]-~]+")
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])+)"')
"""A string of RFC 9651 (section 3.3.3), as draft-ietf-httpapi-idempotency-key-header has the key."""


class Refused(Exception):
    """Answered with this status and these words. ``fields``: more header fields of the answer."""

    def __init__(self, status: int, reason: str, **fields: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.fields = {name.replace("_", "-").title(): value for name, value in fields.items()}


@record
class Asked:
    """What the header of a request says. ``length``: octets of the body, None if they are not told beforehand."""

    key: str
    length: int | None


class Request:
    """Reads one request. Whatever is wrong with it is raised as :class:`Refused`, what is too slow as
    :class:`TimeoutError`; what h11 does not take as :class:`h11.RemoteProtocolError`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        self._reader = reader
        self._writer = writer

    async def head(self, largest: int) -> Asked | None:
        """What is asked, if it is to hand in an entry of ``largest`` octets at most; None if nobody asks anything."""
        async with asyncio.timeout(HEAD_DEADLINE.total_seconds()):
            found = await self._event(4096)
        if not isinstance(found, h11.Request):
            return None
        if _ORIGIN.sub(b"", found.target.partition(b"?")[0]) != PATH.encode():
            raise Refused(404, f"entries are posted to {PATH}")
        if found.method != b"POST":
            raise Refused(405, "entries are posted", allow="POST")
        fields: dict[bytes, list[bytes]] = {}
        for name, value in found.headers:
            fields.setdefault(name, []).append(value)
        form = fields.get(b"content-type", [b"application/json"])[0].partition(b";")[0].strip().lower()
        if form != b"application/json":
            raise Refused(415, "an entry is application/json", accept="application/json")
        if fields.get(b"content-encoding", [b"identity"])[0].strip().lower() != b"identity":
            raise Refused(415, "an entry is not compressed", accept_encoding="identity")
        length = int(fields[b"content-length"][0]) if b"content-length" in fields else None
        _require_small(length or 0, largest)
        return Asked(_key(fields.get(b"idempotency-key", [])), length)

    async def body(self, largest: int) -> bytes:
        """The entry."""
        if self.protocol.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            self._writer.write(self.protocol.send(go_on) or b"")
        octets, events = bytearray(), 0
        while True:
            if (events := events + 1) % TURN == 0:
                await asyncio.sleep(0)
            async with asyncio.timeout(BODY_STALLS.total_seconds()):
                found = await self._event(PIECE)
            if isinstance(found, h11.EndOfMessage):
                return bytes(octets)
            if not isinstance(found, h11.Data):
                raise Refused(400, "the entry ends too soon")
            octets += found.data
            _require_small(len(octets), largest)

    async def _event(self, piece: int) -> object:
        while (found := self.protocol.next_event()) is h11.NEED_DATA:
            self.protocol.receive_data(await self._reader.read(piece))
        return found


def _require_small(size: int, largest: int) -> None:
    if size > largest:
        raise Refused(413, f"an entry has {largest} octets at most (outbox.max_mail)")


def _key(written: list[bytes]) -> str:
    """Bare, or as a string of a structured field."""
    if not written:
        return ""
    said = written[0].decode("latin-1").strip()
    quoted = _QUOTED.fullmatch(said)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else said if _BARE.fullmatch(said) else ""
    if len(written) > 1 or not 0 < len(key) <= LONGEST_KEY:
        raise Refused(400, f"Idempotency-Key is one key of {LONGEST_KEY} ASCII characters at most")
    return key
