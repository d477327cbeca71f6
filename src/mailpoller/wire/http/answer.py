"""A complete answer over HTTP, and its JSON within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from mailpoller.core.record import record
from mailpoller.wire.http.errors import (
    HttpError,
)
from mailpoller.wire.redaction import spoken

if TYPE_CHECKING:
    import httpcore

VALUES = 500_000
"""Commas and opening brackets of a JSON answer; three octets of it may be seventy of ours. The largest that is asked
for has some 50,000."""


@record
class HttpAnswer:
    """A complete answer. Header names are in lower case; ``host`` is whom to name in errors."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    host: str

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body, decoded. Raises :class:`HttpError` if it is not said to be JSON, is none, or would take many times
        its octets."""
        kind = self.content_type
        if kind not in ("application/json", "text/json") and not kind.endswith("+json"):
            raise HttpError(f"{self.host} answered with {spoken(kind) or 'no content type'} instead of JSON")
        if sum(map(self.body.count, (b",", b"[", b"{"))) > VALUES:
            raise HttpError(f"{self.host} answered with JSON of too many values ({len(self.body)} octets)")
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise HttpError(f"{self.host} answered with JSON that is broken ({len(self.body)} octets)") from None

    def object(self) -> dict[str, Any]:
        """The body, which must be a JSON object. Raises :class:`HttpError`."""
        found = self.json()
        if not isinstance(found, dict):
            raise HttpError(f"{self.host} answered with JSON that is no object")
        return found


def headers_of(response: httpcore.Response) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for name, value in response.headers:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return {name: ", ".join(values) for name, values in found.items()}


def require_plain(headers: Mapping[str, str], place: str) -> None:
    """Raise :class:`HttpError` for a content coding: none is asked for."""
    coding = headers.get("content-encoding", "identity").lower()
    if coding not in ("identity", ""):
        raise HttpError(f"{place}: it answered in a coding that was not asked for: {spoken(coding)}")


def redirection(status: int, headers: Mapping[str, str], host: str, place: str) -> str:
    """What a redirect is told as: it names the target's host, and is not followed."""
    try:
        elsewhere = urlsplit(headers.get("location", "")).hostname or host
    except ValueError:
        elsewhere = "somewhere"
    return f"{place}: it redirects to {spoken(elsewhere)} (HTTP {status}), which is not followed"
