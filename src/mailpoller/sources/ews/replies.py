"""What the server says to each part of a request, and which decision follows from each of its error codes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from mailpoller.core.errors import CredentialsRefused, MailpollerError, SessionLost, TransientError
from mailpoller.core.record import record
from mailpoller.remote.polled_session import FolderGone
from mailpoller.sources.ews.reader import Node
from mailpoller.wire.redaction import spoken

GONE = frozenset({"ErrorItemNotFound"})
"""The item is not there: moved (which gives it another id) or deleted."""
FOLDER_GONE = frozenset(
    {"ErrorFolderNotFound", "ErrorSyncFolderNotFound", "ErrorParentFolderNotFound", "ErrorToFolderNotFound"}
)
STATE_LOST = frozenset({"ErrorInvalidSyncStateData"})
BUSY = frozenset(
    {
        "ErrorServerBusy", "ErrorExceededConnectionCount", "ErrorTooManyObjectsOpened", "ErrorNotEnoughMemory",
        "ErrorInsufficientResources", "ErrorTimeoutExpired", "ErrorMailboxStoreUnavailable",
        "ErrorMailboxMoveInProgress",
        "ErrorADUnavailable", "ErrorConnectionFailed", "ErrorInternalServerTransientError", "ErrorMailboxFailover",
    }
)  # fmt: skip
"""The server cannot now: everything has to wait, not only what was asked."""
IDENTITY = frozenset(
    {
        "ErrorImpersonateUserDenied", "ErrorImpersonationDenied", "ErrorImpersonationFailed", "ErrorNonExistentMailbox",
        "ErrorNonPrimarySmtpAddress", "ErrorMissingEmailAddress", "ErrorAccountDisabled", "ErrorPasswordExpired",
        "ErrorPasswordChangeRequired", "ErrorInvalidUserPrincipalName",
    }
)  # fmt: skip
"""Who we say we are, or whose mailbox we say it is, is refused."""
NEVER = frozenset(
    {
        "ErrorAccessDenied", "ErrorCannotDeleteObject", "ErrorCannotMovePublicFolderItemOnDelete",
        "ErrorCreateItemAccessDenied",
        "ErrorMoveCopyFailed", "ErrorInvalidPropertySet", "ErrorInvalidPropertyUpdateSentMessage",
        "ErrorInvalidPropertyForOperation",
        "ErrorIncorrectUpdatePropertyCount", "ErrorUpdatePropertyMismatch", "ErrorQuotaExceeded",
        "ErrorInvalidFolderId",
        "ErrorInvalidFolderTypeForOperation", "ErrorMessagePerFolderCountReceiveQuotaExceeded",
        "ErrorInvalidIdMalformed",
        "ErrorFolderSave", "ErrorFolderSavePropertyError",
    }
)  # fmt: skip
"""A disposition that will not succeed as configured; whatever is not named anywhere is tried again soon."""

LONGEST_BACK_OFF = timedelta(hours=1)
"""The longest back-off that is believed; Exchange's own are at most five minutes."""


class Denied(TransientError):
    """It will not be done as configured, however often it is asked: a right is missing, or a quota is full."""


class Busy(SessionLost):
    """The server wants to be left alone, for ``retry_after`` if it said so: the whole mailbox waits."""


@record
class Reply:
    """What the server said to one part of a request. ``code`` is ``NoError`` if it did as asked."""

    node: Node
    code: str
    text: str
    back_off: timedelta | None = None

    @classmethod
    def read(cls, node: Node) -> Reply:
        """Of a response message, or of a fault's ``detail``."""
        code = node.value("ResponseCode") or "no response code"
        if node.attributes.get("ResponseClass", "") == "Success":
            code = "NoError"
        return cls(node, code, node.value("MessageText") or node.value("Message"), _back_off(node))

    @property
    def ok(self) -> bool:
        """The server did what was asked."""
        return self.code == "NoError"

    @property
    def words(self) -> str:
        """Code and text, for an operator."""
        return f"{spoken(self.code)}: {spoken(self.text)}" if self.text else spoken(self.code)

    def trouble(self, doing: str) -> MailpollerError:
        """The error that this code means, while ``doing`` something (``list the folder``)."""
        told = f"the server does not {doing}: {self.words}"
        if self.code in BUSY:
            return Busy(told, retry_after=self.back_off)
        if self.code in IDENTITY:
            return CredentialsRefused(told)
        if self.code in FOLDER_GONE:
            return FolderGone(told)
        return Denied(told) if self.code in NEVER else TransientError(told)


def only(replies: Sequence[Reply], doing: str) -> Reply:
    """The one reply to a request of one part, if it is no error. Raises what it means otherwise."""
    if len(replies) != 1:
        raise TransientError(f"the server does not {doing}: it gives {len(replies)} answers to one question")
    if not replies[0].ok:
        raise replies[0].trouble(doing)
    return replies[0]


def of_folder(replies: Sequence[Reply], doing: str) -> Reply:
    """As :func:`only`, where the question was about a folder: then it is the folder that an ``ErrorItemNotFound``
    means."""
    if len(replies) == 1 and replies[0].code in GONE:
        raise FolderGone(f"the server does not {doing}: {replies[0].words}")
    return only(replies, doing)


def fault(envelope: Node) -> Reply | None:
    """The SOAP fault (SOAP 1.1 section 4.4) that an answer is, or None."""
    found = envelope.find("Body", "Fault")
    if found is None:
        return None
    detail = found.find("detail")
    code = "" if detail is None else detail.value("ResponseCode")
    text = ("" if detail is None else detail.value("Message")) or found.value("faultstring")
    # Schema errors have their code only in faultcode: a:ErrorSchemaValidation.
    return Reply(found, code or found.value("faultcode").rpartition(":")[2] or "Fault", text, _back_off(found))


def _back_off(node: Node) -> timedelta | None:
    for one in node.walk():
        if one.name == "Value" and one.attributes.get("Name") == "BackOffMilliseconds":
            said = one.text.strip()
            if said.isdigit() and len(said) < 10:
                return min(timedelta(milliseconds=int(said)), LONGEST_BACK_OFF)
    return None
