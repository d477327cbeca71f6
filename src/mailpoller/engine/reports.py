"""What becomes of one mailbox's messages, told to its health and to the alarm."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from mailpoller.core.delivery import Disposed, Outcome, Question
from mailpoller.core.message import Claim, Folder
from mailpoller.core.ports import Stuck
from mailpoller.engine.alarm import Kind
from mailpoller.engine.attended import Attended
from mailpoller.engine.deadline import Deadline
from mailpoller.engine.numbering import Numbering
from mailpoller.engine.pass_result import PassResult
from mailpoller.engine.patience import Patience
from mailpoller.engine.pipeline import FLOOD

log = structlog.get_logger(__name__)

_CALM = timedelta(hours=1)
"""Without a mail that is one too many, a flood is over."""


class Reports:
    """The :class:`~mailpoller.engine.observer.Observer` of a mailbox, which tells the batch runner's news on."""

    def __init__(self, attended: Attended, *, deadline: Deadline, patience: Patience, numbering: Numbering) -> None:
        self._attended = attended
        self._mailbox = attended.mailbox
        self._health = attended.health
        self._alarm = attended.alarm
        self._clock = attended.clock
        self._deadline = deadline
        self._patience = patience
        self._numbering = numbering
        self._disposition_failing = False
        self._flood: datetime | None = None
        """When a mail was one too many last."""
        self._gaps: dict[str, str] = {}
        """Folder -> what its listing does not show."""

    def progressed(self) -> None:
        self._deadline.progressed()

    def listed(self, count: int) -> None:
        self._health.mailboxes[self._mailbox].listed = count

    def unfetched(self, folder: Folder, count: int) -> None:
        self._health.unfetched(self._mailbox, folder.name, count)

    def skipped(self, outcomes: Sequence[Outcome]) -> None:
        pass  # the folder says how many it passes over

    def deferred(self, claims: Sequence[Claim], reason: str) -> None:
        pass  # what waits is asked of the ledger

    def absence(self, detail: str) -> None:
        if detail:
            self._alarm.tell(Kind.MAIL_ABSENT, self._mailbox, detail, group=self._attended.group)
            self._alarm.fault(self._mailbox, "mail.absent", detail)
        else:
            self._alarm.tell_end(Kind.MAIL_ABSENT, self._mailbox)

    def replaced(self, count: int) -> None:
        self.renumbered(f"{count} of its names stand for other messages now", "message.replaced")

    def renumbered(self, reason: str, event: str) -> None:
        """Names of the mailbox stand for other messages than they did."""
        at = self._clock.now().isoformat(timespec="seconds")
        self._alarm.tell(Kind.NUMBERING_CHANGED, self._mailbox, f"{reason} ({at})", group=self._attended.group)
        self._alarm.fault(self._mailbox, event, reason)

    def settled(self, outcome: Outcome) -> None:
        self._health.settled(self._mailbox, outcome)
        self._patience.gained = True
        if outcome.kind == "doubtful":
            self._alarm.tell(
                Kind.OCTETS_DOUBTFUL, self._mailbox, f"message {outcome.claim.mid}", group=self._attended.group
            )
        if outcome.kind == "quarantined" and outcome.reason == "poison":
            self._alarm.tell(
                Kind.POISON_QUARANTINED, self._mailbox, f"message {outcome.claim.mid}", group=self._attended.group
            )
        if outcome.kind == "quarantined" and outcome.reason == FLOOD:
            self._flooded(outcome)

    def _flooded(self, outcome: Outcome) -> None:
        """Told once, however many mails there are, until none was one too many for an hour."""
        now = self._clock.now()
        if self._flood is None or not timedelta(0) <= now - self._flood < _CALM:
            detail = f"message {outcome.claim.mid} is the first of them"
            self._alarm.tell(Kind.FLOOD_QUARANTINED, self._mailbox, detail, group=self._attended.group)
            self._alarm.fault(self._mailbox, "sender.braked", "its sender writes too often", outcome.claim.mid)
            log.warning("sender.braked", mailbox=self._mailbox, mid=outcome.claim.mid)
        self._flood = now

    def disposed(self, failed: Sequence[Disposed], applied: Sequence[Disposed]) -> None:
        if failed:
            self._disposition_failing = True
            self._alarm.tell(Kind.DISPOSITION_IMPOSSIBLE, self._mailbox, failed[0].reason, group=self._attended.group)
            self._alarm.fault(self._mailbox, "disposition.failed", failed[0].reason, failed[0].settlement.mid)
        elif applied and self._disposition_failing:
            self._disposition_failing = False
            self._alarm.tell_end(Kind.DISPOSITION_IMPOSSIBLE, self._mailbox)

    def questioned(self, folder: Folder, questions: Sequence[Question]) -> None:
        there = {one.ref.uid for one in questions}
        questions = [*questions, *(one for one in self._numbering.unanswered(folder) if one.ref.uid not in there)]
        asked = self._health.mailboxes[self._mailbox].questioned
        known = {one.ref.uid: one.since for one in asked.pop(folder.name, ())}
        if questions:
            now = self._clock.now()
            asked[folder.name] = [
                Stuck("question", one.ref, one.mid, known.get(one.ref.uid, now), "its header cannot be had")
                for one in questions
            ]

    def fault(self, event: str, detail: str, mid: str) -> None:
        self._alarm.fault(self._mailbox, event, detail, mid)

    async def gap(self, name: str, result: PassResult) -> None:
        """One alarm for a folder whose listing lacks messages that are there, until a listing that came to its end
        lacks none."""
        subject = f"{self._mailbox}/{name}"
        if result.gap:
            if self._gaps.get(name) != result.gap:
                self._gaps[name] = result.gap
                self._alarm.fault(self._mailbox, "listing.incomplete", f"{name}: {result.gap}")
            await self._alarm.raised(Kind.LISTING_GAP, subject, result.gap, group=self._attended.group)
        elif result.exhausted and not result.partial:
            self._gaps.pop(name, None)
            await self._alarm.ended(Kind.LISTING_GAP, subject)
