"""The ports: what the engine asks of sources, sinks, rules, ledgers and outgoing mail, and nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal, Protocol, runtime_checkable

from mailpoller.core.delivery import (
    Delivery,
    Disposed,
    Disposition,
    Held,
    Outcome,
    Question,
    Receipt,
    Refusal,
    Settlement,
)
from mailpoller.core.message import (
    Account,
    Claim,
    Folder,
    Gone,
    Message,
    MessageRef,
    Page,
    Position,
    RawMessage,
    Survey,
)
from mailpoller.core.verdict import Match


class Clock(Protocol):
    """Time, injected. ``now`` is aware UTC; ``monotonic`` counts seconds; ``sleep`` ends when cancelled."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class Wake(Enum):
    """Why :meth:`Session.wait` returned."""

    NEWS = "news"
    """The server says that something changed."""
    LIMIT = "limit"
    """The time asked for has passed."""
    RENEW = "renew"
    """The session wants to be closed and opened anew (its token ends, the server announced a shutdown)."""


@dataclass(frozen=True, slots=True)
class Start:
    """Which messages a listing without a position shows.

    ``now``: none that are there already. ``unseen``, ``all``: as they say. ``since``: those that the server
    received at ``instant`` (aware) or later. ``dated``: the refs are to have the server's date, even where that costs.
    """

    kind: Literal["now", "unseen", "all", "since"]
    instant: datetime | None = None
    dated: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a live probe, as ``check --live`` shows it.

    ``name``: dns, tcp, tls, login, folder, message, disposition … ``advice`` says what a sysadmin can do, in the
    provider's own terms; it is empty when ``ok``.
    """

    name: str
    ok: bool
    elapsed: timedelta
    detail: str = ""
    advice: str = ""


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
        """What the open folder shows behind ``position``, to be compared with what the ledger knows. Asked at every poll, before the
        listing: a source shows it at the start of a session, and again whenever there is something new to compare. A source whose
        names are never given twice has nothing to show."""

    async def look(self, refs: Sequence[MessageRef]) -> Sequence[MessageRef | None]:
        """What the open folder shows under each of these names now: the ref with what the mailbox says of it, size and date, or None if it
        shows no such message. Same order and length; changes nothing. A source whose names are never given twice may give back refs
        without asking, if a disposition of what is not there does no harm."""

    def fetch(self, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        """Download at most the first ``limit`` octets of each message, in any order; every claim is answered
        exactly once. Never changes a flag. What lies beyond the limit is not asked for, whatever size was announced.
        Claims are of the folder that is open. Octets without a proper end are given with a ``doubt``, or not at all.

        The reader never waits for the consumer: octets that were asked for are taken in, to memory or spool.
        """

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        """Carry out each settlement's disposition, in the folder that is open. Idempotent; same order and length.
        In shadow mode nothing is changed and all are ``applied``. Only what the server shows to be done is ``applied``: OK is no
        evidence."""

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
        """Octets that have come, counted as they are read. A session that goes on by a new connection may begin anew."""


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


class Sink(Protocol):
    """The kind of thing a queue is."""

    stores_octets: bool
    """True: takes the raw octets from ``Delivery.raw`` when they are wanted. False: wants them inside the event."""

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """Return when every delivery with a receipt would survive a power cut: same order, same length.
        A receipt is made with :class:`mailpoller.core.seals.sink.SealedReceipt`, and in no other way.

        A raise (:class:`TransientError`) means that none is known to be held. A repeated delivery id is
        answered with a receipt, and stored once where the sink can tell.
        """

    async def check(self) -> None:
        """Raise :class:`TransientError` with the reason if a delivery could not succeed now. Delivers nothing, and leaves
        no trace: what a first delivery would create is not created (``check --live`` may ask for a queue that is not there yet)."""

    async def close(self) -> None:
        """Free what is held. After this nothing is called."""


@runtime_checkable
class Upkept(Protocol):
    """A sink that has work to do now and then, also when nothing is delivered."""

    async def upkeep(self) -> str | None:
        """Called every minute. What an operator should know although deliveries succeed, or None. May raise
        :class:`TransientError`."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Which queue lies in a sink's place, as the queue itself says.

    ``identity``: random, made when the queue was begun, kept inside of it. ``height``: grows as it is delivered to and is never
    lowered by whoever takes from it, so that an older copy is known by it; ``place``: where it lies, for an operator.
    """

    identity: str
    height: int
    place: str

    def unlike(self, found: Mark | None, place: str) -> str:
        """Why what was ``found`` at ``place`` is not the queue of this mark as it was when it bore it, in words; else empty."""
        lay = "" if self.place == place else f" (it lay at {self.place})"
        if found is None:
            return f"it was removed or replaced{lay}: nothing that bears our mark lies at {place}"
        if found.identity != self.identity:
            return f"it was removed or replaced{lay}: another queue lies at {place}"
        if found.height < self.height:
            return f"it was replaced{lay}: an older copy lies at {place}, which got to {found.height:,} and not to {self.height:,}"
        return ""


@runtime_checkable
class Marked(Protocol):
    """A sink whose queue bears a :class:`Mark`, so that one that vanished is not begun anew in silence.

    Until :meth:`expect` is called the sink takes what is there, and begins what is missing. What it delivers to bears a mark from
    the first delivery on; where none can be written, :meth:`mark` stays None.
    """

    async def mark(self) -> Mark | None:
        """The mark of what lies there now; None if nothing does, or bears none. Leaves no trace.

        Raises :class:`TransientError` if it cannot be told.
        """

    async def renewed(self) -> Mark | None:
        """As :meth:`mark`, after the queue wrote down durably how far it has got. Raises :class:`TransientError`."""

    def expect(self, mark: Mark | None) -> None:
        """From now on deliver to the queue with this mark alone: ``deliver``, ``check`` and ``upkeep`` raise
        :class:`~mailpoller.core.errors.QueueVanished` for any other and make nothing. None: take what is there, or begin it."""

    def place(self) -> str:
        """Where the queue lies, or is to lie."""


@runtime_checkable
class Recalling(Protocol):
    """A sink that can tell what its queue was handed, which proves what a process had brought there that died before it could note it."""

    async def holds(self, delivery_ids: Collection[str]) -> Collection[str]:
        """Those that the queue holds, or held until somebody took them. Changes nothing. Raises :class:`TransientError`."""


@runtime_checkable
class Consumed(Protocol):
    """A sink that can tell whether anybody takes from its queue."""

    async def untaken(self) -> str | None:
        """Called every minute. In words, since when nobody has taken from the queue although there is something to take, if
        that is too long ago; else None. May raise :class:`TransientError`."""


@runtime_checkable
class Unserving(Protocol):
    """A sink of several recipients, of whom some may be refused for good while the others are served."""

    def unserved(self) -> str | None:
        """Called after each delivery and every minute. Which of them get nothing of what is delivered, and why, in words; empty if all
        get it; None as long as that is not known."""


@runtime_checkable
class Probed(Protocol):
    """A sink that has more to say to an operator than whether it takes mail."""

    def probe(self) -> AsyncIterator[Stage]:
        """What ``check --live`` shows, in place of :meth:`Sink.check`'s one word. Delivers nothing."""


