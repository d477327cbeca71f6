"""What the engine asks of a source: a mailbox, and a session with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal, Protocol, runtime_checkable

from mailpoller.core.delivery import Disposed, Disposition, Settlement
from mailpoller.core.message import Account, Claim, Folder, Gone, MessageRef, Page, Position, RawMessage, Survey
from mailpoller.core.ports.probing import Stage
from mailpoller.core.record import record


class Wake(Enum):
    """Why :meth:`Session.wait` returned."""

    NEWS = "news"
    """The server says that something changed."""
    LIMIT = "limit"
    """The time asked for has passed."""
    RENEW = "renew"
    """The session wants to be closed and opened anew (its token ends, the server announced a shutdown)."""


@record
class Start:
    """Which messages a listing without a position shows.

    ``now``: none that are there already. ``unseen``, ``all``: as they say. ``since``: those that the server
    received at ``instant`` (aware) or later. ``dated``: the refs are to have the server's date, even where that costs.
    """

    kind: Literal["now", "unseen", "all", "since"]
    instant: datetime | None = None
    dated: bool = False


class Session(Protocol):
    """One authenticated connection to one mailbox. It serialises its own commands; the engine may call ``settle``,
    ``wait`` and one more ``fetch`` while a ``fetch`` is being consumed, and they take their turn.

    Every method raises :class:`SessionLost` when the connection is gone, and then every later call does; every
    method keeps its own deadlines.
    """

    async def folders(self) -> Sequence[str]:
        """The names of the folders to poll, in order, as configured and found to exist. The first one is the one
        that ``wait`` watches."""

    async def open(self, name: str) -> Folder:
        """Make the folder current, for ``pending``, ``fetch`` and ``settle``, and tell its epoch.

        Raises :class:`TransientError` when the folder cannot be opened now (missing, not selectable).
        """

    def pending(self, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        """List the messages from ``since`` on; without it all those that ``start`` wants, a *full listing*.

        At least one page is yielded, the last one with the position reached (if the source has positions); its
        refs may be empty. The listing is complete before the first page is yielded, so ``fetch`` may be called
        while pages are consumed. A position made under ``start`` keeps applying it to what was there at that time.
        """

    async def survey(self, folder: Folder, position: Position | None) -> Survey:
        """What the open folder shows behind ``position``, to be compared with what the ledger knows.
        Asked at every poll, before the listing: a source shows it at the start of a session, and again whenever there
        is something new to compare. A source whose names are never given twice has nothing to show."""

    async def look(self, refs: Sequence[MessageRef]) -> Sequence[MessageRef | None]:
        """What the open folder shows under each of these names now: the ref with what the mailbox says of it, size
        and date, or None if it shows no such message. Same order and length; changes nothing.
        A source whose names are never given twice may give back refs without asking, if a disposition of what is not
        there does no harm."""

    def fetch(self, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        """Download at most the first ``limit`` octets of each message, in any order; every claim is answered
        exactly once. Never changes a flag. What lies beyond the limit is not asked for, whatever size was announced.
        Claims are of the folder that is open. Octets without a proper end are given with a ``doubt``, or not at all.

        The reader never waits for the consumer: octets that were asked for are taken in, to memory or spool.
        """

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        """Carry out each settlement's disposition, in the folder that is open. Idempotent; same order and length.
        In shadow mode nothing is changed and all are ``applied``. Only what the server shows to be done is
        ``applied``: OK is no evidence."""

    async def wait(self, limit: timedelta) -> Wake:
        """Return when the first folder may have news, at the latest after ``limit``."""

    async def close(self) -> None:
        """End the session in the protocol's own way and free the connection; never takes longer than 5 s.

        Where dispositions count only now (POP3: QUIT), raises :class:`SessionLost` if they did not.
        """


@runtime_checkable
class Progressing(Protocol):
    """A session that counts what it reads, so that a slow line that gets on is not taken for one that is stuck."""

    @property
    def octets_in(self) -> int:
        """Octets that have come, counted as they are read. A session that goes on by a new connection may begin
        anew."""


@runtime_checkable
class Parallel(Protocol):
    """A source that may have several sessions open at once, which know nothing of each other. Not so POP3, where one
    session has the maildrop (RFC 1939 section 4)."""

    parallel: Literal[True]


@runtime_checkable
class Tokened(Protocol):
    """A source that logs in with tokens that somebody else gives."""

    def ask_anew(self) -> None:
        """Whatever keeps it from asking for another token at the next :meth:`Source.connect`, such as a failure that is
        remembered, is forgotten."""

    def token_left(self) -> timedelta | None:
        """How long the token in hand, which may have been refused, is good by itself; None if there is none, or if no
        tokens are used."""


class Source(Protocol):
    """How a mailbox is reached."""

    account: Account

    async def connect(self) -> Session:
        """Connect, secure, authenticate.

        Raises :class:`CredentialsRefused` with the server's words; :class:`TransientError` for all that may pass
        (DNS, refused connections, TLS trouble, a server that is unavailable).
        """

    def probe(self, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
        """Try every stage up to one header and the right to each disposition, changing nothing; ends after the first
        failed stage. Never raises a MailpollerError."""
