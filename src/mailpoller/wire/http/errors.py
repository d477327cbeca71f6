"""What goes wrong with HTTP, as decisions; and what a service says about it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from mailpoller.core.errors import CredentialsRefused, MachineTrouble, TransientError
from mailpoller.wire.redaction import spoken

_LONGEST_WAIT = timedelta(hours=1)
"""The longest Retry-After that is believed."""
_LONGEST_DATE = 100
"""Characters of a date that are looked at."""


class HttpError(TransientError):
    """No answer that can be used: the network, a cut or oversized body, a wrong content type, a redirect."""


class HttpCut(HttpError):
    """As its parent; and the connection broke, so that the same request may pass at once."""


class HttpSilence(HttpError):
    """As its parent; and nothing came for as long as we wait."""


class HttpStatus(HttpError):
    """The service answered with an error.

    ``status`` is HTTP's number; ``code`` the service's own word (``syncStateNotFound``, ``invalid_grant``), empty if it
    has none; ``words`` what it said, masked. A plug-in that knows better makes :class:`MessageGone` and the like of it.
    """

    def __init__(
        self, message: str, *, status: int = 0, code: str = "", words: str = "", retry_after: timedelta | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status
        self.code = code
        self.words = words


class IntakeTrouble(TransientError):
    """What came could not be taken in: one message's trouble, or our spool's. The service and the connection are as
    good as before."""


class SpoolTrouble(IntakeTrouble, MachineTrouble):
    """As both: our spool cannot be written."""


class Unauthorized(CredentialsRefused):
    """401, and no other token would fare better: the service does not want us."""

    def __init__(self, message: str, *, code: str = "", words: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.words = words


@contextmanager
def faults(place: str, seconds: float) -> Iterator[None]:
    """Whatever httpcore raises, as one of ours; its own words may quote what was sent. ``seconds``: how long it was
    to wait for words."""
    import httpcore

    try:
        yield
    except httpcore.PoolTimeout:
        raise HttpSilence(f"{place}: no connection became free") from None
    except httpcore.TimeoutException:
        raise HttpSilence(f"{place}: no answer within {seconds:g} s") from None
    except httpcore.NetworkError as error:
        raise HttpCut(f"{place}: the connection broke: {spoken(str(error)) or 'no reason given'}") from None
    except httpcore.RemoteProtocolError as error:
        words = str(error)
        if "disconnected" in words or "closed" in words:
            raise HttpCut(f"{place}: the connection was closed before the answer was complete") from None
        raise HttpError(f"{place}: the answer is no HTTP: {spoken(words)}") from None
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise HttpError(f"{place}: {type(error).__name__}") from None


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> timedelta | None:
    """How long the service wants us to wait (RFC 9110 section 10.2.3): seconds or a date; at most an hour. None if it
    said nothing that can be understood: then the caller's own back-off decides."""
    said = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", said):
        return min(timedelta(seconds=float(said)), _LONGEST_WAIT)
    instant = http_date(said)
    return None if instant is None else max(timedelta(0), min(instant - (now or datetime.now(UTC)), _LONGEST_WAIT))


def http_date(said: str) -> datetime | None:
    """A date as HTTP writes it (RFC 9110 section 5.6.7), in UTC; None if it is none. Never raises."""
    try:
        found = parsedate_to_datetime(said[:_LONGEST_DATE])
        # A zone may move it out of the calendar.
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except Exception:  # of all that the standard library raises here no list is complete
        return None


def iso_date(said: object) -> datetime | None:
    """A date as services write it (RFC 3339, xs:dateTime, Edm.DateTimeOffset), in UTC, which one without a zone is
    taken to be in; None if it is none. Never raises."""
    try:
        found = datetime.fromisoformat(said[:_LONGEST_DATE]) if isinstance(said, str) else None
        if found is None:
            return None
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def error_of(
    body: bytes, content_type: str = "", secrets: Sequence[str] = (), asked: Sequence[str] = ()
) -> tuple[str, str]:
    """(code, words) of an error's body, masked but for what was ``asked``, each empty if there is none.

    Understood: OAuth's ``error`` and ``error_description`` (RFC 6749 section 5.2), ``{"error": {"code" | "status",
    "message"}}`` of Microsoft and Google, RFC 9457's ``title`` and ``detail``. A page of HTML has nothing to say to
    an operator.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        told = body.decode("utf-8", "replace") if content_type.startswith("text/plain") else ""
        return "", spoken(told, secrets, asked)
    error = found.get("error", found.get("code", found.get("title", "")))
    words = found.get("error_description", found.get("message", found.get("detail", "")))
    if isinstance(error, dict):
        code = error.get("code", "")
        words = error.get("message", "")
        # Google's code repeats HTTP's number; the word is in status, and the most exact one in the reason.
        error = (_reason(error) or error.get("status", "")) if isinstance(code, int) else code
    return (
        spoken(error, secrets)[:80] if isinstance(error, str) else "",
        spoken(words, secrets, asked) if isinstance(words, str) else "",
    )


def _reason(error: Mapping[str, Any]) -> str:
    """Why, in a word, as Google's services say it: ``errors[].reason`` or, newer, that of ``google.rpc.ErrorInfo``;
    empty if it is not said."""
    for key in ("errors", "details"):
        listed = error.get(key)
        for one in listed if isinstance(listed, list) else ():
            if isinstance(one, dict) and isinstance(reason := one.get("reason"), str) and reason:
                return reason
    return ""