@runtime_checkable
class Expiring(Protocol):
    """A source or an outgoing whose login is known to end on a date."""

    def expiries(self) -> Sequence[tuple[str, datetime]]:
        """What ends when (aware UTC), as far as it is known now. Each is named in words that tell it from every other one
        (``the client secret of … at …``), without a secret. May read small files, so it is called in a thread."""


class Rule(Protocol):
    """What judges a message."""

    name: str

    def judge(self, message: Message) -> Match | None:
        """None if the rule has nothing to say. Takes bounded time on any message; an exception is a bug."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that we send: envelope and octets (CRLF line ends). An empty ``sender`` is the null sender."""

    sender: str
    recipients: tuple[str, ...]
    octets: bytes


class Answer(str):
    """A relay's answer to a mail that it took for at least one recipient: its words, and for whom it did not take it.

    ``later``: the recipients that it put off, who want the mail again and alone. ``never``: those that it refused for good, with
    its words to each.
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
        """Return the relay's answer once it has taken the mail for at least one recipient; an :class:`Answer` says for whom not.

        Raises :class:`MessageRejected` if it will never take it for any, :class:`CredentialsRefused`, or
        :class:`TransientError`.
        """

    def probe(self) -> AsyncIterator[Stage]:
        """Try every stage up to the login, sending nothing; ends after the first failed stage."""

    async def close(self) -> None: ...


@runtime_checkable
class Inquiring(Protocol):
    """An outgoing that can ask whether a mail would be taken, without sending one."""

    def inquire(self, recipients: Sequence[str]) -> AsyncIterator[Stage]:
        """As :meth:`Outgoing.probe`, and on as far as SMTP's RCPT: a stage ``sender``, and a stage ``recipient`` for each, in their
        order, which ends at none of them. No mail is begun."""


@dataclass(frozen=True, slots=True)
class FolderState:
    """What the ledger knows of a folder in its present epoch.

    ``first_run``: this mailbox was never polled before. ``epoch_changed``: the folder was polled in another epoch,
    and no listing of this one was completed yet. ``complete``: a full listing of this epoch was worked through.
    ``baseline_at``: the instant of the mailbox's first run. ``settled_before``: every earlier epoch's first listing had
    been worked through, so that mail older than ``baseline_at`` is known to be settled. ``accepted``: what an
    operator decided for a held epoch change. ``left_before``: some mail of an earlier epoch was never settled, and may be older.
    ``strange_at``: when a survey first showed names that we should know (see :meth:`Ledger.strange`). ``pruned_at``: see
    :meth:`Ledger.prune`. ``absence_accepted``: an operator said that what is absent is gone.
    ``set_back``: every earlier epoch was this same numbering, before it was set back. ``planned``: see :meth:`Ledger.plan`. ``heirless``: there may be messages for :meth:`Ledger.heirless` to tell of.
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


