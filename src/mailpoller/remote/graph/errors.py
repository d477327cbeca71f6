"""What Graph's errors mean, and what a human can do about them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mailpoller.core.errors import CredentialsRefused, MailpollerError, TransientError
from mailpoller.remote.throttle import Busy
from mailpoller.remote.web import Refusal
from mailpoller.wire.http import HttpStatus, Unauthorized

ITEM_GONE = frozenset(("ErrorItemNotFound", "itemNotFound"))
"""Codes of a message, or a folder, that is not there (any more). Every other 404 is about something else."""

BUSY = frozenset((429, 503, 504, 509))
"""Statuses of a service that wants to be left alone for a while."""

_SYNC_LOST = frozenset(("syncstatenotfound", "syncstateinvalid", "resyncrequired", "errorinvalidsyncstatedata"))
_DENIED = frozenset(
    ("ErrorAccessDenied", "Authorization_RequestDenied", "accessDenied", "AccessDenied", "Forbidden", "ErrorForbidden")
)

_POLICY = (
    "The application lacks the permission, or nobody consented, or the mailbox is outside its scope: Entra, App "
    "registrations, API permissions: Mail.ReadWrite (reading and settling) and Mail.Send (sending), Grant admin "
    "consent; then the Exchange side: Test-ApplicationAccessPolicy, or Test-ServicePrincipalAuthorization with RBAC "
    "for Applications. Changes take up to an hour."
)
_NO_MAILBOX = (
    "There is no mailbox in Exchange Online under this name: check user, tenant and cloud; the user needs a licence "
    "with Exchange, and a mailbox that is still on premises is reached by type: ews or imap."
)
_ADVICE: Mapping[str, str] = {
    **dict.fromkeys(_DENIED, _POLICY),
    "MailboxNotEnabledForRESTAPI": _NO_MAILBOX,
    "MailboxNotSupportedForRESTAPI": _NO_MAILBOX,
    "MailboxNotHostedInExchangeOnline": _NO_MAILBOX,
    "ErrorInvalidUser": _NO_MAILBOX,
    "ErrorNonExistentMailbox": _NO_MAILBOX,
    "Request_ResourceNotFound": _NO_MAILBOX,
    "ResourceNotFound": _NO_MAILBOX,
    "ErrorSendAsDenied": "The mail's From is not user's own: let sender be an address of user, or grant Send As in "
    "Exchange.",
    "ErrorMailboxStoreUnavailable": "Exchange has trouble with this mailbox's store; it usually passes within minutes.",
    "ErrorQuotaExceeded": "The mailbox is full: empty it, or raise its quota.",
    "ErrorAccountSuspend": "The account is blocked from sending; an administrator sees why under Restricted entities "
    "in Defender.",
    "ErrorExceededMessageLimit": "The mailbox has sent more than its limit allows today.",
    "InvalidAuthenticationToken": "The token is for another service or cloud: check scopes "
    "(https://HOST-OF-GRAPH/.default) and cloud.",
    "ApplicationThrottled": "The application asks too often; mailpoller waits as it is told.",
    "MailboxConcurrency": "Another program uses the same application id on this mailbox: give mailpoller one of its "
    "own.",
}


LOGIN_ADVICE = "Check tenant, client_id, the secret and its expiry: Entra, App registrations."
"""What to do where there is no token, and the provider does not say why."""


class Missing(TransientError):
    """404: what was asked for is not there. ``code`` tells whether it is the message or folder (:data:`ITEM_GONE`) or
    more."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def item(self) -> bool:
        """True if just the message or folder is missing, and not the whole mailbox."""
        return self.code in ITEM_GONE


class SyncLost(TransientError):
    """The service no longer knows the delta token (410, syncStateNotFound): list the folder from the beginning."""


class Denied(CredentialsRefused):
    """403: we are known, and may not do this."""


def advice_for(code: str) -> str:
    """What to do about an error code, in Microsoft's own terms; empty if nobody knows."""
    return _ADVICE.get(code, "")


def words_of(message: str, code: str) -> str:
    """An error's words followed by what to do."""
    advice = advice_for(code)
    return f"{message.rstrip('.')}. {advice}" if advice else message


def decided(error: HttpStatus | Unauthorized) -> MailpollerError:
    """The error of mailpoller's own that an answer of Graph amounts to."""
    said = words_of(str(error), error.code)
    if isinstance(error, Unauthorized):
        return CredentialsRefused(said)
    if error.status == 410 or error.code.lower() in _SYNC_LOST:
        return SyncLost(said)
    if error.status == 404:
        return Missing(said, code=error.code)
    if error.status == 403:
        return Denied(said)
    if error.status in BUSY:
        return Busy(said, retry_after=error.retry_after)
    return HttpStatus(
        said, status=error.status, code=error.code, words=error.words, retry_after=error.retry_after
    )  # fmt: skip


def refusal(error: HttpStatus | Unauthorized, again: Collection[int] = BUSY) -> Refusal:
    """What a refusal means, where the same request may be made once more after the statuses ``again``."""
    if isinstance(error, Unauthorized):
        return Refusal(decided(error))
    return Refusal(decided(error), error.status in again, error.status in BUSY, error.retry_after)
