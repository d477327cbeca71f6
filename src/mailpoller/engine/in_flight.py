"""What the stages of a pass hand on: one batch on its way, and what all batches of the pass share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailpoller.core.delivery import Outcome, Question, Settlement
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.ports import Heirless, Session
from mailpoller.core.record import record
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.batcher import Batch
from mailpoller.engine.budget import Reservation
from mailpoller.engine.deferral import Deferral
from mailpoller.engine.judged import Judged
from mailpoller.engine.pass_result import PassResult

UNTOLD = 4
"""Settled batches that wait until the server is told of them."""


@record
class Telling:
    """What the server is to be told. ``owed``: of messages that were not fetched in this pass, so they are looked at
    first."""

    settlements: Sequence[Settlement]
    owed: bool = False


@dataclass(slots=True)
class InFlight:
    """One batch on its way, filled from top to bottom: claimed, fetched, judged, delivered, settled."""

    batch: Batch
    poison: bool = False
    """A message that is not parsed any more."""
    claims: list[Claim] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    """What the server is to be told of this batch's own messages."""
    owed: list[Settlement] = field(default_factory=list)
    """What it should have been told earlier."""
    reservation: Reservation | None = None
    fetching: asyncio.Task[None] | None = None
    fetched: list[RawMessage] = field(default_factory=list)
    gone: list[Claim] = field(default_factory=list)
    beside: bool = False
    """It is fetched in another session: in this one it was not looked at."""
    missing: dict[str, Claim] = field(default_factory=dict)
    """Claims that were asked for and not answered, by mid."""
    accounted: bool = False
    """Of those it is decided what becomes of them."""
    trouble: TransientError | None = None
    """Why; :class:`SessionLost` among others."""
    judged: list[Judged] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    deferrals: list[Deferral] = field(default_factory=list)
    strangers: list[RawMessage] = field(default_factory=list)
    """What was fetched by the name of another message."""
    digests: dict[bytes, str] = field(default_factory=dict)
    """Digest -> mid of what is held whole: the ledger knows of them only once they are settled."""
    threads: dict[str, str] = field(default_factory=dict)
    """Message-ID -> conversation of what was judged, likewise."""

    def release(self) -> None:
        """Give back octets and room. Harmless when repeated."""
        for raw in (*self.fetched, *self.strangers):
            raw.octets.close()
        self.fetched = []
        if self.reservation is not None:
            self.reservation.release()
            self.reservation = None


@dataclass(slots=True)
class Pass:
    """What the batches of one pass over a folder share. ``suppress``: octets that an earlier epoch settled are not
    delivered again. ``quiet``: nobody is told that his mail has come, since it may have come long ago."""

    session: Session
    folder: Folder
    suppress: bool
    result: PassResult
    quiet: bool = False
    digests: dict[bytes, str] = field(default_factory=dict)
    """Digest -> mid of what was judged and is not settled yet."""
    threads: dict[str, str] = field(default_factory=dict)
    """Message-ID -> the conversation of what was judged and is not settled yet."""
    stood_for: set[str] = field(default_factory=set)
    """Mids of former messages that a message of this pass counts as a repeat of."""
    heirless: list[Heirless] = field(default_factory=list)
    """What was on its way when its name went. A message that is new by name may be one of them."""
    questions: list[Question] = field(default_factory=list)
    """Names that may be another message's: to be answered at the end of the pass, and the position stays before
    them."""
    known: list[MessageRef] = field(default_factory=list)
    """Names that were listed and are settled already: to be looked at before the position passes them."""
    absent: list[Claim] = field(default_factory=list)
    """Claims whose messages the mailbox did not show: in hand until the end of the pass, which sees how many they
    are."""
    undated: list[MessageRef] = field(default_factory=list)
    """Messages that did not come, and whose date nobody told."""
    last: list[Settlement] | None = None
    """Overdue settlements, where the server is told of them after everything else."""
    settled: asyncio.Queue[Telling | None] = field(default_factory=lambda: asyncio.Queue(UNTOLD))
    """What the server is to be told next; None after the last."""
    accepted: bool = False
    """An operator said that what is absent is gone."""
    lost: SessionLost | None = None
    """The session: nothing more is fetched or told, and what was fetched is finished."""
    sacrificed: bool = False
    """It was lost with messages that were known to be able to take it with them."""
    failure: Exception | None = None
    """Anything else: what is not on its way to a queue yet is given up."""
    given_up: SessionLost | None = None
    """Nothing got anywhere: what was being fetched was given up, for this reason."""
    unaccounted: list[Claim] = field(default_factory=list)
    """Claims that were being fetched when the pass was cancelled after that."""
    tasks: TaskGroup = field(default_factory=TaskGroup)
    """Those that batches walk and fetch in."""
    fetching: set[asyncio.Task[None]] = field(default_factory=set)
    telling: asyncio.Task[None] | None = None
    """What the server is told now, behind what it was asked for."""

    @property
    def over(self) -> bool:
        """True if nothing new is begun."""
        return self.lost is not None or self.failure is not None

    def fail(self, error: Exception) -> None:
        """Note what ends the pass; the first failure counts."""
        if isinstance(error, SessionLost):
            self.lost = self.lost or error
            return
        self.failure = self.failure or error
        for task in self.fetching:
            task.cancel()
