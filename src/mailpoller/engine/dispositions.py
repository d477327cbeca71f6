"""Telling the server what is settled, and remembering what it has not been told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import structlog

from mailpoller.core.delivery import Question, Settlement
from mailpoller.core.errors import SessionLost
from mailpoller.core.message import Folder
from mailpoller.core.ports import Session
from mailpoller.engine.in_flight import Pass, Telling
from mailpoller.engine.numbering import answer
from mailpoller.engine.observer import Observer
from mailpoller.engine.records import Records

log = structlog.get_logger(__name__)


class Dispositions:
    """Has one mailbox's settlements carried out on its server, and the server's word recorded."""

    def __init__(self, mailbox: str, *, records: Records, observer: Observer) -> None:
        self._mailbox = mailbox
        self._records = records
        self._observer = observer
        self._owed: dict[str, Settlement] = {}
        """Settlements whose disposition is not recorded yet, by mid: after trouble they are the first thing to do."""
        self._hung_up = False
        """Telling the server is what lost the last session."""

    def owe(self, settlements: Iterable[Settlement]) -> None:
        """Remember what was settled now, until the server's word of it is recorded."""
        self._owed.update((one.mid, one) for one in settlements if not one.disposition.leaves)

    def begin(self, now: Pass) -> None:
        """Put what is overdue first.

        Last, where telling the server is what loses the session, as a move may do again and again: else it would keep
        new mail from its queue for ever.
        """
        overdue = self._overdue(now.folder)
        if self._hung_up:
            now.last = overdue
        elif overdue:
            now.settled.put_nowait(Telling(overdue, owed=True))

    async def tell_settled(self, now: Pass) -> None:
        """Tell the server of what is settled, until the end of the pass. On a far line each time takes a round trip,
        behind all that is being fetched; what has gathered meanwhile is told together."""
        ended = False
        while not ended:
            several = [await now.settled.get()]
            while not now.settled.empty():
                several.append(now.settled.get_nowait())
            ended = None in several
            for owed in (True, False):
                batch = [one for told in several if told is not None and told.owed is owed for one in told.settlements]
                await self._tell(now, batch, owed=owed)
        if now.last:
            await self._tell(now, now.last, owed=True)

    async def _tell(self, now: Pass, settlements: Sequence[Settlement], *, owed: bool) -> None:
        """Carry out dispositions unless the pass is over. That the session is lost by this very thing is remembered."""
        settlements = [one for one in settlements if not one.disposition.leaves]
        if now.over or not settlements:
            return
        now.telling = asyncio.create_task(self._carry_out(now, settlements, owed), name=f"settle {self._mailbox}")
        try:
            await now.telling
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if now.given_up is None or task is None or task.cancelling():
                raise
            now.fail(now.given_up)  # behind what does not come, and due again

    async def _carry_out(self, now: Pass, settlements: Sequence[Settlement], owed: bool) -> None:
        """Never raises but CancelledError."""
        try:
            if owed:
                settlements = await self._identified(now, settlements)
            await self.dispose(now.session, settlements)
            self._hung_up = False
        except Exception as error:
            self._hung_up = self._hung_up or isinstance(error, SessionLost)
            now.fail(error)

    async def _identified(self, now: Pass, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Those whose names are still their own, by a look in this session, or that are not there any more.

        A size alone is too little to move or delete by: then the header decides.
        """
        seen = await now.session.look([one.ref for one in settlements])
        present = [ref for ref in seen if ref is not None]
        sights = {sight.ref.uid: sight for sight in await self._records.bearers.recognise(present)}
        questions: list[Question] = []
        strangers: set[str] = set()
        for one, ref in zip(settlements, seen, strict=True):
            sight = None if ref is None else sights[ref.uid]
            if ref is None or sight is None:
                continue
            if sight.mid != one.mid:
                strangers.add(ref.uid)  # in a numbering that was begun anew, or by a bearer that came since
                continue
            if sight.identity is None and not sight.message_id:
                continue
            drastic = one.disposition.delete or one.disposition.move is not None
            if sight.state == "question" or (drastic and ref.received is None and ref is not one.ref):
                questions.append(Question(ref, one.mid, sight.identity or b"", None, sight.message_id))
        same, other, unanswered = await answer(now.session, questions)
        await self._records.bearers.identified(same, other)
        if other:
            log.warning("message.replaced", mailbox=self._mailbox, folder=now.folder.name, messages=len(other))
            self._observer.replaced(len(other))
            now.result.again = True
        strangers |= {ref.uid for ref in other}
        for one in settlements:
            if one.ref.uid in strangers:
                self._owed.pop(one.mid, None)
        kept = strangers | {question.ref.uid for question in unanswered}
        return [one for one in settlements if one.ref.uid not in kept]

    async def dispose(self, session: Session, settlements: Sequence[Settlement]) -> None:
        """Carry out what is due on the server and record its word."""
        wanted = [settlement for settlement in settlements if not settlement.disposition.leaves]
        if not wanted:
            return
        results = await session.settle(wanted)
        await self._records.claims.disposed(results)
        for settlement in wanted:
            self._owed.pop(settlement.mid, None)
        failed = [result for result in results if result.state == "failed"]
        for result in failed:
            log.warning("disposition.failed", mid=result.settlement.mid, mailbox=self._mailbox, reason=result.reason)
        self._observer.disposed(failed, [result for result in results if result.state == "applied"])

    def _overdue(self, folder: Folder) -> list[Settlement]:
        return [one for one in self._owed.values() if one.ref.folder == folder]
