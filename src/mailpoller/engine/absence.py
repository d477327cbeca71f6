"""What a mailbox does not show: believed at the second look, and not at all when it is much at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from mailpoller.core.message import Claim, Folder
from mailpoller.core.ports import Backlog, Clock, Session
from mailpoller.core.record import record
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.numbering import APART, LOOKED_FOR
from mailpoller.engine.observer import Observer

log = structlog.get_logger(__name__)

BELIEVED_AFTER = timedelta(days=7)
"""Many absences at once are believed once the answer was the same for so long."""


@record
class Absence:
    """What to conclude of claims whose messages are not there: they are gone, or looked for again at ``until``."""

    gone: Sequence[Claim]
    waiting: Sequence[Claim]
    until: datetime
    reason: str = "the mailbox does not show it"


class Absences:
    """Judges the absences of one mailbox."""

    def __init__(
        self, mailbox: str, config: SourceConfig, *, backlog: Backlog, clock: Clock, observer: Observer
    ) -> None:
        self._mailbox = mailbox
        self._apart = max(APART, config.poll_interval)
        self._backlog = backlog
        self._clock = clock
        self._observer = observer
        self._told = False

    async def conclude(self, session: Session, folder: Folder, claims: Sequence[Claim], *, accepted: bool) -> Absence:
        """What to conclude at the end of a pass. ``accepted``: an operator said that what is absent is gone.

        Before the first message counts as gone, all others that wait are looked for: a store that is away lacks them
        all.
        """
        now = self._clock.now()
        others = await self._backlog.unsettled(folder, limit=LOOKED_FOR)
        seen = await session.look(others) if others else []
        absent = [ref for ref, found in zip(others, seen, strict=True) if found is None]
        missed, total = await self._backlog.sighted(
            folder, [ref for ref, found in zip(others, seen, strict=True) if found is not None], absent
        )
        missed += sum(claim.absent_at is None for claim in claims)
        # Where more wait than are looked for, these stand for all.
        shown = len(others) - len(absent)
        many = missed >= 2 and (2 * missed > total or (len(others) == LOOKED_FOR and missed > shown))
        if many and not accepted:
            detail = (
                f"{missed} of {total} messages that wait in {folder.name} are not there; none of them counts as gone"
            )
            log.warning("mail.absent", mailbox=self._mailbox, folder=folder.name, absent=missed, waiting=total)
            self._told = True
            self._observer.absence(detail)
        ripe = [
            claim
            for claim in claims
            if claim.absent_at is not None
            and now - claim.absent_at >= (BELIEVED_AFTER if many and not accepted else self._apart)
        ]
        gone = {id(claim) for claim in ripe}
        waiting = [claim for claim in claims if id(claim) not in gone]
        return Absence(ripe, waiting, now + self._apart)

    async def over(self, folder: Folder) -> None:
        """A pass missed nothing: an alarm ends once nothing is absent any more."""
        if self._told:
            absent, _ = await self._backlog.sighted(folder, [], [])
            if not absent:
                self._told = False
                self._observer.absence("")
