"""From a verdict to proof: deliveries, receipts, outcomes, settlements, dispositions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import InitVar
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, Never, final

from mailpoller.core.acknowledgement import Acknowledgement
from mailpoller.core.attributes import NONE_SAID, Attributes
from mailpoller.core.classification import Bounce
from mailpoller.core.message import Claim, MessageRef, RawMessage
from mailpoller.core.record import record

QUARANTINE = "quarantine"
"""The reserved name of the queue that quarantined messages go to."""

Payload = Literal["summary", "parsed", "raw"]


@record
class Event:
    """A message as CloudEvents 1.0 has it: context attributes, and data. All of it is rendered, and may be had in the
    content mode that a sink's protocol asks for (CloudEvents 1.0.2 section 3.1, and the protocol bindings).

    ``envelope``: the context attributes as one JSON object; ``pieces``: the data, a JSON object, in pieces. UTF-8,
    without a line break. What several queues have in common they share.
    """

    envelope: bytes
    pieces: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Octets of :meth:`structured`."""
        return len(self.envelope) + len(_DATA) + sum(map(len, self.pieces))

    def structured(self) -> bytes:
        """Structured mode: one JSON object, the data among the attributes."""
        return b"".join((self.envelope[:-1], _DATA, *self.pieces, b"}"))

    def data(self) -> bytes:
        """Binary mode: the data alone, whose attributes go beside it; see :meth:`context`."""
        return b"".join(self.pieces)

    def context(self) -> Mapping[str, str]:
        """Binary mode: the attributes by name, each as its canonical string (CloudEvents 1.0.2 section 2.2)."""
        found: dict[str, object] = json.loads(self.envelope)
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


_DATA = b',"data":'


@record
class Blob:
    """Raw octets that an event refers to and does not hold. ``sha256``: 32 octets; ``size`` in octets; ``href``: where
    a consumer finds them, a URI."""

    sha256: bytes
    size: int
    href: str


@record
class Delivery:
    """One message on its way to one queue: attributes, data, octets.

    ``attributes``: what was said of it. ``event``: what it says itself, for programs.
    ``octets_wanted``: the queue is configured to hold the raw octets. A sink whose ``octets_place`` is ``beside`` takes
    them from ``raw``; for one where it is ``inside`` they are in the event already. ``blob``: the event names them
    instead, and they are not wanted; by then they are held there.
    """

    delivery_id: str
    mid: str
    queue: str
    event: Event
    raw: RawMessage
    octets_wanted: bool = False
    attributes: Attributes = NONE_SAID
    blob: Blob | None = None


@final
@record
class Receipt:
    """A sink's word that it holds the delivery so that it survives a power cut.

    ``reference`` is where the sink put it, for humans. ``repeated``: it held this delivery id already.
    Only a sink makes one, with the seal that comes with its port (``mailpoller.core.seals.sink``).
    """

    if TYPE_CHECKING:
        seal: InitVar[
            Never
        ]  # nothing is a Never, so neither the class nor ``replace`` can be called with what they ask for
    delivery_id: str
    reference: str = ""
    repeated: bool = False

    def __init__(self, seal: Never, *more: Never) -> None:
        raise TypeError("only a sink makes a receipt: see mailpoller.core.seals.sink")


@record
class Refusal:
    """A sink's word that it did not take the delivery. ``permanent``: and never will; else try again later.

    ``blame``: whose trouble it is, as far as the sink can tell. What is the ``queue``'s is never counted against the
    message, however often it happens. ``unasked``: the sink refused it by itself (it is too large, say), so that this
    says nothing of how the queue fares.
    """

    delivery_id: str
    reason: str
    permanent: bool = False
    blame: Literal["message", "queue"] = "message"
    unasked: bool = False


@record
class Disposition:
    """What is done on the server to a settled message. All empty: leave it as it is.

    Order: seen and flags first, then either move or delete. ``after``: these two are done so long after it was settled,
    of at most ``max_per_poll`` messages at once; neither a ledger nor a session is given one with it.
    """

    seen: bool = False
    flags: tuple[str, ...] = ()
    move: str | None = None
    delete: bool = False
    after: timedelta | None = None
    max_per_poll: int = 100

    @property
    def leaves(self) -> bool:
        """True if there is nothing to do."""
        return not (self.seen or self.flags or self.move or self.delete)

    @property
    def at_once(self) -> Disposition:
        """What is done as soon as it is settled."""
        return self if self.after is None else Disposition(seen=self.seen, flags=self.flags)

    @property
    def later(self) -> Disposition | None:
        """All that is done in the end, if some of it waits."""
        if self.after is None:
            return None
        return Disposition(seen=self.seen, flags=self.flags, move=self.move, delete=self.delete)