@dataclass(frozen=True, slots=True)
class AlarmEdge:
    """An alarm as the ledger keeps it: raised at an instant, and whether its mail has been sent."""

    key: str
    group: str
    summary: str
    raised_at: datetime
    notified: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of ``mailpoller errors``: when, of which mailbox or outgoing, which log event, in words."""

    at: datetime
    subject: str
    event: str
    detail: str
    mid: str = ""


@dataclass(frozen=True, slots=True)
class FormerOutcome:
    """What had become of a message before an operator asked for it once more (``mailpoller redeliver``)."""

    settled_at: datetime
    outcome: str
    reason: str
    rules: tuple[str, ...]
    receipts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Story:
    """One message as the ledger knows it, for ``mailpoller trace``. Instants are aware, absent ones None. ``former``: its earlier
    outcomes, oldest first, of those that are kept."""

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


@dataclass(frozen=True, slots=True)
class Sight:
    """How what a mailbox shows under a name compares with what the ledger knows of it.

    ``unknown``: the ledger does not know the name. ``same``: nothing speaks against it. ``question``: size or date are others, and
    ``identity`` (that of the known bearer) decides, or else ``left_out_at`` or ``message_id`` (see
    :class:`~mailpoller.core.delivery.Question`).
    ``open``: not settled yet, or settled and not disposed of.
    """

    ref: MessageRef
    state: Literal["unknown", "same", "question"]
    mid: str = ""
    identity: bytes | None = None
    open: bool = False
    left_out_at: datetime | None = None
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Heirless:
    """A message that may have been brought to a queue, is not settled, and whose name is gone, with its numbering or without.

    ``number`` and ``uid`` are the ledger's own. ``identity`` is None if it was on its way when the process died; then no more is known of
    it than ``size`` and ``received``, as far as they were listed.
    """

    number: int
    uid: str
    mid: str
    identity: bytes | None = None
    size: int | None = None
    received: datetime | None = None
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Stuck:
    """Something about one message that should have come to an end long ago, and that waits for no queue.

    ``what``: the message is not had (``fetch``), its name's bearer cannot be told (``question``), or what is to be done to it on the
    server is not known to be done (``disposition``). ``since`` is when that began, and ``reason`` why, the last time.
    """

    what: Literal["fetch", "question", "disposition"]
    ref: MessageRef
    mid: str
    since: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Census:
    """What a listing of a whole mailbox came to, beside what the last one did.

    ``left``: how many messages were left there and are known. ``vanished``: those of them that it lacks, for the first time.
    ``strangers``: those that the ledger does not know.
    """

    left: int
    vanished: Sequence[MessageRef]
    strangers: Sequence[MessageRef]


@dataclass(frozen=True, slots=True)
class Traits:
    """What identifies a message that was fetched: kept when it is put off, so that ``trace`` finds it and its name's bearer is known.

    ``fingerprint``: of octets that a queue holds already, so that a repeat under another mid can say what it repeats.
    """

    identity: bytes | None = None
    received: datetime | None = None
    size: int | None = None
    message_id: str = ""
    sender: str = ""
    fingerprint: bytes | None = None


@dataclass(frozen=True, slots=True)
class QueueRecord:
    """What the ledger knows of the queue of one name: its mark as last told, how many receipts of it were noted, and when the
    first and the last of them were."""

    name: str
    mark: Mark
    receipts: int
    first_at: datetime
    last_at: datetime


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
        """The numbering of this epoch was set back: a new epoch begins under the same name of an epoch. What a listing shows there under
        a known name, with the same size and date, stays what it was, under its mid. :meth:`open_folder` tells the new state."""

    async def heirless(self, folder: Folder, *, limit: int, earlier: bool) -> Sequence[Heirless]:
        """At most ``limit`` messages whose names are gone and that a queue may hold: suspects whose names a whole listing lacked; with
        ``earlier`` also suspects of earlier epochs, and what waits there and was brought to some of its queues."""

    async def inherit(self, claim: Claim, former: Heirless) -> Claim:
        """A claimed message is what ``former`` was, under a new name: it goes on under the former mid, with its receipts, so that a queue
        that holds it knows it again. The former name is given up. The claim as it is now; as it was if ``former`` is not there any more."""

    async def strange(self, folder: Folder, doubtful: bool) -> None:
        """Keep when a survey first showed what we should know and do not (``doubtful``), or that it shows it no more."""

    async def advance(self, folder: Folder, position: Position) -> None:
        """Record how far the listing got. Called only after all that it covers is recorded."""

    async def plan(self, folder: Folder, refs: Sequence[MessageRef], position: Position | None) -> None:
        """Keep what a first listing shows, in one commit, before any of it is worked on: what ``start`` wants is decided once, whatever
        becomes of the messages' flags, of the queues and of us. The folder is advanced to ``position``, unless that is None."""

    async def planned(self, folder: Folder) -> Sequence[MessageRef]:
        """What was planned and is not recorded as a message of its own yet; nothing once the folder is complete."""

    async def complete(self, folder: Folder) -> None:
        """A full listing of this epoch was worked through: fingerprints stop suppressing repeats in it."""

    async def unknown(self, folder: Folder, refs: Sequence[MessageRef]) -> int:
        """An estimate of how many of ``refs`` were never settled in an earlier epoch of this folder: those whose size
        (as listed then and now) no earlier message had. A size counts as often as it occurred; no size is unknown."""

    async def left(self, folder: Folder) -> Collection[tuple[int | None, datetime | None]]:
        """Size, as listed, and date of the messages that no earlier epoch of this folder settled; None where it was not told."""

    async def hold(self, folder: Folder, reason: str) -> bool:
        """Note that an operator must decide about this epoch (``mailpoller accept``). False: one has decided meanwhile, and that stands."""

    async def accept(self, mailbox: str, how: Literal["baseline", "replay", "absence"]) -> int:
        """Release the held folders of a mailbox; or (``absence``) let what its folders do not show any more count as gone. Their number."""

    # --- messages ----------------------------------------------------------------------------------------------
    async def claim(self, refs: Sequence[MessageRef]) -> Sequence[Claim | Held | Settlement | Question]:
        """Claim each ref, same order and length. One whose size or date contradicts what is known of its name, and whose known bearer has
        an identity, is answered by a Question, and nothing is changed. A name that a whole listing lacked after its message was deleted is
        free: it is claimed under another mid. A message that is settled is answered by its settlement if its
        disposition is due, and by Held with reason ``settled`` if there is nothing to do; one that is deferred and not
        due by Held; one that is claimed in this process already by Held with reason ``claimed``."""

    async def recognise(self, refs: Sequence[MessageRef]) -> Sequence[Sight]:
        """Compare what the mailbox shows with what is known, same order and length; nothing is changed, but that what was known without
        a date gets one."""

    async def identified(self, same: Sequence[MessageRef], other: Sequence[MessageRef]) -> None:
        """Answer questions. ``same``: the known bearers, whose size and date are now these. ``other``: the names bear other messages now;
        what is known of the former bearers is kept under a name that no server gives, undelivered ones as ``gone``, and what bears
        the name now is due, under a mid of its own."""

    async def census(self, folder: Folder, refs: Sequence[MessageRef]) -> Census:
        """Take a listing of a whole mailbox: names that it lacks are absent from now on if they were not yet, those that it has are not."""

    async def unsettled(self, folder: Folder, *, limit: int) -> Sequence[MessageRef]:
        """At most ``limit`` refs of messages that have no outcome yet and are not claimed."""

    async def lost(self, folder: Folder, *, limit: int) -> Sequence[MessageRef]:
        """At most ``limit`` refs of messages that ended as ``gone`` before all of their queues had them, or as ``doubtful``, the latest
        first."""

    async def revive(self, refs: Sequence[MessageRef]) -> int:
        """These are there: messages that had ended as ``gone`` are due, and those that had ended as ``doubtful`` and show another size or
        date now. Their number."""

    async def sighted(
        self, folder: Folder, present: Sequence[MessageRef], absent: Sequence[MessageRef]
    ) -> tuple[int, int]:
        """Keep which messages a look showed, and which it missed (the first such look counts). How many of the folder's unsettled messages
        are absent now, and how many there are."""

    async def blame(self, refs: Sequence[MessageRef]) -> None:
        """The session was lost, or came to a standstill, while these had been asked for and had not come: one more time."""

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
        ``receipts`` are recorded if given, for all of them alike, and never forgotten by a later call without them. ``traits``: of
        those that were fetched, in the order of the claims. ``cause``: a look missed them (from the first such look on they are absent), or
        their octets had no proper end; neither is an attempt of theirs that failed."""

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give claims back unworked (shutdown, lost session): due at once, no strike, no attempt counted."""

    async def disposed(self, results: Sequence[Disposed]) -> None:
        """Record what the server said. ``failed`` is due again after a day, ``pending`` after a minute."""

    async def repeats(self, mailbox: str, fingerprints: Sequence[bytes]) -> Mapping[bytes, str]:
        """fingerprint -> mid of the earliest message of this mailbox with equal octets, of those that have one: the earliest settled one,
        else one that waits and that some queue holds already."""

    async def former(self, folder: Folder, fingerprints: Sequence[bytes]) -> Mapping[bytes, Sequence[str]]:
        """fingerprint -> mids of messages with equal octets that were settled in another epoch of this folder, or under this name by an
        earlier bearer, and that no message stands for yet: each of them stands for one message, not for all that look alike."""

    async def prune(self, folder: Folder, present: Collection[str], *, before: datetime) -> int:
        """Forget settled messages of this folder (and of its former epochs) that were settled before ``before`` and that two
        prunings, at least a day apart, both missed among the uids ``present``; their number. Called only with a listing that shows
        everything. When it was is kept (``FolderState.pruned_at``)."""

    # --- mailboxes ---------------------------------------------------------------------------------------------
    async def polled(self, polls: Mapping[str, datetime]) -> None:
        """Keep when mailboxes completed a poll last."""

    async def last_polls(self) -> Mapping[str, datetime]:
        """Mailbox -> when it completed a poll last, of those that did."""

    async def first_runs(self) -> Mapping[str, datetime]:
        """Mailbox -> when a folder of it was first opened."""

    async def stuck(self, before: datetime) -> Sequence[Stuck]:
        """The messages of all mailboxes that have waited since ``before`` or longer for something else than a queue, oldest first: those
        that were put off again and again, and those whose disposition is pending. At most 1,000 of each, and of the dispositions
        of one folder so many are looked at, those that are due first. Costs no more when many messages wait for a queue."""

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
        """Note the queue's mark, and ``receipts`` more of them now. Another identity than the one that is known begins anew."""

    async def adopt_queue(self, name: str) -> QueueRecord | None:
        """Forget what is known of the queue of this name, so that what lies in its place is taken for it: what was known."""

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
        """Make a settled message due once more under a new generation; its outcome becomes a former one. Raises :class:`MessageGone` if it is unknown."""

    async def close(self) -> None: ...
