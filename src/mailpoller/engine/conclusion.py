"""What a batch or a whole pass shows of names: whose they are now, and whose message is not there."""

from __future__ import annotations

from dataclasses import replace

import structlog

from mailpoller.core.message import Folder
from mailpoller.core.ports import Clock
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.absence import Absences
from mailpoller.engine.claimant import Claimant
from mailpoller.engine.dispatcher import Dispatcher
from mailpoller.engine.in_flight import InFlight, Pass
from mailpoller.engine.numbering import APART, answer
from mailpoller.engine.observer import Observer
from mailpoller.engine.outcomes import tell
from mailpoller.engine.records import Records

log = structlog.get_logger(__name__)

UNDATED = 100
"""Messages that did not come whose dates are asked for in one pass."""


class Conclusions:
    """Draws, for one mailbox, what only a whole pass shows: whose names are others' now, and what is not there."""

    def __init__(
        self,
        mailbox: str,
        config: SourceConfig,
        *,
        records: Records,
        dispatcher: Dispatcher,
        claims: Claimant,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._mailbox = mailbox
        self._records = records
        self._dispatcher = dispatcher
        self._claims = claims
        self._clock = clock
        self._observer = observer
        self._absences = Absences(mailbox, config, backlog=records.backlog, clock=clock, observer=observer)

    async def over(self, folder: Folder) -> None:
        """A pass found nothing absent."""
        await self._absences.over(folder)

    async def conclude(self, now: Pass) -> None:
        """What only the whole pass could show: whose names are others' now, and what is not there."""
        if now.questions:
            await self._answer(now)
        else:
            self._observer.questioned(now.folder, ())
        if now.undated:
            # An operator finds a message by its date, which comes with the fetch where the listing does not tell it.
            seen = await now.session.look(now.undated[:UNDATED])
            await self._records.bearers.recognise([ref for ref in seen if ref is not None])
        if not now.absent:
            return
        absence = await self._absences.conclude(now.session, now.folder, now.absent, accepted=now.accepted)
        if absence.gone:
            outcomes = [self._dispatcher.gone(claim) for claim in absence.gone]
            await self._records.claims.settle(outcomes)
            self._claims.close(absence.gone)
            tell(outcomes, self._mailbox, self._observer, self._clock)
            now.result.settled += len(outcomes)
        if absence.waiting:
            await self._records.claims.defer(
                absence.waiting, until=absence.until, reason=absence.reason, cause="absent"
            )
            self._claims.close(absence.waiting)
            self._observer.deferred(absence.waiting, absence.reason)
            now.result.put_off(len(absence.waiting), absence.until)

    async def _answer(self, now: Pass) -> None:
        """Questions about names that were listed. Until they are answered the position stays before them."""
        same, other, unanswered = await answer(now.session, now.questions)
        await self._records.bearers.identified(same, other)
        self._observer.questioned(now.folder, unanswered)
        if other:
            log.warning("message.replaced", mailbox=self._mailbox, folder=now.folder.name, messages=len(other))
            self._observer.replaced(len(other))
        if unanswered:
            log.warning("message.questioned", mailbox=self._mailbox, folder=now.folder.name, messages=len(unanswered))
            now.result.put_off(len(unanswered), self._clock.now() + APART)
        now.result.again = now.result.again or bool(same or other)

    async def replace_strangers(self, now: Pass, in_flight: InFlight) -> None:
        """What was fetched is not what the name stood for: it is claimed anew, under another mid."""
        claims = [raw.claim for raw in in_flight.strangers]
        refs = [replace(raw.claim.ref, size=raw.announced, received=raw.received) for raw in in_flight.strangers]
        in_flight.strangers = []
        await self._claims.put_down(claims)
        await self._records.bearers.identified([], refs)
        now.result.again = True
        log.warning("message.replaced", mailbox=self._mailbox, folder=now.folder.name, messages=len(refs))
        self._observer.replaced(len(refs))
