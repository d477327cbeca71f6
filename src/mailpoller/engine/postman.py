"""Sends what waits in the outbox: each identity by itself, each recipient until he has it or never will."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import structlog

from mailpoller.core.acknowledgement import ACKNOWLEDGEMENT
from mailpoller.core.errors import (
    ConfigError,
    CredentialsRefused,
    LedgerUnavailable,
    MachineTrouble,
    MailpollerError,
    MessageRejected,
    TransientError,
    machine_trouble,
)
from mailpoller.core.ports import Clock, Mail, Outbox, OutboxMail, Outgoing, Posting, RecipientState, Said
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.acceptance import OutboxRoom
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.backoff import Backoff
from mailpoller.engine.senders import Identity, Senders
from mailpoller.storage.octet_files import OctetFiles

log = structlog.get_logger(__name__)

FIRST_WAIT = timedelta(minutes=1)
"""Before a mail that was put off is tried again; doubled each time,"""
LONGEST_WAIT = timedelta(hours=2)
"""but never longer than this."""
LOOK_AGAIN = timedelta(minutes=1)
"""How often it is looked whether a held identity may send, and whether anything is due that nobody told of."""
UNTRIED_AFTER = timedelta(hours=1)
"""An outgoing that has been down for so long lets mail that waited too long be given up without a try of its own. Not
sooner: after days without power the first connection often fails."""
TIDY_EVERY = timedelta(hours=6)

_AT_ONCE = 100
"""Mails that are taken from the ledger at once."""
_LEDGER_AGAIN_S = 2.0


@dataclass(slots=True)
class Round:
    """One identity at work: ``held`` and ``down`` say why it does not send, or nothing."""

    identity: str
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """There may be something to send."""
    insist: asyncio.Event = field(default_factory=asyncio.Event)
    """There is a reason to try now, also after a failure."""
    held: str = ""
    down: str = ""
    down_since: datetime | None = None
    next_at: float = 0.0
    """Monotonic; before it no further mail is begun, for the sake of the rate."""
    at_work: bool = False
    """Mails may be on their way."""
    passed: int = 0
    """Mails that the outgoing took or refused."""
    suspects: dict[str, int] = field(default_factory=dict)
    """Mails at which the outgoing had trouble, and how many had passed by then."""


class Postman:
    """A task for each identity that has something to send.

    A relay's answer is committed before the next mail goes out on that connection: so a crash repeats one mail for each
    connection at most, with the same Message-ID. The outgoing's own trouble counts against no mail, except that a mail
    that is older than it may become is given up after a try. ``senders`` may be replaced at any time.
    """

    def __init__(
        self,
        ledger: Outbox,
        files: OctetFiles,
        outgoings: Mapping[str, Outgoing],
        senders: Senders,
        alarm: Alarm,
        clock: Clock,
        room: OutboxRoom,
        *,
        keep: timedelta = timedelta(days=180),
    ) -> None:
        self.senders = senders
        self._ledger = ledger
        self._files = files
        self._outgoings = outgoings
        self._alarm = alarm
        self._clock = clock
        self._room = room
        self._keep = keep
        self._rounds: dict[str, Round] = {}
        self._in_hand: set[str] = set()
        self._unwanted: set[str] = set()
        """Mails that were cancelled, and that a round may have taken from the ledger before."""
        self._news = asyncio.Event()

    def wake(self, identity: str) -> None:
        """There is something to send by this identity. What is down is not tried any sooner for that."""
        if (one := self._rounds.get(identity)) is not None:
            one.wake.set()  # who is at work looks himself, and counts nothing for it
        else:
            self._news.set()

    def insist(self) -> None:
        """Try now whatever waits."""
        self._news.set()
        for one in self._rounds.values():
            one.wake.set()
            one.insist.set()

    # --- for operators -------------------------------------------------------------------------------------------
    async def report(self) -> list[dict[str, Any]]:
        """What waits, by identity, and why it does if there is a reason."""
        told = []
        for name, backlog in sorted((await self._ledger.outbox_backlog()).items()):
            one = self._rounds.get(name)
            held, down = (one.held, one.down) if one is not None else (self._idle(name), "")
            state = "held" if held else "down" if down else "sending"
            told.append(
                {
                    "identity": name,
                    "state": state,
                    "reason": held or down,
                    "mails": backlog.mails,
                    "size_bytes": backlog.octets,
                    "due_at": backlog.due_at.isoformat(timespec="seconds"),
                }
            )
        return told

    def hindered(self) -> list[dict[str, str]]:
        """The identities that have mail to send and do not send it, and why."""
        return [
            {"identity": one.identity, "state": "held" if one.held else "down", "reason": one.held or one.down}
            for one in self._rounds.values()
            if one.held or one.down
        ]

    async def retry(self, id: str) -> int:
        """Try a mail now; for how many recipients."""
        count = await self._ledger.outbox_retry(id)
        self.insist()
        return count

    async def cancel(self, id: str) -> int:
        """Send a mail to nobody else; how many would have got it. Raises :class:`MailpollerError` while it is on its
        way."""
        if id in self._in_hand:
            raise MailpollerError("this mail is being sent at this moment; look what became of it: outbox show")
        self._unwanted.add(id)
        try:
            mail = await self._ledger.outbox_mail(id)
            count = await self._ledger.outbox_cancel(id)
        except BaseException:
            self._unwanted.discard(id)  # it waits as before
            raise
        if mail is not None and count:
            await self._finished(mail)
            self.wake(mail.identity)
        return count

    # --- for as long as the service runs ---------------------------------------------------------------------------
    async def run(self, ended: asyncio.Event, stop: asyncio.Event | None = None) -> None:
        """Send until either is set; then what is on its way is brought to its end, and nothing more is begun. ``stop``
        is the sooner one: what is cut off while the relay thinks about it comes to somebody twice."""
        events, stop = [one for one in (ended, stop) if one is not None], asyncio.Event()
        async with TaskGroup() as group:
            watching = group.create_task(self._stopping(events, stop), name="outbox stop")
            tasks: dict[str, asyncio.Task[None]] = {}
            heeded: Senders | None = None
            tidied = 0.0
            while not stop.is_set():
                self._news.clear()
                try:
                    if heeded is not self.senders:
                        senders = self.senders
                        if await self._begin(senders):
                            heeded = senders
                    waiting = await self._ledger.outbox_backlog()
                    if monotonic() - tidied > TIDY_EVERY.total_seconds() or not tidied:
                        await self._tidy()
                        tidied = monotonic()
                except LedgerUnavailable as error:
                    log.warning("outbox.unreadable", reason=str(error))
                    waiting = {}
                for name in waiting:
                    if name not in tasks or tasks[name].done():
                        one = self._rounds[name] = Round(name)
                        tasks[name] = group.create_task(self._guard(one, stop), name=f"outbox {name}")
                await _either(self._news, LOOK_AGAIN.total_seconds())
            watching.cancel()

    async def _stopping(self, events: Sequence[asyncio.Event], stop: asyncio.Event) -> None:
        waiting = [asyncio.ensure_future(one.wait()) for one in events]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        stop.set()
        self.insist()

    async def _begin(self, senders: Senders) -> bool:
        """False if a mail is still on its way under the former name of an identity: before that is through, nobody
        else may take it up."""
        all_of_it = True
        for name, identity in senders.identities.items():
            if not identity.formerly:
                continue
            former = self._rounds.get(identity.formerly)
            if former is not None and former.at_work:
                all_of_it = False
                continue
            if mails := await self._ledger.outbox_rename(identity.formerly, name):
                log.info("outbox.renamed", identity=name, formerly=identity.formerly, mails=mails)
            await self._alarm.ended(Kind.OUTBOX_HELD, identity.formerly)
        backlog = await self._ledger.outbox_backlog()
        for name in senders.identities.keys() - backlog.keys():
            await self._alarm.ended(Kind.OUTBOX_HELD, name)  # what was held may have been cancelled since
        self._room.octets = sum(one.octets for one in backlog.values())
        return all_of_it

    async def _tidy(self) -> None:
        """Remove the files of mails that are done with, and forget what is old. Files that the ledger does not know
        stay: it may be the ledger that is older."""
        names = await asyncio.to_thread(self._files.names)
        for begin in range(0, len(names), _AT_ONCE):
            done = await self._ledger.outbox_done(names[begin : begin + _AT_ONCE])
            await asyncio.to_thread(self._files.drop, done)
        before = self._clock.now() - self._keep
        while await self._ledger.outbox_forget(before):
            pass

    async def _guard(self, one: Round, stop: asyncio.Event) -> None:
        try:
            await self._round(one, stop)
        except LedgerUnavailable as error:
            log.warning("outbox.unreadable", reason=str(error))
        except Exception:
            log.exception("outbox.crashed", identity=one.identity)
        finally:
            self._rounds.pop(one.identity, None)
            if one.wake.is_set():  # it came while he found nothing more and left
                self._news.set()

    async def _round(self, one: Round, stop: asyncio.Event) -> None:
        """Until nothing waits any more, or ``stop``."""
        backoff = Backoff(timedelta(seconds=30), timedelta(minutes=15), blip=timedelta(seconds=3))
        while not stop.is_set():
            one.wake.clear()
            one.insist.clear()
            if reason := self._idle(one.identity):
                if one.identity not in await self._ledger.outbox_backlog():
                    await self._alarm.ended(Kind.OUTBOX_HELD, one.identity)
                    return
                await self._hold(one, reason)
                await _either(one.wake, LOOK_AGAIN.total_seconds())
                continue
            if one.held:
                one.held = ""
                log.info("outbox.released", identity=one.identity)
            await self._alarm.ended(Kind.OUTBOX_HELD, one.identity)
            mails = await self._ledger.outbox_due(one.identity, limit=_AT_ONCE)
            if not mails:
                backlog = (await self._ledger.outbox_backlog()).get(one.identity)
                if backlog is None:
                    return
                wait = (backlog.due_at - self._clock.now()).total_seconds()
                await _either(one.wake, min(max(wait, 0.05), LOOK_AGAIN.total_seconds()))
                continue
            one.at_work = True
            try:
                trouble = await self._batch(one, sorted(mails, key=lambda mail: mail.id in one.suspects), stop)
            finally:
                one.at_work = False
            if one.identity not in self.senders.identities:
                self._news.set()  # somebody may wait to take over what is left
            if trouble is None:
                await self._up(one)
                backoff.reset()
                continue
            await self._down(one, trouble, mails)
            retry_after = trouble.retry_after if isinstance(trouble, TransientError) else None
            await _either(one.insist, backoff.failed(at_least=retry_after))

    def _idle(self, identity: str) -> str:
        """Why nothing is sent by this identity, or nothing."""
        known = self.senders.identities.get(identity)
        if known is None:
            return "no outgoing is called so any more"
        if known.held:
            return known.held
        return "" if identity in self._outgoings else "it cannot be built"

    async def _hold(self, one: Round, reason: str) -> None:
        if one.held != reason:
            one.held = reason
            log.error("outbox.held", identity=one.identity, reason=reason)
            self._alarm.fault(one.identity, "outbox.held", reason, "")
        await self._alarm.raised(Kind.OUTBOX_HELD, one.identity, reason, group=f"outgoing {one.identity}")

    async def _down(self, one: Round, trouble: MailpollerError, mails: Sequence[OutboxMail]) -> None:
        """The outgoing sends nothing now. Who has waited too long is told."""
        reason = str(trouble)
        if one.down != reason:
            one.down = reason
            log.warning("outbox.down", identity=one.identity, reason=reason)
            self._alarm.fault(one.identity, "outbox.down", reason, "")
        await self._alarm.raised(Kind.OUTGOING_FAILING, one.identity, reason, group=f"outgoing {one.identity}")
        now = self._clock.now()
        one.down_since = one.down_since or now
        long = now - one.down_since >= UNTRIED_AFTER
        for mail in mails:
            if mail.gives_up_at > now or not (long or mail.id in one.suspects):
                continue
            if mail.id not in self._in_hand and mail.id not in self._unwanted:
                current = await self._ledger.outbox_mail(mail.id)
                if current is not None and current.open:
                    await self._concluded(current, dict.fromkeys(current.open, Said("deferred", reason)))

    async def _up(self, one: Round) -> None:
        one.down_since = None
        if one.down:
            one.down = ""
            log.info("outbox.up", identity=one.identity)
        await self._alarm.ended(Kind.OUTGOING_FAILING, one.identity)

    # --- mails -----------------------------------------------------------------------------------------------------
    async def _batch(self, one: Round, mails: Sequence[OutboxMail], stop: asyncio.Event) -> MailpollerError | None:
        """Send these, as many at once as there are connections. The trouble that ended it, if it is the outgoing's."""
        waiting: Iterator[OutboxMail] = iter(mails)
        trouble: MailpollerError | None = None

        def over() -> bool:
            return trouble is not None or stop.is_set() or bool(self._idle(one.identity))

        async def lane() -> None:
            nonlocal trouble
            for mail in waiting:
                if over():
                    return
                if mail.id in self._unwanted:
                    continue
                await self._pace(one, self.senders.identities[one.identity], stop)
                if over():
                    return
                if mail.id in self._unwanted:
                    continue
                self._in_hand.add(mail.id)
                try:
                    # As whom it is sent is asked now: another configuration may hold since the last one.
                    trouble = await self._send(one, self.senders.identities[one.identity], mail) or trouble
                finally:
                    self._in_hand.discard(mail.id)

        known = self.senders.identities.get(one.identity)
        lanes = min(known.lanes, len(mails)) if known is not None else 1
        if lanes == 1:
            await lane()
        else:
            async with TaskGroup() as group:
                for number in range(lanes):
                    group.create_task(lane(), name=f"outbox {one.identity} {number}")
        return trouble

    async def _pace(self, one: Round, identity: Identity, stop: asyncio.Event) -> None:
        if identity.rate is None:
            return
        now = self._clock.monotonic()
        one.next_at = max(one.next_at, now) + 60.0 / identity.rate
        if (wait := one.next_at - now - 60.0 / identity.rate) > 0:
            waiting = [asyncio.ensure_future(self._clock.sleep(wait)), asyncio.ensure_future(stop.wait())]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()

    async def _send(self, one: Round, identity: Identity, mail: OutboxMail) -> MailpollerError | None:
        """One mail to all who are still to get it. What it returns is the outgoing's trouble, and no word about the
        mail is recorded then.

        Trouble at the same mail again, when others have passed since, is that mail's: it is put off alone. Relays say
        of a recipient that he does not take our sender, in words by which they mean all of our mail elsewhere."""
        began = monotonic()
        to = mail.open
        if mail.intake == ACKNOWLEDGEMENT and self._clock.now() >= mail.gives_up_at:
            return await self._concluded(mail, dict.fromkeys(to, Said("refused", "too late: the mail came long ago")))
        try:
            octets = await asyncio.to_thread(self._files.read, mail.digest)
        except TransientError as error:
            patient = isinstance(error, MachineTrouble)
            await self._concluded(mail, dict.fromkeys(to, Said("deferred", str(error))), patient=patient)
            return None
        envelope = (identity.divert_to,) if identity.divert_to else to
        try:
            outgoing = self._outgoings.get(identity.name)
            if outgoing is None:  # it has left since
                return TransientError(f"the outgoing {identity.name} is not there")
            said = await _post(outgoing, Mail(mail.sender, envelope, octets))
        except (TransientError, CredentialsRefused, ConfigError) as error:
            if one.passed <= one.suspects.get(mail.id, one.passed):
                one.suspects.setdefault(mail.id, one.passed)
                return error
            said = dict.fromkeys(envelope, Said("deferred", str(error)))
        except Exception as error:
            if (trouble := machine_trouble(error)) is not None:
                return TransientError(trouble)
            log.exception("outbox.crashed", id=mail.id, identity=identity.name)
            said = dict.fromkeys(envelope, Said("deferred", f"this is a bug: {type(error).__name__}"))
        one.suspects.pop(mail.id, None)
        one.passed += any(answer.state != "deferred" for answer in said.values())
        if identity.divert_to:
            said = dict.fromkeys(to, next(iter(said.values())))
        return await self._concluded(mail, said, elapsed_s=round(monotonic() - began, 3))

    async def _concluded(
        self, mail: OutboxMail, said: Mapping[str, Said], *, patient: bool = False, **more: Any
    ) -> MailpollerError | None:
        """Commit what was said, and tell it. Returns trouble only if the ledger cannot be told and we stop.
        ``patient``: it is put off for this machine's sake, however long it has waited."""
        now = self._clock.now()
        given_up = now >= mail.gives_up_at and not patient
        states: dict[str, tuple[RecipientState, str]] = {}
        for address, one in said.items():
            state: RecipientState = one.state
            words = one.words
            if state == "deferred" and given_up:
                state, words = "refused", f"given up after {_days(now - mail.accepted_at)}: {words}"
            states[address] = state, words
        left = [one for one in mail.open if states.get(one, ("waiting", ""))[0] in ("waiting", "deferred")]
        due_at = now + waiting_time(mail.attempts) if left else None
        while True:
            try:
                await self._ledger.outbox_answered(mail.id, states, due_at)
                break
            except LedgerUnavailable as error:
                # Not until it is recorded may another mail go out here: it would be one more that a crash repeats.
                log.warning("outbox.unrecorded", id=mail.id, reason=str(error))
                await self._clock.sleep(_LEDGER_AGAIN_S)
        self._tell(mail, states, **more)
        if due_at is None:
            await self._finished(mail)
        return None

    def _tell(self, mail: OutboxMail, states: Mapping[str, tuple[RecipientState, str]], **more: Any) -> None:
        about = {"id": mail.id, "identity": mail.identity, "mailbox": mail.mailbox, "mid": mail.mid, **more}
        attempt = mail.attempts + 1
        words = {state: [said for found, said in states.values() if found == state] for state, _ in states.values()}
        if taken := words.get("accepted"):
            log.info("outbox.sent", **about, recipients=len(taken), attempt=attempt, answer=taken[0])
        if later := words.get("deferred"):
            log.warning("outbox.deferred", **about, recipients=len(later), attempt=attempt, answer=later[0])
            self._note(mail, "outbox.deferred", later)
        if never := words.get("refused"):
            log.warning("outbox.refused", **about, recipients=len(never), attempt=attempt, answer=never[0])
            self._note(mail, "outbox.refused", never)

    def _note(self, mail: OutboxMail, event: str, words: Sequence[str]) -> None:
        """For ``mailpoller errors``: of the outgoing, and of the mailbox that it answered for."""
        count = f"{len(words)} of {len(mail.recipients)} recipients: " if len(mail.recipients) > 1 else ""
        self._alarm.fault(mail.identity, event, f"sent, {mail.id[:12]}: {count}{words[0]}", mail.mid)
        if mail.mailbox and mail.mailbox != mail.identity:
            self._alarm.fault(mail.mailbox, event, f"sent, {mail.id[:12]}: {count}{words[0]}", mail.mid)

    async def _finished(self, mail: OutboxMail) -> None:
        self._room.octets = max(0, self._room.octets - mail.size)
        await asyncio.to_thread(self._files.drop, [mail.digest])


async def _post(outgoing: Outgoing, mail: Mail) -> Mapping[str, Said]:
    if isinstance(outgoing, Posting):
        return await outgoing.post(mail)
    try:
        answer = await outgoing.send(mail)
    except MessageRejected as error:
        return dict.fromkeys(mail.recipients, Said("refused", str(error)))
    return dict.fromkeys(mail.recipients, Said("accepted", str(answer)))


def waiting_time(attempts: int) -> timedelta:
    """How long a mail waits after its next attempt, if it had so many before."""
    return min(LONGEST_WAIT, FIRST_WAIT * float(2 ** min(attempts, 10)))


def _days(passed: timedelta) -> str:
    hours = passed / timedelta(hours=1)
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours"


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, but no longer than this."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
