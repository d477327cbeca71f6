"""What a ledger tells of its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from mailpoller.core.message import Folder, MessageRef, Position
from mailpoller.core.ports.sink import Mark
from mailpoller.core.record import record


@record
class FolderState:
    """What the ledger knows of a folder in its present epoch.

    ``first_run``: this mailbox was never polled before. ``epoch_changed``: the folder was polled in another epoch,
    and no listing of this one was completed yet. ``complete``: a full listing of this epoch was worked through.
    ``baseline_at``: the instant of the mailbox's first run. ``settled_before``: every earlier epoch's first listing
    had been worked through, so that mail older than ``baseline_at`` is known to be settled. ``accepted``: what an
    operator decided for a held epoch change. ``left_before``: some mail of an earlier epoch was never settled, and
    may be older. ``strange_at``: when a survey first showed names that we should know (see :meth:`Ledger.strange`).
    ``pruned_at``: see :meth:`Ledger.prune`. ``absence_accepted``: an operator said that what is absent is gone.
    ``set_back``: every earlier epoch was this same numbering, before it was set back.
    ``planned``: see :meth:`Ledger.plan`. ``heirless``: there may be messages for :meth:`Ledger.heirless` to tell of.
    """

    folder: Folder
    position: Position | None
    first_run: bool
    epoch_changed: bool
    complete: bool
    baseline_at: datetime
    settled_before: bool = True
    accepted: Literal["baseline", "replay"] | None = None
    left_before: bool = False
    strange_at: datetime | None = None
    pruned_at: datetime | None = None
    absence_accepted: bool = False
    planned: bool = False
    heirless: bool = False
    set_back: bool = False


@record
class AlarmEdge:
    """An alarm as the ledger keeps it: raised at an instant, and whether its mail has been sent."""

    key: str
    group: str
    summary: str
    raised_at: datetime
    notified: bool


@record
class Fault:
    """One line of ``mailpoller errors``: when, of which mailbox or outgoing, which log event, in words."""

    at: datetime
    subject: str
    event: str
    detail: str
    mid: str = ""


@record
class FormerOutcome:
    """What had become of a message before an operator asked for it once more (``mailpoller redeliver``)."""

    settled_at: datetime
    outcome: str
    reason: str
    rules: tuple[str, ...]
    receipts: Mapping[str, str]


@record
class Story:
    """One message as the ledger knows it, for ``mailpoller trace``. Instants are aware, absent ones None.
    ``former``: its earlier outcomes, oldest first, of those that are kept. ``delivered_to``: see
    :class:`~mailpoller.core.delivery.Outcome`."""

    mid: str
    mailbox: str
    folder: str
    epoch: str
    uid: str
    state: str
    outcome: str
    reason: str
    rules: tuple[str, ...]
    receipts: Mapping[str, str]
    disposition: str
    disposition_state: str
    disposition_reason: str
    size: int | None
    message_id: str
    sender: str
    repeat_of: str | None
    strikes: int
    attempts: int
    claimed_at: datetime | None
    due_at: datetime | None
    settled_at: datetime | None
    disposed_at: datetime | None
    former: Sequence[FormerOutcome] = ()
    delivered_to: str = ""


@record
class Sight:
    """How what a mailbox shows under a name compares with what the ledger knows of it.

    ``unknown``: the ledger does not know the name. ``same``: nothing speaks against it.
    ``question``: size or date are others, and ``identity`` (that of the known bearer) decides, or else
    ``left_out_at`` or ``message_id`` (see :class:`~mailpoller.core.delivery.Question`).
    ``open``: not settled yet, or settled and not disposed of.
    """

    ref: MessageRef
    state: Literal["unknown", "same", "question"]
    mid: str = ""
    identity: bytes | None = None
    open: bool = False
    left_out_at: datetime | None = None
    message_id: str = ""


@record
class Heirless:
    """A message that may have been brought to a queue, is not settled, and whose name is gone, with its numbering or
    without.

    ``number`` and ``uid`` are the ledger's own. ``identity`` is None if it was on its way when the process died;
    then no more is known of it than ``size`` and ``received``, as far as they were listed.
    """

    number: int
    uid: str
    mid: str
    identity: bytes | None = None
    size: int | None = None
    received: datetime | None = None
    generation: int = 0


@record
class Stuck:
    """Something about one message that should have come to an end long ago, and that waits for no queue.

    ``what``: the message is not had (``fetch``), its name's bearer cannot be told (``question``), or what is to be
    done to it on the server is not known to be done (``disposition``). ``since`` is when that began, and ``reason``
    why, the last time.
    """

    what: Literal["fetch", "question", "disposition"]
    ref: MessageRef
    mid: str
    since: datetime
    reason: str


@record
class Census:
    """What a listing of a whole mailbox came to, beside what the last one did.

    ``left``: how many messages were left there and are known. ``vanished``: those of them that it lacks, for the
    first time, as size (None: not told) -> how many. ``strangers``: so those that the ledger does not know; not told
    where nothing vanished. There may be a million. ``changed``: some are absent, or absent no more, which
    ``note_absent`` is to record.
    """

    left: int
    vanished: Counter[int | None]
    strangers: Counter[int | None]
    changed: bool = False


@record
class Traits:
    """What identifies a message that was fetched: kept when it is put off, so that ``trace`` finds it and its name's
    bearer is known.

    ``fingerprint``: of octets that a queue holds already, so that a repeat under another mid can say what it repeats.
    ``conversation``: what such a queue was told, as an outcome has it.
    """

    identity: bytes | None = None
    received: datetime | None = None
    size: int | None = None
    message_id: str = ""
    sender: str = ""
    fingerprint: bytes | None = None
    conversation: str | None = None


@record
class QueueRecord:
    """What the ledger knows of the queue of one name: its mark as last told, how many receipts of it were noted, and
    when the first and the last of them were."""

    name: str
    mark: Mark
    receipts: int
    first_at: datetime
    last_at: datetime


@record
class Standing:
    """How a mailbox's messages stand: how many are in hand, put off, settled, and settled with something still to be
    done on the server."""

    claimed: int = 0
    deferred: int = 0
    settled: int = 0
    undisposed: int = 0

    @property
    def waiting(self) -> int:
        """Messages without an outcome."""
        return self.claimed + self.deferred


@record
class Pause:
    """Something that an operator paused: since when, and who it was."""

    at: datetime
    who: str


@record
class Change:
    """One line of ``mailpoller changes``: when, what happened (``verb.pause``, ``alarm.raised``,
    ``configuration.changed``, …), who did it (empty: nobody), in words."""

    at: datetime
    event: str
    who: str
    detail: str


@record
class Wanted:
    """Which settled messages are wanted: settled from ``since`` to before ``until``, and whatever else is not None.
    ``domain``: of the sender's address. ``queue``: one that holds it."""

    since: datetime
    until: datetime | None = None
    mailbox: str | None = None
    outcome: str | None = None
    sender: str | None = None
    domain: str | None = None
    queue: str | None = None
