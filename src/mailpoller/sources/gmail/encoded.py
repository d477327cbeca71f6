"""Taking a message out of the JSON that it comes in, as it arrives: base64url in the member ``raw`` (RFC 4648 section
5)."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pybase64

from mailpoller.core.spool import Intake, Spool
from mailpoller.wire.http import IntakeTrouble

LONGEST_REST = 256 << 10
"""Octets of the answer beside ``raw``, at most: labels, dates, a snippet."""

_MARK = re.compile(rb'["{}\[\]]')
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_VALUE = re.compile(rb'\s*:\s*"')
_MAY_BE_VALUE = re.compile(rb"\s*(?::\s*)?\Z")
_END = re.compile(rb'["\\]')


class Malformed(IntakeTrouble):
    """The answer is no message."""


class EncodedIntake(Intake):
    """An intake that is given the JSON of ``users.messages.get`` with ``format=raw``, and holds the message that is
    in it.

    At most ``limit`` octets of the message are taken; then it has ``overflowed``, and the rest need not come.
    :meth:`write` raises :class:`Malformed` for what is no such JSON, and OSError when the spool cannot take it.
    """

    __slots__ = ("_at", "_depth", "_held", "_rest", "_state")

    def __init__(self, spool: Spool, limit: int) -> None:
        super().__init__(spool, limit)
        self._state = "before"
        self._rest = bytearray()
        """The JSON without the message: before it, then before and after it."""
        self._at = 0
        """How much of it was looked at."""
        self._depth = 0
        self._held = b""
        """Base64 that does not fill four characters yet."""

    def write(self, chunk: bytes) -> None:
        """Take a piece of the answer."""
        if self._state == "before":
            self._rest += chunk
            begin = self._find()
            if begin is None:
                self._check_rest()
                return
            chunk = bytes(self._rest[begin:])
            del self._rest[begin:]
            self._state = "inside"
        if self._state == "inside":
            chunk = self._inside(chunk)
        if self._state == "after" and chunk:
            self._rest += chunk
            self._check_rest()

    def facts(self) -> dict[str, Any]:
        """What else the answer says. Raises :class:`Malformed` unless it was complete, and had a message in it."""
        if self._state != "after":
            raise Malformed(
                "the service gave no content for it" if self._state == "before" else "the answer ended early"
            )
        try:
            found = orjson.loads(self._rest)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise Malformed("the answer is no JSON object")
        return found

    def _check_rest(self) -> None:
        if len(self._rest) > LONGEST_REST:
            raise Malformed("the answer is no message: too much beside it")

    def _find(self) -> int | None:
        """Where the text of ``raw`` begins; None if that has not come yet. Only a member of the outermost object
        counts."""
        while found := _MARK.search(self._rest, self._at):
            mark = found[0]
            if mark != b'"':
                self._depth += 1 if mark in b"{[" else -1
                self._at = found.end()
                continue
            string = _STRING.match(self._rest, found.start())
            if string is None:
                self._at = found.start()
                return None
            if self._depth == 1 and string[0] == b'"raw"':
                if value := _VALUE.match(self._rest, string.end()):
                    return value.end()
                if _MAY_BE_VALUE.match(self._rest, string.end()):
                    self._at = found.start()
                    return None
            self._at = string.end()
        self._at = len(self._rest)
        if self._rest.strip() and not self._rest.lstrip().startswith(b"{"):
            raise Malformed("the answer is no JSON object")
        return None

    def _inside(self, chunk: bytes) -> bytes:
        """Decode up to the end of the text; what comes after it."""
        data = self._held + chunk
        pieces = []
        at = 0
        while (found := _END.search(data, at)) and found[0] == b"\\":
            # Some of Google's services write = and the like as \u003d.
            if len(data) < found.start() + 6:
                break
            code = data[found.start() + 1 : found.start() + 6]
            if not re.fullmatch(rb"u00[0-7][0-9A-Fa-f]", code):
                raise Malformed("the message is not in base64url")
            pieces += [data[at : found.start()], bytes([int(code[3:], 16)])]
            at = found.start() + 6
        stop = len(data) if found is None else found.start()
        text = b"".join([*pieces, data[at:stop]])
        ended = found is not None and found[0] == b'"'
        whole = len(text) if ended else len(text) - len(text) % 4
        self._decode(text[:whole] + (b"=" * (-whole % 4) if ended else b""))
        self._held = text[whole:] + data[stop:] if not ended else b""
        if not ended:
            return b""
        self._state = "after"
        self._rest += b'"'
        return data[stop + 1 :]

    def _decode(self, text: bytes) -> None:
        try:
            octets = pybase64.b64decode(text, altchars=b"-_", validate=True)
        except ValueError:
            raise Malformed("the message is not in base64url") from None
        super().write(octets)