LEAVE = Disposition()

Cause = Literal["", "absent", "doubtful", "machine", "unprocessable", "refused", "queue"]
"""Why a message is put off. Empty: it could not be fetched. ``absent``: a look missed it. ``doubtful``: its octets had
no proper end. ``machine``: something is short here. ``unprocessable``: we failed to process it. ``refused``: a queue
did not take it, for its own sake; ``queue``: for the queue's, or there is none."""

OutcomeKind = Literal["delivered", "quarantined", "discarded", "gone", "repeated", "skipped", "doubtful"]
"""What has become of a message.

``gone``: it left the mailbox before we had it; asked for by name from time to time, and claimed anew when it is there.
``repeated``: equal octets were settled in an earlier epoch. ``doubtful``: its octets never came with a proper end; a
copy of what came is in quarantine, and the original stays untouched.
``skipped``: it was there before the mailbox's first run and ``start`` does not want it.
"""


@record
class Outcome:
    """What has become of one claim, with all that the ledger keeps of it.

    ``receipts``: queue -> the sink's word, of every queue that holds it. ``fingerprint``: SHA-256 of the octets, or
    None if they were never held whole. ``identity`` and ``received`` are by what the name's bearer is known again.
    ``conversation``: the id that its event tells, "" if none could be told, or None if nobody looked; what answers it
    belongs there too.
    The rest serves ``trace``: ``rules`` that matched, ``sender``, ``message_id``, ``repeat_of`` (the mid of an
    earlier message with equal octets). ``acknowledgement``: what is owed to its sender from this commit on.
    ``bounce``: what it tells of a mail that may be one of ours, and will not arrive. ``delivered_to``: the mailbox's
    address that it came to, where its answers depend on that; else "".
    """

    claim: Claim
    kind: OutcomeKind
    disposition: Disposition
    receipts: Mapping[str, str]
    reason: str = ""
    rules: tuple[str, ...] = ()
    fingerprint: bytes | None = None
    size: int | None = None
    message_id: str = ""
    sender: str = ""
    repeat_of: str | None = None
    identity: bytes | None = None
    received: datetime | None = None
    conversation: str | None = None
    acknowledgement: Acknowledgement | None = None
    bounce: Bounce | None = None
    delivered_to: str = ""


@final
@record
class Settlement:
    """Proof that the ledger has committed an outcome: the only thing that lets a session change the mailbox.

    Only a ledger makes one, with the seal that comes with its port (``mailpoller.core.seals.ledger``).
    """

    if TYPE_CHECKING:
        seal: InitVar[
            Never
        ]  # nothing is a Never, so neither the class nor ``replace`` can be called with what they ask for
    ref: MessageRef
    mid: str
    kind: OutcomeKind
    disposition: Disposition

    def __init__(self, seal: Never, *more: Never) -> None:
        raise TypeError("only a ledger makes a settlement: see mailpoller.core.seals.ledger")


@record
class Question:
    """The answer to a ref whose size or date is not what it was: perhaps another message bears the name now.

    ``identity`` is that of the known bearer; who has the header of what bears it now decides (``Ledger.identified``).
    Until then nothing is done with either. ``left_out_at``: the known bearer was never fetched, but left out by
    ``start`` at this instant (aware), and has no identity; then it is another message whose header says that it came
    later. ``message_id``: all that is known of a bearer that an earlier version fetched, which kept no identity.
    """

    ref: MessageRef
    mid: str
    identity: bytes
    left_out_at: datetime | None = None
    message_id: str = ""


@record
class Held:
    """The answer to a ref that must not be worked on now: ``until`` then, or by another instance."""

    ref: MessageRef
    until: datetime
    reason: str = ""


@record
class Disposed:
    """What the server said to a disposition.

    ``applied``: it holds (also if the message had left the folder meanwhile). ``failed``: it cannot succeed as
    configured (no right, no such folder), tried again seldom. ``pending``: not known, tried again soon.
    """

    settlement: Settlement
    state: Literal["applied", "failed", "pending"]
    reason: str = ""
