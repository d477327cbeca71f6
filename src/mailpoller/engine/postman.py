"""Sends what waits in the outbox: each identity by itself, each recipient until he has it or never will."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Any

import structlog

from mailpoller.core.errors import (
    LedgerUnavailable,
    MailpollerError,
    TransientError,
)
from mailpoller.core.ports import Clock, Outbox, OutboxMail, Outgoing, Said
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.backoff import Backoff
from mailpoller.engine.outbox_room import OutboxRoom
from mailpoller.engine.provenance import UNKNOWN, Provenance
from mailpoller.engine.senders import Identity, Senders
from mailpoller.engine.sending import Round, Sending
from mailpoller.storage.octet_files import OctetFiles

log = structlog.get_logger(__name__)

LOOK_AGAIN = timedelta(minutes=1)
"""How often it is looked whether a held identity may send, and whether anything is due that nobody told of."""
UNTRIED_AFTER = timedelta(hours=1)
"""An outgoing that has been down for so long lets mail that waited too long be given up without a try of its own. Not
sooner: after days without power the first connection often fails."""
TIDY_EVERY = timedelta(hours=6)

_AT_ONCE = 100
"""Mails that are taken from the ledger at once."""


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
        provenance: Provenance | None = None,
        prudent: Clock | None = None,
    ) -> None:
        self.senders = senders
        self._ledger = ledger
        self._files = files
        self._outgoings = outgoings
        self._alarm = alarm
        self._clock = clock
        self._room = room
        self._keep = keep
        self._provenance = provenance
        self._prudent = prudent or clock
        self._sending = Sending(
            ledger, files, alarm, clock, room, lambda intake: self.senders.tells(intake), self._prudent
        )
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
        """The identities that have mail to send and do not send it, and why. All of them while the outbox is held."""
        reason = self._provenance.held if self._provenance is not None else ""
        if reason and reason != UNKNOWN:
            return [{"identity": name, "state": "held", "reason": reason} for name in self.senders.identities]
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
            await self._sending.finished(mail)
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
                    self._room.count(waiting)
                    if monotonic() - tidied > TIDY_EVERY.total_seconds() or not tidied:
                        await self._tidy()
                        tidied = monotonic()
                    if self._provenance is not None:
                        await self._provenance.look()
                        await self._provenance.sent()
                except LedgerUnavailable as error:
                    log.warning("outbox.unreadable", reason=str(error))
                    waiting = {}
                for name in waiting:
                    if name not in tasks or tasks[name].done():
                        one = self._rounds[name] = Round(name)
                        tasks[name] = group.create_task(self._guard(one, stop), name=f"outbox {name}")
                await _either(self._news, LOOK_AGAIN.total_seconds())
            watching.cancel()
        if self._provenance is not None:
            try:
                await self._provenance.sent(all_of_it=True)
            except LedgerUnavailable as error:
                log.warning("outbox.unreadable", reason=str(error))

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
        return all_of_it

    async def _tidy(self) -> None:
        """Remove the files of mails that are done with, and forget what is old. Files that the ledger does not know
        stay: it may be the ledger that is older."""
        names = await asyncio.to_thread(self._files.names)
        for begin in range(0, len(names), _AT_ONCE):
            done = await self._ledger.outbox_done(names[begin : begin + _AT_ONCE])
            await asyncio.to_thread(self._files.drop, done)
        before = self._prudent.now() - self._keep
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
            if self._provenance is not None:
                await self._provenance.sends()
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
        if self._provenance is not None and self._provenance.held:
            return self._provenance.held
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
        if self._provenance is None or reason != self._provenance.held:  # which has an alarm of its own
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
                    await self._sending.concluded(current, dict.fromkeys(current.open, Said("deferred", reason)))

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
                    trouble = await self._send_now(one, mail) or trouble
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

    async def _send_now(self, one: Round, mail: OutboxMail) -> MailpollerError | None:
        identity = self.senders.identities[one.identity]
        return await self._sending.send(one, identity, self._outgoings.get(identity.name), mail)

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


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, but no longer than this."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
