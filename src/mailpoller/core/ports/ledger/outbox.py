"""Mail that was accepted to be sent, and what became of it for each recipient."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, Protocol

from mailpoller.core.ports.outgoing import Draft
from mailpoller.core.record import record

RecipientState = Literal["waiting", "deferred", "accepted", "refused", "cancelled", "bounced"]
"""``waiting``: not tried yet. ``deferred``: put off, to be tried again. ``accepted``: the relay took it. ``refused``:
it never will. ``cancelled``: an operator did not want it any more. ``bounced``: the relay took it, and a bounce
came back."""

OPEN: frozenset[RecipientState] = frozenset(("waiting", "deferred"))
"""The states in which a recipient is still to get the mail."""

OUTBOX_WAITS_AT_MOST = timedelta(hours=3)
"""No mail is put off for longer: one that seems to be was, by a clock that was ahead."""


@record
class OutboxRecipient:
    """One recipient of a mail: where it stands, and the relay's last words."""

    address: str
    state: RecipientState = "waiting"
    words: str = ""
    at: datetime | None = None


@record
class OutboxMail:
    """A mail that was accepted to be sent. Its octets lie in a file, under ``digest`` (SHA-256).

    ``key`` names it within its intake, where one was given; ``content`` is the SHA-256 of what was handed in.
    ``mailbox`` and ``mid``: what it answers, or nothing. ``sender``: the envelope's. ``due_at``: when it is to be tried
    next, None if nobody is to get it any more. ``draft``: what an attempt left of it at the
    service that sends it.
    """

    id: str
    intake: str
    key: str
    content: bytes
    identity: str
    mailbox: str
    mid: str
    message_id: str
    sender: str
    size: int
    digest: bytes
    accepted_at: datetime
    gives_up_at: datetime
    due_at: datetime | None
    attempts: int = 0
    recipients: tuple[OutboxRecipient, ...] = ()
    draft: Draft | None = None

    @property
    def open(self) -> tuple[str, ...]:
        """Who is still to get it."""
        return tuple(one.address for one in self.recipients if one.state in OPEN)


OutboxEventKind = Literal["sent", "deferred", "failed", "bounced"]


@record
class OutboxEvent:
    """A change that an intake is still to be told. ``number``: never given twice, but by a ledger that was put
    back. ``said``: address -> words."""

    number: int
    kind: OutboxEventKind
    mail: OutboxMail
    attempt: int
    at: datetime
    said: Mapping[str, str]


REFUSALS_OWED_AT_MOST = 10_000
"""Refusals of one intake that its queue is still to be told: a program that goes on for ever fills no disk."""


@record
class OutboxRefusal:
    """An entry that was refused, as its intake's queue is still to be told. ``id``: the same for every repeat of the
    entry under one key. ``key``, ``entry`` (its number in the intake) and ``mid`` (what it was to answer) as far as
    they are known."""

    id: str
    intake: str
    key: str
    entry: int | None
    mid: str
    reason: str
    at: datetime
    number: int = 0


@record
class OutboxBacklog:
    """What waits to be sent by one identity: mails, their octets, and when the first of them is due."""

    mails: int
    octets: int
    due_at: datetime


@record
class OutboxMark:
    """By what an outbox knows that it is no copy.

    ``identity``: random, made when the outbox was begun or accepted. ``height``: grows as mail is sent, and is never
    lowered. ``machine``: where that was (see :func:`~mailpoller.storage.machine.machine`), empty if nothing told;
    ``place``: the state directory.
    """

    identity: str
    height: int
    machine: str
    place: str


class Outbox(Protocol):
    """Accepted mail by identity, until its last recipient has it or never will."""

    async def outbox_accept(self, mail: OutboxMail) -> OutboxMail:
        """Record a mail; if its intake knows its key already, the one that was recorded under it, and nothing else."""

    async def outbox_known(self, intake: str, key: str) -> OutboxMail | None:
        """The mail that was accepted under this key."""

    async def outbox_due(self, identity: str, *, limit: int) -> Sequence[OutboxMail]:
        """What is due now, the longest due first; then what is put off for longer than
        :data:`OUTBOX_WAITS_AT_MOST`."""

    async def outbox_backlog(self) -> Mapping[str, OutboxBacklog]:
        """identity -> what waits to be sent by it, of those that have something."""

    async def outbox_waiting(self) -> Mapping[str, tuple[int, datetime]]:
        """identity -> how many mails wait to be sent by it, and when the oldest of them was accepted; of those that
        have some. Costs time in proportion to them."""

    async def outbox_answered(
        self, id: str, said: Mapping[str, tuple[RecipientState, str]], due_at: datetime | None, *, tell: bool = False
    ) -> None:
        """One attempt: what became of recipients, with the relay's words, and when the mail is to be tried again. Of
        whom nothing is said, nothing changes. ``tell``: its intake is to be told, from this commit on."""

    async def outbox_note_draft(self, id: str, draft: Draft | None) -> None:
        """A mail lies at its service as this draft, under the Message-ID of that if it has one; or as none any more."""

    async def outbox_list(self, *, identity: str | None = None, all: bool = False, limit: int) -> Sequence[OutboxMail]:
        """The mails that somebody is still to get, oldest first; ``all``: those that are done with, too."""

    async def outbox_mail(self, id: str) -> OutboxMail | None:
        """One mail, by its id or the beginning of it, if no other begins so."""

    async def outbox_retry(self, id: str) -> int:
        """Make a mail due at once; to how many recipients. None are left of one that is done with."""

    async def outbox_cancel(self, id: str) -> int:
        """Nobody who has not got the mail is to get it any more; how many that are. Its intake is to be
        told."""

    async def outbox_done(self, digests: Sequence[bytes]) -> Sequence[bytes]:
        """Those of these files that belong to mails that nobody is to get any more."""

    async def outbox_forget(self, before: datetime) -> int:
        """Forget mails that were done with before this instant; how many."""

    async def outbox_rename(self, former: str, name: str) -> int:
        """What was to be sent by an identity is to be sent by it under its new name; how many mails."""

    async def outbox_events(self, *, but: Collection[str] = (), limit: int) -> Sequence[OutboxEvent]:
        """What intakes are still to be told, oldest first, but for these intakes. A bounce is among it once the outcome
        of its message is recorded (``Claims.settle``): if it names the Message-ID of a mail that the relay took."""

    async def outbox_told(self, numbers: Sequence[int]) -> None:
        """These events are done with."""

    async def outbox_refuse(self, refusal: OutboxRefusal) -> bool:
        """Its intake is to be told; what it is still to be told under the same id already is not told twice. False if
        it is still to be told :data:`REFUSALS_OWED_AT_MOST`: then nothing is recorded."""

    async def outbox_refusals(self, *, but: Collection[str] = (), limit: int) -> Sequence[OutboxRefusal]:
        """What intakes are still to be told of what they refused, oldest first, but for these intakes."""

    async def outbox_refusals_told(self, numbers: Sequence[int]) -> None:
        """These refusals are done with."""

    async def outbox_mark(self) -> OutboxMark | None:
        """The mark of this outbox; None if it never had one."""

    async def outbox_note_mark(self, mark: OutboxMark) -> None:
        """From now on the outbox bears this mark."""
