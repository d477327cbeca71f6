"""The errors of mailpoller. Each one is a decision: the engine has one ``except`` per thing it can do."""

from __future__ import annotations

import errno
import resource
from collections.abc import Mapping
from datetime import timedelta


class MailpollerError(Exception):
    """Every error that a part raises on purpose.

    The text is for an operator: what happened, in the peer's own words where there are any, and
    never a secret, a subject, an address list or a body.
    """


class ConfigError(MailpollerError):
    """The configuration cannot be used: do not start, exit 78 (EX_CONFIG)."""


class KeysMissing(ValueError):
    """A block lacks keys that it needs as it is; for a validator of its class. ``keys``: each with what more there is
    to say.

    The problem is told as that of any required key, and not at all of a mailbox that is disabled.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{key} is missing" + (f": {more}" if more else "") for key, more in keys.items()))
        self.keys = dict(keys)


class TransientError(MailpollerError):
    """Nothing is known to be wrong with the message: leave it where it is and try again later.

    ``retry_after`` is the peer's own wish, if it said one. ``advice``: what an operator can do, where whoever raises
    it knows.
    """

    def __init__(self, message: str, *, retry_after: timedelta | None = None, advice: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.advice = advice


class MachineTrouble(TransientError):
    """As its parent; and it is this machine's own: memory, a disk of ours, threads, file descriptors. It counts against
    no message and no server."""


class SessionLost(TransientError):
    """As its parent; and the connection is gone, so reconnect this mailbox first."""


class Sacrificed(SessionLost):
    """As its parent; but with a message that was known to take sessions with it, and was asked for last and alone. The
    server is well: connect again at once, and put off that message alone."""


class LedgerUnavailable(TransientError):
    """The ledger cannot commit (full disk, read-only, locked): fetching stops until it can."""


class LedgerLocked(LedgerUnavailable):
    """Another process holds the ledger, and is alive: nothing of ours was touched."""


class QueueVanished(TransientError):
    """What lies in a queue's place is not the queue that was delivered to before (gone, another, an older copy):
    nothing is delivered and nothing made anew until it is back, or an operator adopts what is there (``mailpoller
    queue adopt``)."""


class MessageGone(MailpollerError):
    """Somebody else took the message: close its claim."""


class MessageRejected(MailpollerError):
    """The peer will never accept this message: quarantine it."""


class EntryRefused(MailpollerError):
    """What was handed in to be sent cannot be sent as it is. The text is the reason, for whoever handed it in."""


class EntryForbidden(EntryRefused):
    """As its parent: whoever hands it in may not."""


class EntryKeyUsed(EntryRefused):
    """As its parent: another entry was handed in under its key."""


class EntryTooLarge(EntryRefused):
    """As its parent: there will never be room for it."""


class OutboxFull(TransientError):
    """Too much waits to be sent already."""


class EntryPutOff(TransientError):
    """As its parent, of what was handed in to be sent: it alone has to wait, and others may be taken meanwhile."""


class OutboxShareFull(OutboxFull, EntryPutOff):
    """Too much waits to be sent by one identity already; what is sent by others may be taken."""


class CredentialsRefused(MailpollerError):
    """The server refused who we say we are: wait, retry slowly, tell a human; never disable for good."""


class CredentialsMissing(CredentialsRefused):
    """There is nothing here to say who we are with: a secret or a file is missing, or of no use. Nobody was asked, so
    that looking again every minute locks no account."""


_MEMORY = "no memory is left (MemoryMax)"
_FILES = "no file can be opened (LimitNOFILE)"
_THREADS = "no thread can be begun (TasksMax, MemoryMax)"
_OF_THE_MACHINE = frozenset(
    (
        *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOBUFS, errno.ENOLCK),
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE),
        -10,  # the resolver's EAI_MEMORY
    )
)
_SQLITE_OF_THE_MACHINE = {7: _MEMORY, 10: "its disk cannot be read or written", 13: "its disk is full", 14: _FILES}
"""SQLite's NOMEM, IOERR, FULL and CANTOPEN, where nobody has asked it for more."""
_OF_THE_LINKER = (
    "failed to map segment", "Cannot allocate memory", "cannot allocate", "cannot create", "cannot extend",
    "cannot map zero-fill pages", "cannot change memory protections", "out of memory",
)  # fmt: skip
"""What glibc's dynamic linker (elf/dl-*.c) begins with when a library finds no room: "cannot create shared object
descriptor", "cannot allocate dependency list" and their like."""

_SAID_OF_IT: tuple[tuple[type[Exception], tuple[str, ...], str], ...] = (
    (RuntimeError, ("start new thread", "allocate lock"), _THREADS),
    # OpenSSL's, also of a hash: it names no kind of its own.
    (ValueError, ("malloc failure",), _MEMORY),
    # The dynamic linker's, of a part that is imported when it is first needed.
    (ImportError, _OF_THE_LINKER, _MEMORY),
    (ImportError, ("Too many open files",), _FILES),
)
"""What no exception of its own is for, by its words; each was seen where memory, threads or files were short."""
_XML_NO_MEMORY = 1
"""Expat's."""
_NO_WORDS = ("without exception set", "without setting an exception")


def machine_trouble(error: BaseException) -> str | None:
    """What it is, in words, if an error that nobody foresaw is the machine's own (:class:`MachineTrouble`) and no bug;
    None if it is not."""
    if isinstance(error, MachineTrouble):
        return str(error)
    if isinstance(error, MailpollerError):
        return None  # decided by who raised it, perhaps in a peer's words
    if isinstance(error, BaseExceptionGroup):
        found = [machine_trouble(one) for one in error.exceptions]
        return found[0] if all(found) else None
    lack = _lack(error)
    return f"this machine: {lack}" if lack else None


def _lack(error: BaseException) -> str | None:
    """What there is too little of, as far as Python, its libraries and the system tell it; their ways were found by
    giving them less and less."""
    if isinstance(error, MemoryError):
        return _MEMORY
    if hasattr(error, "library"):  # of ssl, whose numbers are no errno
        return _MEMORY if getattr(error, "reason", None) == "MALLOC_FAILURE" else None
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        limit = " (LimitNOFILE)" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
        return f"{error.strerror}{limit}"
    if isinstance(code := getattr(error, "sqlite_errorcode", None), int):
        return _SQLITE_OF_THE_MACHINE.get(code & 0xFF)
    if hasattr(error, "lineno") and getattr(error, "code", None) == _XML_NO_MEMORY:
        return _MEMORY
    if isinstance(error, SystemError):
        # Python lost the exception while it raised it, as it does for want of memory. Memory is refused only to who is
        # bound; without a bound it is a bug, and struck.
        return _MEMORY if str(error).endswith(_NO_WORDS) and _bound() else None
    said = str(error)
    for kind, words, lack in _SAID_OF_IT:
        if isinstance(error, kind) and any(word in said for word in words):
            return lack
    return None


def _bound() -> bool:
    """Whether this process may use only so much memory that it is told of a lack, and not killed."""
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    return any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in kinds)
