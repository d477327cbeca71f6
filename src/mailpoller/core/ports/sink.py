"""What the engine asks of a sink, and what some sinks can do besides."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Literal, Protocol, runtime_checkable

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.record import record

OctetsPlace = Literal["inside", "beside"]
"""``inside``: in the event, as Base64 under ``data.raw``. ``beside``: in ``Delivery.raw``."""


class Sink(Protocol):
    """The kind of thing a queue is."""

    octets_place: OctetsPlace
    """Where it takes the raw octets from when they are wanted."""

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """Return when every delivery with a receipt would survive a power cut: same order, same length.
        A receipt is made with :class:`mailpoller.core.seals.sink.SealedReceipt`, and in no other way.

        A raise (:class:`TransientError`) means that none is known to be held. A repeated delivery id is
        answered with a receipt, and stored once where the sink can tell.
        """

    async def check(self) -> None:
        """Raise :class:`TransientError` with the reason if a delivery could not succeed now.
        Delivers nothing, and leaves no trace: what a first delivery would create is not created (``check --live`` may
        ask for a queue that is not there yet)."""

    async def close(self) -> None:
        """Free what is held. After this nothing is called."""


@record
class DoubtKind:
    """What an operator may have to know of a queue of some type although deliveries succeed, and how it is told.

    ``name``: the alarm's kind, in small letters and hyphens (``wal-growing``); none of the service's own.
    ``one`` and ``over``: the headline of a mail when it begins and when it is over, each in one line, in which
    ``{subject}`` stands for the queue's name.
    ``advice``: what to do, in one line. ``patience``: how long it must last before it is worth a mail.
    Raises :class:`ValueError` for a name or words that could not be told.
    """

    name: str
    one: str
    over: str
    advice: str
    patience: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if not all(word.isascii() and word.isalpha() and word.islower() for word in self.name.split("-")):
            raise ValueError(f"the name of a doubt is small letters and hyphens, not {self.name!r}")
        for sentence in (self.one, self.over):
            try:
                told = sentence.format(subject="support")
            except (LookupError, ValueError, AttributeError) as error:
                raise ValueError(f"{sentence!r} may name {{subject}} and nothing else") from error
            if "support" not in told or not told.isprintable():
                raise ValueError(f"{sentence!r} is one line that names {{subject}}")
        if not self.advice.isprintable():
            raise ValueError(f"the advice of {self.name} is one line")


@record
class SinkDoubt:
    """What an operator should know now. ``detail``: how it is, in words; no secret and nothing of a message."""

    kind: DoubtKind
    detail: str


@runtime_checkable
class Durable(Protocol):
    """A sink that says what a receipt of its queue is worth in a power cut."""

    @property
    def durability(self) -> Durability | None:
        """What was found when it was looked at last; None as long as nobody looked. Asks nobody: ``check``, a delivery
        and ``upkeep`` look."""


@runtime_checkable
class Sifting(Protocol):
    """A sink that brings its messages one by one and answers for each, so that one which its queue does not stomach
    is told apart by itself. Of other sinks the engine brings alone what was part of a call that failed."""

    sifts: Literal[True]


@runtime_checkable
class Upkept(Protocol):
    """A sink that has work to do now and then, also when nothing is delivered."""

    @property
    def doubts(self) -> Collection[DoubtKind]:
        """Every kind of doubt that it may ever have; each name once. The same from the beginning to the end."""

    async def upkeep(self) -> Collection[SinkDoubt]:
        """Called every minute. What an operator should know although deliveries succeed: at most one of each of
        :attr:`doubts`. What is not among them is over. May raise :class:`TransientError`: then all stays as it was
        said last."""


@record
class Mark:
    """Which queue lies in a sink's place, as the queue itself says.

    ``identity``: random, made when the queue was begun, kept inside of it. ``height``: grows as it is delivered to
    and is never lowered by whoever takes from it, so that an older copy is known by it;
    ``place``: where it lies, for an operator.
    """

    identity: str
    height: int
    place: str

    def unlike(self, found: Mark | None, place: str) -> str:
        """Why what was ``found`` at ``place`` is not the queue of this mark as it was when it bore it, in words;
        else empty."""
        lay = "" if self.place == place else f" (it lay at {self.place})"
        if found is None:
            return f"it was removed or replaced{lay}: nothing that bears our mark lies at {place}"
        if found.identity != self.identity:
            return f"it was removed or replaced{lay}: another queue lies at {place}"
        if found.height < self.height:
            heights = f"{found.height:,} and not to {self.height:,}"
            return f"it was replaced{lay}: an older copy lies at {place}, which got to {heights}"
        return ""


@runtime_checkable
class Marked(Protocol):
    """A sink whose queue bears a :class:`Mark`, so that one that vanished is not begun anew in silence.

    Until :meth:`expect` is called the sink takes what is there, and begins what is missing.
    What it delivers to bears a mark from the first delivery on; where none can be written, :meth:`mark` stays None.
    """

    async def mark(self) -> Mark | None:
        """The mark of what lies there now; None if nothing does, or bears none. Leaves no trace.

        Raises :class:`TransientError` if it cannot be told.
        """

    async def renewed(self) -> Mark | None:
        """As :meth:`mark`, after the queue wrote down durably how far it has got. Raises :class:`TransientError`."""

    def expect(self, mark: Mark | None) -> None:
        """From now on deliver to the queue with this mark alone: ``deliver``, ``check`` and ``upkeep`` raise
        :class:`~mailpoller.core.errors.QueueVanished` for any other and make nothing.
        None: take what is there, or begin it."""

    def place(self) -> str:
        """Where the queue lies, or is to lie."""


@runtime_checkable
class Recalling(Protocol):
    """A sink that can tell what its queue was handed, which proves what a process had brought there that died before
    it could note it."""

    async def holds(self, delivery_ids: Collection[str]) -> Collection[str]:
        """Those that the queue holds, or held until somebody took them. Changes nothing.
        Raises :class:`TransientError`."""


@runtime_checkable
class Inspectable(Protocol):
    """A sink whose queue can be looked into, so that what its events refer to is kept as long as they are there."""

    async def still_holds(self, delivery_ids: Collection[str]) -> Collection[str]:
        """Those whose event the queue holds now, so that somebody may take it yet. Changes nothing.
        Raises :class:`TransientError`."""


@runtime_checkable
class Consumed(Protocol):
    """A sink that can tell whether anybody takes from its queue."""

    async def untaken(self) -> str | None:
        """Called every minute. In words, since when nobody has taken from the queue although there is something to
        take, if that is too long ago; else None. May raise :class:`TransientError`."""


@record
class Depth:
    """What a queue holds: messages that are ready to be taken, and that somebody has; and when the oldest of them
    came."""

    ready: int
    taken: int
    oldest_at: datetime | None


@runtime_checkable
class Deep(Protocol):
    """A sink that can tell how much its queue holds."""

    async def depth(self) -> Depth | None:
        """Called every minute. None if it cannot be told now. May raise :class:`TransientError`."""


@runtime_checkable
class Unserving(Protocol):
    """A sink of several recipients, of whom some may be refused for good while the others are served."""

    def unserved(self) -> str | None:
        """Called after each delivery and every minute. Which of them get nothing of what is delivered, and why, in
        words; empty if all get it; None as long as that is not known."""
