"""What the Gmail API's errors mean, and what a human can do about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from mailpoller.core.errors import CredentialsRefused, MailpollerError, TransientError
from mailpoller.remote.throttle import Busy
from mailpoller.remote.web import Refusal
from mailpoller.wire.http import HttpStatus, Unauthorized, iso_date

_THROTTLED = frozenset(
    ("rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "backendError",
    "quotaExceeded",
     "dailyLimitExceeded", "concurrentLimitExceeded")
)  # fmt: skip
_DAILY = frozenset(("dailyLimitExceeded", "quotaExceeded"))
_DAY_WAIT = timedelta(minutes=15)
"""How long to leave the service alone when a day's share is used up and it did not say for how long."""

_SCOPE = (
    "The token lacks the scope https://www.googleapis.com/auth/gmail.modify (of a queue: gmail.insert and "
    "gmail.readonly): log in again (mailpoller oauth login) and grant it, or, with a service account, delegate exactly "
    "this scope to its numeric client id (Google Admin, Security, API controls, Domain-wide delegation)."
)
_DISABLED = (
    "Enable the Gmail API in the client's Google Cloud project: APIs & Services, Library, Gmail API; it takes "
    "some minutes."
)
_NO_MAIL = "This user has no Gmail: check user, and in Google Admin that Gmail is on for the person."
_ADVICE: Mapping[str, str] = {
    "insufficientPermissions": _SCOPE,
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": _SCOPE,
    "accessNotConfigured": _DISABLED,
    "SERVICE_DISABLED": _DISABLED,
    "failedPrecondition": _NO_MAIL,
    "FAILED_PRECONDITION": _NO_MAIL,
    "domainPolicy": "The domain's administrator does not allow this application: Google Admin, Security, API "
                    "controls, App access control.",
    "authError": "The token is for another service, or was revoked: check scopes, and run mailpoller oauth login "
                 "again.",
    "UNAUTHENTICATED": "The token is for another service, or was revoked: check scopes, and run mailpoller oauth "
                       "login again.",
    "forbidden": "The token is for another user than the one that user names: use me, or domain-wide delegation.",
    "PERMISSION_DENIED": "The token may not do this for the user that user names: use me, or domain-wide delegation "
                         "with gmail.modify.",
    "dailyLimitExceeded": "The project has used up its day's share: raise it in Google Cloud (APIs & Services, "
                          "Quotas).",
}  # fmt: skip
_TIME = re.compile(r"[Rr]etry after (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z)")
_LONGEST_WAIT = timedelta(hours=1)


class Missing(TransientError):
    """404: what was asked for is not there; for a history it means that it does not reach back so far."""


class Invalid(TransientError):
    """400: the service does not take the request, such as a label that was deleted."""


class Denied(CredentialsRefused):
    """403: we are known, and may not do this."""


def is_throttled(error: HttpStatus) -> bool:
    """True if the service wants to be left alone, whatever it is asked."""
    return error.status in (429, 503) or (error.status == 403 and error.code in _THROTTLED)


def may_pass(error: HttpStatus) -> bool:
    """True if the same request may pass a little later. A 500 may be about one message alone, and tell nothing about
    the next."""
    return is_throttled(error) or is_unexplained(error) or error.status == 408 or error.status >= 500


def is_unexplained(error: HttpStatus | Unauthorized) -> bool:
    """True for a 403 whose reason did not arrive, or is of somebody in between: Google always gives one, and with 403
    it denies as well as throttles."""
    return isinstance(error, HttpStatus) and error.status == 403 and not error.code


def wish_of(error: HttpStatus, now: datetime) -> timedelta | None:
    """How long the service wants to be left alone, by its header or in its words; None if it does not say."""
    if error.retry_after is not None:
        return error.retry_after
    if found := _TIME.search(error.words):
        until = iso_date(found[1])
        if until is None:
            return None
        return max(timedelta(0), min(until - now, _LONGEST_WAIT))
    return _DAY_WAIT if error.code in _DAILY else None


def advice_for(code: str) -> str:
    """What to do about an error's reason, in Google's own terms; empty if nobody knows."""
    return _ADVICE.get(code, "")


def decided(error: HttpStatus | Unauthorized, wish: timedelta | None = None) -> MailpollerError:
    """The error of mailpoller's own that an answer amounts to. ``wish``: see :func:`wish_of`."""
    advice = advice_for(error.code)
    said = f"{str(error).rstrip('.')}. {advice}" if advice else str(error)
    if isinstance(error, Unauthorized):
        return CredentialsRefused(said)
    if is_throttled(error):
        return Busy(said, retry_after=wish)
    if error.code.lower().replace("_", "") == "failedprecondition":
        return Denied(said)
    match error.status:
        case 404 if error.code:  # of somebody in between it says nothing about a message
            return Missing(said)
        case 400:
            return Invalid(said)
        case 403 if not is_unexplained(error):
            return Denied(said)
    return HttpStatus(said, status=error.status, code=error.code, words=error.words, retry_after=wish)


def refusal(error: HttpStatus | Unauthorized, now: datetime) -> Refusal:
    """What a refusal means. Every request of ours is harmless when repeated."""
    if isinstance(error, Unauthorized) or not may_pass(error):
        return Refusal(decided(error))
    wish = wish_of(error, now)
    return Refusal(decided(error, wish), again=True, throttled=is_throttled(error), wish=wish)
