"""A ledger in memory that can fail at any step: for tests of whatever uses the Ledger port."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from mailpoller.core.delivery import Disposed, Held, Outcome, Settlement
from mailpoller.core.errors import LedgerUnavailable, MessageGone
from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Account, Claim, Folder, MessageRef, Position
from mailpoller.core.ports import AlarmEdge, Clock, Fault, FolderState, FormerOutcome, Story

P = ParamSpec("P")
T = TypeVar("T")

_FAULTS_KEPT = 1000
_FORMER_KEPT = 20


@dataclass(slots=True)
class MemoryFolder:
    """One folder in one epoch. ``folder``: as the source names it. ``id``: the same, with an epoch that no other
    account shares; messages are kept under it."""

    folder: Folder
    id: Folder
    account: Account
    baseline_at: datetime
    position: Position | None = None
    complete: bool = False
    held: str | None = None
    accepted: Literal["baseline", "replay"] | None = None


@dataclass(slots=True)
class MemoryMessage:
    """One message; ``state`` is claimed, suspect, deferred or settled, as in the ledgers on disk."""

    ref: MessageRef
    mid: str
    claimed_at: datetime
    state: str = "claimed"
    due_at: datetime | None = None
    suspect: bool = False
    at_risk: bool = False
    strikes: int = 0
    attempts: int = 0
    generation: int = 0
    waits_for: str | None = None
    route: tuple[str, ...] | None = None
    receipts: dict[str, str] | None = None
    reason: str = ""
    outcome: Outcome | None = None
    former: list[FormerOutcome] = field(default_factory=list)
    settled_at: datetime | None = None
    settled_order: int = 0
    disposition_state: str = ""
    disposition_reason: str = ""
    disposed_at: datetime | None = None


@dataclass(slots=True)
class MemoryStore:
    """What would be on disk. A second :class:`MemoryLedger` on the same store is the process that is started after the
    first one was killed. ``folders``: (mailbox, folder) -> its epochs, the present one last."""

    folders: dict[tuple[str, str], list[MemoryFolder]] = field(default_factory=dict)
    messages: dict[tuple[Folder, str], MemoryMessage] = field(default_factory=dict)
    alarms: dict[str, AlarmEdge] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


@dataclass(slots=True)
class _Failure:
    step: str
    error: Exception
    times: int
    after: bool


_Method = Callable[Concatenate["MemoryLedger", P], Coroutine[Any, Any, T]]


def _step(method: _Method[P, T]) -> _Method[P, T]:
    """Note the call, let the loop turn once as a real commit would, and fail before or after it if a test asked for that."""

    @functools.wraps(method)
    async def stepped(self: MemoryLedger, /, *args: P.args, **kwargs: P.kwargs) -> T:
        name = method.__name__
        self.calls.append(name)
        await asyncio.sleep(0)
        self._fail_if_asked(name, after=False)
        answer = await method(self, *args, **kwargs)
        self._fail_if_asked(name, after=True)
        return answer

    return stepped


PENDING_AGAIN = timedelta(minutes=1)
"""A disposition of which nothing is known is tried again this soon."""


class MemoryLedger:
    """The :class:`~mailpoller.core.ports.Ledger` port without a disk.

    Passes the conformance suite. ``calls`` names every method called, in order.
    """

    def __init__(self, clock: Clock, store: MemoryStore | None = None) -> None:
        self.store = MemoryStore() if store is None else store
        self.calls: list[str] = []
        self.closed = False
        self._clock = clock
        self._failures: list[_Failure] = []
        self._open_claims: set[tuple[Folder, str]] = set()
        for message in self.store.messages.values():
            if message.state == "claimed":
                message.state, message.suspect, message.due_at = "suspect", True, clock.now()
                message.strikes += message.at_risk
                message.at_risk = False
            elif message.state == "settled" and message.disposition_state == "pending" and message.due_at is not None:
                message.due_at = min(message.due_at, clock.now())

    # --- for the test ------------------------------------------------------------------------------------------
    def fail(self, step: str, error: Exception | None = None, *, times: int = 1, after: bool = False) -> None:
        """The next ``times`` calls of the method ``step`` raise ``error`` (:class:`LedgerUnavailable` unless told).

        ``after``: once they have done their work, like a commit whose answer is lost.
        """
        self._failures.append(_Failure(step, error or LedgerUnavailable(f"{step}: asked to fail"), times, after))

    def heal(self) -> None:
        """Nothing fails any more."""
        self._failures.clear()

    def restarted(self) -> MemoryLedger:
        """The ledger as the next process finds it after this one was killed now."""
        return MemoryLedger(self._clock, self.store)

    def message(self, folder: Folder, uid: str) -> MemoryMessage | None:
        """What is recorded of one message, or None."""
        return self.store.messages.get((self._present(folder).id, uid))

    def _fail_if_asked(self, step: str, *, after: bool) -> None:
        if self.closed and not after and step != "close":
            raise LedgerUnavailable("the ledger was closed")
        for failure in self._failures:
            if failure.step == step and failure.after == after and failure.times > 0:
                failure.times -= 1
                raise failure.error

    # --- folders -----------------------------------------------------------------------------------------------
    @_step
    async def open_folder(self, folder: Folder, account: Account, *, formerly: str | None = None) -> FolderState:
        if formerly is not None:
            self._rename(formerly, folder.mailbox)
        epochs = self.store.folders.setdefault((folder.mailbox, folder.name), [])
        identity = folder
        if any(known.id == folder and known.account != account for known in epochs):
            identity = replace(folder, epoch=f"{folder.epoch} {account.type}:{account.user}@{account.host}")
        present = next((known for known in epochs if known.id == identity), None)
        if present is None:
            baseline_at = min((known.baseline_at for known in epochs), default=self._clock.now())
            present = MemoryFolder(folder, identity, account, baseline_at)
        else:
            epochs.remove(present)
        earlier = list(epochs)
        epochs.append(present)
        return FolderState(
            folder=folder,
            position=present.position,
            first_run=not earlier and not present.complete,
            epoch_changed=bool(earlier) and not present.complete,
            complete=present.complete,
            baseline_at=present.baseline_at,
            settled_before=earlier[-1].complete if earlier else True,
            accepted=present.accepted,
        )

    def _rename(self, old: str, new: str) -> None:
        names = {mailbox for mailbox, _ in self.store.folders}
        if old not in names or new in names:
            return

        def renamed(folder: Folder) -> Folder:
            return replace(folder, mailbox=new) if folder.mailbox == old else folder

        for key in [key for key in self.store.folders if key[0] == old]:
            epochs = self.store.folders.pop(key)
            for known in epochs:
                known.folder, known.id = renamed(known.folder), renamed(known.id)
            self.store.folders[new, key[1]] = epochs
        for message in self.store.messages.values():
            message.ref = replace(message.ref, folder=renamed(message.ref.folder))
        self.store.messages = {
            (renamed(folder), uid): message for (folder, uid), message in self.store.messages.items()
        }

    @_step
    async def advance(self, folder: Folder, position: Position) -> None:
        self._present(folder).position = position

    @_step
    async def complete(self, folder: Folder) -> None:
        known = self._present(folder)
        known.complete, known.held, known.accepted = True, None, None

    @_step
    async def unknown(self, folder: Folder, refs: Sequence[MessageRef]) -> int:
        earlier = Counter(
            message.ref.size
            for message in self._of_earlier_epochs(folder).values()
            if message.state == "settled" and message.ref.size is not None
        )
        count = 0
        for ref in refs:
            if ref.size is not None and earlier[ref.size] > 0:
                earlier[ref.size] -= 1
            else:
                count += 1
        return count

    @_step
    async def hold(self, folder: Folder, reason: str) -> None:
        known = self._present(folder)
        known.held, known.accepted = reason, None

    @_step
    async def accept(self, mailbox: str, how: Literal["baseline", "replay"]) -> int:
        count = 0
        for known in self._folders_of(mailbox):
            if known.held is not None:
                known.held, known.accepted = None, how
                count += 1
        return count

    # --- messages ----------------------------------------------------------------------------------------------
    async def claim(self, refs: Sequence[MessageRef]) -> Sequence[Claim | Held | Settlement]:
        taken: list[tuple[Folder, str]] = []
        try:
            return await self._claim(refs, taken)
        except BaseException:
            self._open_claims.difference_update(taken)
            raise

    async def _claim(
        self, refs: Sequence[MessageRef], taken: list[tuple[Folder, str]]
    ) -> Sequence[Claim | Held | Settlement]:
        self.calls.append("claim")
        await asyncio.sleep(0)
        self._fail_if_asked("claim", after=False)
        answers = []
        for ref in refs:
            answer = self._claim_one(ref)
            if isinstance(answer, Claim):
                taken.append(self._key(ref))
                self._open_claims.add(self._key(ref))
            answers.append(answer)
        self._fail_if_asked("claim", after=True)
        return answers

    def _claim_one(self, ref: MessageRef) -> Claim | Held | Settlement:
        now = self._clock.now()
        key = self._key(ref)
        message = self.store.messages.get(key)
        if message is None:
            mid = mint_mid(ref.folder.mailbox, ref.folder.name, key[0].epoch, ref.uid)
            message = self.store.messages[key] = MemoryMessage(ref, mid, claimed_at=now)
        elif message.state == "claimed" and key in self._open_claims:
            return Held(ref, now, "claimed")
        elif message.state == "settled" and message.outcome is not None:
            if message.due_at is None or message.due_at > now:
                return Held(ref, message.due_at or now, "settled")
            return Settlement(ref, message.mid, message.outcome.kind, message.outcome.disposition)
        elif message.state in ("deferred", "suspect") and message.due_at is not None and message.due_at > now:
            return Held(ref, message.due_at, "deferred")
        if ref.size is not None:
            message.ref = ref
        message.state, message.claimed_at, message.due_at = "claimed", now, now
        message.at_risk = False
        return Claim(
            ref,
            message.mid,
            suspect=message.suspect,
            strikes=message.strikes,
            route=message.route,
            receipts=None if message.receipts is None else dict(message.receipts),
            generation=message.generation,
            attempts=message.attempts,
        )

    @_step
    async def suspects(self, folder: Folder, *, limit: int, down: Collection[str] = ()) -> Sequence[MessageRef]:
        found = self._due(folder, ("suspect",), down)
        found.sort(key=lambda message: (message.strikes, message.due_at))
        return [replace(message.ref, folder=folder) for message in found[:limit]]

    @_step
    async def due(self, folder: Folder, *, limit: int, down: Collection[str] = ()) -> Sequence[MessageRef]:
        order = ("settled", "claimed", "deferred")
        found = self._due(folder, order, down)
        found.sort(key=lambda message: (order.index(message.state), message.due_at))
        return [replace(message.ref, folder=folder) for message in found[:limit]]

    def _due(self, folder: Folder, states: Collection[str], down: Collection[str]) -> list[MemoryMessage]:
        known, now = self._present(folder), self._clock.now()
        return [
            message
            for (where, uid), message in self.store.messages.items()
            if where == known.id
            and message.state in states
            and message.due_at is not None
            and message.due_at <= now
            and (message.waits_for is None or message.waits_for not in down)
            and not (message.state == "claimed" and (where, uid) in self._open_claims)
        ]

    @_step
    async def at_risk(self, claim: Claim) -> None:
        message = self._message(claim.ref)
        if message is not None and message.state == "claimed":
            message.at_risk = True

    @_step
    async def cleared(self, claim: Claim) -> None:
        message = self._message(claim.ref)
        if message is not None:
            message.suspect, message.at_risk, message.strikes = False, False, 0

    @_step
    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Settlement]:
        now = self._clock.now()
        found = [self._message(outcome.claim.ref) for outcome in outcomes]
        if None in found:
            raise LedgerUnavailable("claims are not recorded any more; the mailbox was forgotten")
        for outcome, message in zip(outcomes, found, strict=True):
            assert message is not None
            leaves = outcome.disposition.leaves
            message.state, message.outcome, message.reason = "settled", outcome, outcome.reason
            message.receipts = dict(outcome.receipts)
            message.at_risk, message.waits_for, message.settled_at = False, None, now
            message.settled_order = 1 + max(other.settled_order for other in self.store.messages.values())
            message.due_at = None if leaves else now + PENDING_AGAIN
            message.disposition_state = "applied" if leaves else "pending"
            message.disposition_reason, message.disposed_at = "", now if leaves else None
            self._open_claims.discard(self._key(outcome.claim.ref))
        return [
            Settlement(outcome.claim.ref, outcome.claim.mid, outcome.kind, outcome.disposition) for outcome in outcomes
        ]

    @_step
    async def defer(
        self,
        claims: Sequence[Claim],
        *,
        until: datetime,
        reason: str,
        queue: str | None = None,
        route: Sequence[str] | None = None,
        receipts: Mapping[str, str] | None = None,
    ) -> None:
        for claim in claims:
            message = self._message(claim.ref)
            self._open_claims.discard(self._key(claim.ref))
            if message is None or message.state == "settled":
                continue
            message.state = "suspect" if message.suspect else "deferred"
            message.due_at, message.reason, message.waits_for = until, reason, queue
            message.attempts += queue is None
            message.at_risk = False
            if route is not None:
                message.route = tuple(route)
            if receipts is not None:
                message.receipts = {**(message.receipts or {}), **receipts}

    async def release(self, claims: Sequence[Claim]) -> None:
        """As the port says; and even if this raises, the claims can be claimed again."""
        self._open_claims.difference_update([self._key(claim.ref) for claim in claims])
        await self._release(claims)

    async def _release(self, claims: Sequence[Claim]) -> None:
        self.calls.append("release")
        await asyncio.sleep(0)
        self._fail_if_asked("release", after=False)
        for claim in claims:
            message = self._message(claim.ref)
            if message is not None and message.state == "claimed":
                message.state = "suspect" if message.suspect else "deferred"
                message.due_at, message.at_risk = self._clock.now(), False
        self._fail_if_asked("release", after=True)

    @_step
    async def disposed(self, results: Sequence[Disposed]) -> None:
        now = self._clock.now()
        again = {"applied": None, "failed": now + timedelta(days=1), "pending": now + PENDING_AGAIN}
        for result in results:
            message = self._message(result.settlement.ref)
            if message is not None and message.state == "settled":
                message.disposition_state, message.disposition_reason = result.state, result.reason
                message.due_at = again[result.state]
                message.disposed_at = now if result.state == "applied" else None

    @_step
    async def repeats(
        self, mailbox: str, fingerprints: Sequence[bytes], *, former_of: Folder | None = None
    ) -> Mapping[bytes, str]:
        wanted = set(fingerprints)
        earliest: dict[bytes, str] = {}
        for message in sorted(self.store.messages.values(), key=lambda message: message.settled_order):
            outcome = message.outcome
            if message.state != "settled" or outcome is None or message.ref.folder.mailbox != mailbox:
                continue
            folder = message.ref.folder
            if former_of is not None and (folder.name != former_of.name or folder == former_of):
                continue
            if outcome.fingerprint is not None and outcome.fingerprint in wanted:
                earliest.setdefault(outcome.fingerprint, message.mid)
        return earliest

    @_step
    async def prune(self, folder: Folder, present: Collection[str], *, before: datetime) -> int:
        known = self._present(folder)
        stale = {
            (where, uid): message
            for (where, uid), message in self.store.messages.items()
            if where == known.id
            and message.state == "settled"
            and _earlier(message.settled_at, before)
            and uid not in present
        }
        for (where, uid), message in self._of_earlier_epochs(folder).items() if known.complete else ():
            if _earlier(message.settled_at or message.claimed_at, before):
                stale[where, uid] = message
                if message.state != "settled":
                    former = self._present(where)
                    former.position, former.complete = None, False
        for key in stale:
            del self.store.messages[key]
        return sum(message.state == "settled" for message in stale.values())

    # --- mailboxes ---------------------------------------------------------------------------------------------
    @_step
    async def mailboxes(self) -> Sequence[str]:
        return sorted({mailbox for mailbox, _ in self.store.folders})

    @_step
    async def forget(self, mailbox: str) -> int:
        for key in [key for key in self.store.folders if key[0] == mailbox]:
            del self.store.folders[key]
        doomed = [key for key in self.store.messages if key[0].mailbox == mailbox]
        for message in doomed:
            del self.store.messages[message]
        self.store.faults = [fault for fault in self.store.faults if fault.subject != mailbox]
        return len(doomed)

    @_step
    async def counts(self, mailbox: str) -> Mapping[str, int]:
        present = {epochs[-1].id for (box, _), epochs in self.store.folders.items() if box == mailbox}
        of_mailbox = [message for (where, _), message in self.store.messages.items() if where.mailbox == mailbox]
        at_work = [message for (where, _), message in self.store.messages.items() if where in present]
        return {
            "claimed": sum(message.state == "claimed" for message in at_work),
            "deferred": sum(message.state in ("deferred", "suspect") for message in at_work),
            "settled": sum(message.state == "settled" for message in of_mailbox),
            "undisposed": sum(message.state == "settled" and message.due_at is not None for message in at_work),
        }

    # --- alarms and faults -------------------------------------------------------------------------------------
    @_step
    async def raise_alarm(self, key: str, group: str, summary: str) -> bool:
        if key in self.store.alarms:
            return False
        self.store.alarms[key] = AlarmEdge(key, group, summary, self._clock.now(), notified=False)
        return True

    @_step
    async def clear_alarm(self, key: str) -> AlarmEdge | None:
        return self.store.alarms.pop(key, None)

    @_step
    async def alarms(self) -> Sequence[AlarmEdge]:
        return sorted(self.store.alarms.values(), key=lambda edge: (edge.raised_at, edge.key))

    @_step
    async def notified(self, keys: Sequence[str]) -> None:
        for key in keys:
            if key in self.store.alarms:
                self.store.alarms[key] = replace(self.store.alarms[key], notified=True)

    @_step
    async def note(self, faults: Sequence[Fault]) -> None:
        self.store.faults.extend(faults)
        for subject in {fault.subject for fault in faults}:
            excess = sum(fault.subject == subject for fault in self.store.faults) - _FAULTS_KEPT
            for fault in [fault for fault in self.store.faults if fault.subject == subject][: max(0, excess)]:
                self.store.faults.remove(fault)

    @_step
    async def faults(self, subject: str | None = None, *, limit: int = 1000) -> Sequence[Fault]:
        return [fault for fault in reversed(self.store.faults) if subject in (None, fault.subject)][:limit]

    @_step
    async def clear_faults(self, subject: str | None = None) -> int:
        before = len(self.store.faults)
        self.store.faults = [fault for fault in self.store.faults if subject not in (None, fault.subject)]
        return before - len(self.store.faults)

    # --- operators ---------------------------------------------------------------------------------------------
    @_step
    async def trace(self, term: str, *, limit: int = 50) -> Sequence[Story]:
        found = []
        for message in self.store.messages.values():
            outcome = message.outcome
            hints = (outcome.message_id, outcome.sender.lower()) if outcome is not None else ()
            if term in (message.mid, message.ref.uid, *hints) or term.lower() in (message.mid, *hints[1:]):
                found.append(message)
        found.sort(key=lambda message: message.settled_at or message.claimed_at, reverse=True)
        return [self._story(message) for message in found[:limit]]

    @_step
    async def reopen(self, mid: str) -> MessageRef:
        key = next((key for key, message in self.store.messages.items() if message.mid == mid), None)
        if key is None:
            raise MessageGone(f"the ledger has no message {mid}")
        folder, message = key[0], self.store.messages[key]
        if self.store.folders[folder.mailbox, folder.name][-1].id != folder:
            raise MessageGone(f"the folder of message {mid} was renumbered since")
        if message.state == "settled":
            if message.outcome is not None and message.settled_at is not None:
                last = message.outcome
                message.former = [
                    *message.former[1 - _FORMER_KEPT :],
                    FormerOutcome(message.settled_at, last.kind, last.reason, last.rules, dict(last.receipts)),
                ]
            message.state, message.due_at, message.reason = "deferred", self._clock.now(), "redeliver"
            message.generation += 1
            message.attempts, message.route, message.receipts, message.settled_at = 0, None, None, None
            message.disposition_state, message.disposed_at = "", None
        elif message.state in ("deferred", "suspect"):
            message.due_at, message.waits_for = self._clock.now(), None
        return message.ref

    async def close(self) -> None:
        self.calls.append("close")
        self.closed = True

    # --- rows --------------------------------------------------------------------------------------------------
    def _folders_of(self, mailbox: str) -> list[MemoryFolder]:
        return [known for (box, _), epochs in self.store.folders.items() if box == mailbox for known in epochs]

    def _present(self, folder: Folder) -> MemoryFolder:
        for known in reversed(self.store.folders.get((folder.mailbox, folder.name), ())):
            if folder in (known.folder, known.id):
                return known
        raise LedgerUnavailable(f"folder {folder.name} of {folder.mailbox} is not open")

    def _key(self, ref: MessageRef) -> tuple[Folder, str]:
        return self._present(ref.folder).id, ref.uid

    def _message(self, ref: MessageRef) -> MemoryMessage | None:
        return self.store.messages.get(self._key(ref))

    def _of_earlier_epochs(self, folder: Folder) -> dict[tuple[Folder, str], MemoryMessage]:
        known = self._present(folder)
        return {
            (where, uid): message
            for (where, uid), message in self.store.messages.items()
            if (where.mailbox, where.name) == (folder.mailbox, folder.name) and where != known.id
        }

    def _story(self, message: MemoryMessage) -> Story:
        last = message.outcome  # of an earlier generation, if the message was reopened
        outcome = last if message.state == "settled" else None
        return Story(
            mid=message.mid,
            mailbox=message.ref.folder.mailbox,
            folder=message.ref.folder.name,
            epoch=message.ref.folder.epoch,
            uid=message.ref.uid,
            state=message.state,
            outcome="" if outcome is None else outcome.kind,
            reason=message.reason,
            rules=() if last is None else last.rules,
            receipts=dict(message.receipts or {}),
            disposition="" if outcome is None else str(outcome.disposition),
            disposition_state=message.disposition_state,
            disposition_reason=message.disposition_reason,
            size=message.ref.size if last is None or last.size is None else last.size,
            message_id="" if last is None else last.message_id,
            sender="" if last is None else last.sender,
            repeat_of=None if last is None else last.repeat_of,
            strikes=message.strikes,
            attempts=message.attempts,
            claimed_at=message.claimed_at,
            due_at=None if message.state == "claimed" else message.due_at,
            settled_at=message.settled_at,
            disposed_at=message.disposed_at,
            former=tuple(message.former),
        )


def _earlier(instant: datetime | None, before: datetime) -> bool:
    return instant is not None and instant < before
