"""What is asked of a way to send mail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from mailpoller.core.ports.probing import Stage
from mailpoller.core.record import record


@record
class Mail:
    """A mail that we send: envelope and octets (CRLF line ends). An empty ``sender`` is the null sender.

    ``envelope_id``: letters and digits by which a bounce may name it (ENVID of RFC 3461); empty if none is wanted.
    """

    sender: str
    recipients: tuple[str, ...]
    octets: bytes
    envelope_id: str = ""


class Answer(str):
    """A relay's answer to a mail that it took for at least one recipient: its words, and for whom it did not take it.

    ``later``: the recipients that it put off, who want the mail again and alone.
    ``never``: those that it refused for good, with its words to each.
    """

    later: tuple[str, ...]
    never: Mapping[str, str]

    def __new__(cls, words: str, *, later: tuple[str, ...] = (), never: Mapping[str, str] | None = None) -> Answer:
        made = super().__new__(cls, words)
        made.later, made.never = later, never or {}
        return made


class Outgoing(Protocol):
    """A named identity that mail is sent from."""

    host: str
    """Where it goes: alerts about several parts on one host are grouped by it."""
    sender: str
    """The address that is shown in From."""

    async def send(self, mail: Mail) -> str:
        """Return the relay's answer once it has taken the mail for at least one recipient;
        an :class:`Answer` says for whom not.

        Raises :class:`MessageRejected` if it will never take it for any, :class:`CredentialsRefused`, or
        :class:`TransientError`.
        """

    def probe(self) -> AsyncIterator[Stage]:
        """Try every stage up to the login, sending nothing; ends after the first failed stage."""

    async def close(self) -> None: ...


@record
class Said:
    """What became of a mail for one recipient, with the relay's words."""

    state: Literal["accepted", "deferred", "refused"]
    words: str


@runtime_checkable
class Posting(Protocol):
    """An outgoing that tells of each recipient what became of a mail for him."""

    async def post(self, mail: Mail) -> Mapping[str, Said]:
        """Of every recipient. Raises :class:`TransientError`, :class:`CredentialsRefused` or :class:`ConfigError` for
        the outgoing's own trouble, when no other mail would fare better now: then nobody has got the mail."""


@runtime_checkable
class Inquiring(Protocol):
    """An outgoing that can ask whether a mail would be taken, without sending one."""

    def inquire(self, recipients: Sequence[str]) -> AsyncIterator[Stage]:
        """As :meth:`Outgoing.probe`, and on as far as SMTP's RCPT: a stage ``sender``, and a stage ``recipient`` for
        each, in their order, which ends at none of them. No mail is begun."""


@record
class Draft:
    """A mail that lies at a service and is yet to be sent there.

    ``id``: what the service calls it. ``message_id``: the Message-ID that it bears there, with its brackets; empty if
    the service does not say. ``place``: whose drafts it is among; that it is missing says something there alone.
    ``recipients``: whom it goes to. ``missed_at``: when it was missing first (aware UTC); None if it was not.
    """

    id: str
    message_id: str
    place: str
    recipients: tuple[str, ...]
    missed_at: datetime | None = None


Keep = Callable[[Draft | None], Awaitable[None]]
"""Returns once a draft, or that there is none any more, survives a crash. Raises :class:`TransientError`."""


@runtime_checkable
class Drafting(Protocol):
    """An outgoing whose service keeps a draft of a mail before it sends it, so that a crash repeats none."""

    @property
    def drafts(self) -> bool:
        """Whether it is to be used so."""

    async def post_draft(self, mail: Mail, kept: Draft | None, keep: Keep) -> Mapping[str, Said]:
        """As :meth:`Posting.post`, by a draft that is told to ``keep`` before it is sent. ``kept``: the one that an
        earlier attempt told; what became of it is asked first."""
