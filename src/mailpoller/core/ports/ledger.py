"""What the engine asks of a ledger."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

from mailpoller.core.delivery import Disposed, Held, Outcome, Question, Settlement
from mailpoller.core.message import Account, Claim, Folder, MessageRef, Position
from mailpoller.core.ports.records import (
    AlarmEdge,
    Census,
    Fault,
    FolderState,
    Heirless,
    QueueRecord,
    Sight,
    Story,
    Stuck,
    Traits,
)
from mailpoller.core.ports.sink import Mark


class Ledger(Protocol):
    """The durable record of claims, receipts and outcomes.

    Every method that changes something has committed before it returns, in one transaction, and raises
    :class:`LedgerUnavailable` when it could not: then nothing of it is known to be recorded. Cancelling a caller
    never tears a commit. All instants are aware UTC.
    """

    # --- folders -----------------------------------------------------------------------------------------------
    async def open_folder(self, folder: Folder, account: Account, *, formerly: str | None = None) -> FolderState:
        """Register the folder and its epoch if they are new, and tell what is known.

        ``formerly``: the mailbox's earlier name; its rows are renamed first, once. Another epoch than the last one
        (UIDVALIDITY, host or user) begins a new one under the same name.
        """

    async def begin_anew(self, folder: Folder, reason: str) -> None:
        """The numbering of this epoch was set back: a new epoch begins under the same name of an epoch.
        What a listing shows there under a known name, with the same size and date, stays what it was, under its mid.
        :meth:`open_folder` tells the new state."""

    async def heirless(self, folder: Folder, *, limit: int, earlier: bool) -> Sequence[Heirless]:
        """At most ``limit`` messages whose names are gone and that a queue may hold: suspects whose names a whole
        listing lacked; with ``earlier`` also suspects of earlier epochs, and what waits there and was brought to some
        of its queues."""

    async def inherit(self, claim: Claim, former: Heirless) -> Claim:
        """A claimed message is what ``former`` was, under a new name: it goes on under the former mid, with its
        receipts, so that a queue that holds it knows it again. The former name is given up. The claim as it is now;
        as it was if ``former`` is not there any more."""

    async def strange(self, folder: Folder, doubtful: bool) -> None:
        """Keep when a survey first showed what we should know and do not (``doubtful``), or that it shows it no
        more."""

    async def advance(self, folder: Folder, position: Position) -> None:
        """Record how far the listing got. Called only after all that it covers is recorded."""

    async def plan(self, folder: Folder, refs: Sequence[MessageRef], position: Position | None) -> None:
        """Keep what a first listing shows, in one commit, before any of it is worked on: what ``start`` wants is
        decided once, whatever becomes of the messages' flags, of the queues and of us.
        The folder is advanced to ``position``, unless that is None."""

    async def planned(self, folder: Folder) -> Sequence[MessageRef]:
        """What was planned and is not recorded as a message of its own yet; nothing once the folder is complete."""

    async def complete(self, folder: Folder) -> None:
        """A full listing of this epoch was worked through: fingerprints stop suppressing repeats in it."""

    async def unknown(self, folder: Folder, refs: Sequence[MessageRef]) -> int:
        """An estimate of how many of ``refs`` were never settled in an earlier epoch of this folder: those whose size
        (as listed then and now) no earlier message had. A size counts as often as it occurred; no size is unknown."""

    async def left(self, folder: Folder) -> Collection[tuple[int | None, datetime | None]]:
        """Size, as listed, and date of the messages that no earlier epoch of this folder settled;
        None where it was not told."""

    async def hold(self, folder: Folder, reason: str) -> bool:
        """Note that an operator must decide about this epoch (``mailpoller accept``).
        False: one has decided meanwhile, and that stands."""

    async def accept(self, mailbox: str, how: Literal["baseline", "replay", "absence"]) -> int:
        """Release the held folders of a mailbox; or (``absence``) let what its folders do not show any more count as
        gone. Their number."""

    # --- messages ----------------------------------------------------------------------------------------------
    async def claim(self, refs: Sequence[MessageRef]) -> Sequence[Claim | Held | Settlement | Question]:
        """Claim each ref, same order and length. One whose size or date contradicts what is known of its name, and
        whose known bearer has an identity, is answered by a Question, and nothing is changed.
        A name that a whole listing lacked after its message was deleted is free: it is claimed under another mid.
        A message that is settled is answered by its settlement if its disposition is due, and by Held with reason
        ``settled`` if there is nothing to do; one that is deferred and not due by Held;
        one that is claimed in this process already by Held with reason ``claimed``."""

    async def recognise(self, refs: Sequence[MessageRef]) -> Sequence[Sight]:
        """Compare what the mailbox shows with what is known, same order and length;
        nothing is changed, but that what was known without a date gets one."""

    async def identified(self, same: Sequence[MessageRef], other: Sequence[MessageRef]) -> None:
        """Answer questions. ``same``: the known bearers, whose size and date are now these.
        ``other``: the names bear other messages now; what is known of the former bearers is kept under a name that no
        server gives, undelivered ones as ``gone``, and what bears the name now is due, under a mid of its own."""

    async def census(self, folder: Folder, refs: Sequence[MessageRef]) -> Census:
        """Take a listing of a whole mailbox: names that it lacks are absent from now on if they were not yet, those
        that it has are not."""

    async def unsettled(self, folder: Folder, *, limit: int) -> Sequence[MessageRef]:
        """At most ``limit`` refs of messages that have no outcome yet and are not claimed."""

    async def lost(self, folder: Folder, *, limit: int) -> Sequence[MessageRef]:
        """At most ``limit`` refs of messages that ended as ``gone`` before all of their queues had them, or as
        ``doubtful``, the latest first."""

    async def revive(self, refs: Sequence[MessageRef]) -> int:
        """These are there: messages that had ended as ``gone`` are due, and those that had ended as ``doubtful`` and
        show another size or date now. Their number."""

    async def sighted(
        self, folder: Folder, present: Sequence[MessageRef], absent: Sequence[MessageRef]
    ) -> tuple[int, int]:
        """Keep which messages a look showed, and which it missed (the first such look counts).
        How many of the folder's unsettled messages are absent now, and how many there are."""

    async def blame(self, refs: Sequence[MessageRef]) -> None:
        """The session was lost, or came to a standstill, while these had been asked for and had not come: one more
        time."""

    async def blamed(self, folder: Folder) -> Sequence[tuple[MessageRef, int]]:
        """Unsettled messages that are to blame, perhaps, for lost sessions, and for how many."""

    async def absolve(self, refs: Sequence[MessageRef]) -> None:
        """They came, and the session lived."""

    async def suspects(self, folder: Folder, *, limit: int, down: Collection[str] = ()) -> Sequence[MessageRef]:
        """At most ``limit`` refs of suspects to be worked on now, those without strikes first; without those that wait
        for a queue named in ``down``."""

    async def due(self, folder: Folder, *, limit: int, down: Collection[str] = ()) -> Sequence[MessageRef]:
        """At most ``limit`` refs of others to be worked on again now: messages whose disposition is due, then deferred
        messages whose time has come, oldest first; without those that wait for a queue named in ``down``."""

    async def at_risk(self, claim: Claim) -> None:
        """Mark a suspect just before it is parsed: a crash from here until :meth:`cleared` is a strike."""

    async def cleared(self, claim: Claim) -> None:
        """The suspect has its verdict: no risk, no strikes."""

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Settlement]:
        """Record receipts and outcomes in one commit; same order and length. After it the settlements are made, with
        :class:`mailpoller.core.seals.ledger.SealedSettlement` and in no other way. An outcome whose disposition
        leaves the message needs no :meth:`disposed`; the others are on their way to the server, and due again if no
        word of it comes within a minute, or when the ledger is opened anew."""

    async def defer(
        self,
        claims: Sequence[Claim],
        *,
        until: datetime,
        reason: str,
        queue: str | None = None,
        route: Sequence[str] | None = None,
        receipts: Mapping[str, str] | None = None,
        traits: Sequence[Traits | None] | None = None,
        cause: Literal["", "absent", "doubtful"] = "",
    ) -> None:
        """Put claims off. ``queue``: the one they wait for, which is no attempt of theirs that failed. ``route`` and
        ``receipts`` are recorded if given, for all of them alike, and never forgotten by a later call without them.
        ``traits``: of those that were fetched, in the order of the claims. ``cause``: a look missed them (from the
        first such look on they are absent), or their octets had no proper end;
        neither is an attempt of theirs that failed."""

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give claims back unworked (shutdown, lost session): due at once, no strike, no attempt counted."""

    async def disposed(self, results: Sequence[Disposed]) -> None:
        """Record what the server said. ``failed`` is due again after a day, ``pending`` after a minute."""

    async def repeats(self, mailbox: str, fingerprints: Sequence[bytes]) -> Mapping[bytes, str]:
        """fingerprint -> mid of the earliest message of this mailbox with equal octets, of those that have one: the
        earliest settled one, else one that waits and that some queue holds already."""

    async def former(self, folder: Folder, fingerprints: Sequence[bytes]) -> Mapping[bytes, Sequence[str]]:
        """fingerprint -> mids of messages with equal octets that were settled in another epoch of this folder, or
        under this name by an earlier bearer, and that no message stands for yet: each of them stands for one message,
        not for all that look alike."""

    async def prune(self, folder: Folder, present: Collection[str], *, before: datetime) -> int:
        """Forget settled messages of this folder (and of its former epochs) that were settled before ``before`` and
        that two prunings, at least a day apart, both missed among the uids ``present``; their number.
        Called only with a listing that shows everything. When it was is kept (``FolderState.pruned_at``)."""

    # --- mailboxes ---------------------------------------------------------------------------------------------
    async def polled(self, polls: Mapping[str, datetime]) -> None:
        """Keep when mailboxes completed a poll last."""

    async def last_polls(self) -> Mapping[str, datetime]:
        """Mailbox -> when it completed a poll last, of those that did."""

    async def first_runs(self) -> Mapping[str, datetime]:
        """Mailbox -> when a folder of it was first opened."""

    async def stuck(self, before: datetime) -> Sequence[Stuck]:
        """The messages of all mailboxes that have waited since ``before`` or longer for something else than a queue,
        oldest first: those that were put off again and again, and those whose disposition is pending.
        At most 1,000 of each, and of the dispositions of one folder so many are looked at, those that are due first.
        Costs no more when many messages wait for a queue."""

    async def hasten(self, mailbox: str) -> int:
        """Dispositions of this mailbox that are pending are due now; their number."""

    async def mailboxes(self) -> Sequence[str]:
        """The names that the ledger has rows of."""

    async def forget(self, mailbox: str) -> int:
        """Drop everything about a mailbox: the number of messages forgotten."""

    async def counts(self, mailbox: str) -> Mapping[str, int]:
        """How many messages are ``claimed``, ``deferred``, ``settled``, ``undisposed``."""

    # --- queues ------------------------------------------------------------------------------------------------
    async def queue_mark(self, name: str) -> QueueRecord | None:
        """What is known of the queue of this name; None if no receipt of it was noted, or it was adopted since."""

    async def note_queue(self, name: str, mark: Mark, receipts: int) -> None:
        """Note the queue's mark, and ``receipts`` more of them now. Another identity than the one that is known
        begins anew."""

    async def adopt_queue(self, name: str) -> QueueRecord | None:
        """Forget what is known of the queue of this name, so that what lies in its place is taken for it: what was
        known."""

    # --- alarms and faults -------------------------------------------------------------------------------------
    async def raise_alarm(self, key: str, group: str, summary: str) -> bool:
        """True if this is the edge: the alarm was not raised before."""

    async def clear_alarm(self, key: str) -> AlarmEdge | None:
        """The alarm that ends, or None if there was none."""

    async def alarms(self) -> Sequence[AlarmEdge]:
        """Every alarm that is raised."""

    async def notified(self, keys: Sequence[str]) -> None:
        """The mail about these alarms has been sent."""

    async def note(self, faults: Sequence[Fault]) -> None:
        """Keep faults for ``mailpoller errors``: the last 1,000 of each subject."""

    async def faults(self, subject: str | None = None, *, limit: int = 1000) -> Sequence[Fault]:
        """Newest first."""

    async def clear_faults(self, subject: str | None = None) -> int: ...

    # --- operators ---------------------------------------------------------------------------------------------
    async def trace(self, term: str, *, limit: int = 50) -> Sequence[Story]:
        """The stories of messages whose mid, Message-ID, uid or sender is ``term``, newest first."""

    async def reopen(self, mid: str) -> MessageRef:
        """Make a settled message due once more under a new generation; its outcome becomes a former one.
        Raises :class:`MessageGone` if it is unknown."""

    async def close(self) -> None: ...
