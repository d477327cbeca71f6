"""Telling the server what is settled, and remembering what it has not been told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from mailpoller.core.delivery import Settlement
from mailpoller.core.errors import SessionLost
from mailpoller.core.message import Folder
from mailpoller.core.ports import Ledger, Session
from mailpoller.engine.hand import Pass
from mailpoller.engine.observer import Observer

log = structlog.get_logger(__name__)


class Teller:
    """Has one mailbox's settlements carried out on its server, and the server's word recorded."""

    def __init__(self, mailbox: str, *, ledger: Ledger, observer: Observer) -> None:
        self._mailbox = mailbox
        self._ledger = ledger
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

        Last, where telling the server is what loses the session, as a move may do again and again: else it would keep new
        mail from its queue for ever.
        """
        overdue = self._overdue(now.folder)
        if self._hung_up:
            now.last = overdue
        else:
            now.settled.put_nowait(overdue)

    async def tell_settled(self, now: Pass) -> None:
        """Tell the server of what is settled, until the end of the pass. On a far line each time takes a round trip, behind
        all that is being fetched; what has gathered meanwhile is told together."""
        ended = False
        while not ended:
            several = [await now.settled.get()]
            while not now.settled.empty():
                several.append(now.settled.get_nowait())
            ended = None in several
            await self._tell(now, [one for batch in several if batch is not None for one in batch])
        if now.last:
            await self._tell(now, now.last)

    async def _tell(self, now: Pass, settlements: Sequence[Settlement]) -> None:
        """Carry out dispositions unless the pass is over. That the session is lost by this very thing is remembered."""
        if now.over or not settlements:
            return
        try:
            await self.dispose(now.session, settlements)
            self._hung_up = False
        except Exception as error:
            self._hung_up = self._hung_up or isinstance(error, SessionLost)
            now.fail(error)

    async def dispose(self, session: Session, settlements: Sequence[Settlement]) -> None:
        """Carry out what is due on the server and record its word."""
        wanted = [settlement for settlement in settlements if not settlement.disposition.leaves]
        if not wanted:
            return
        results = await session.settle(wanted)
        await self._ledger.disposed(results)
        for settlement in wanted:
            self._owed.pop(settlement.mid, None)
        failed = [result for result in results if result.state == "failed"]
        for result in failed:
            log.warning("disposition.failed", mid=result.settlement.mid, mailbox=self._mailbox, reason=result.reason)
        self._observer.disposed(failed, [result for result in results if result.state == "applied"])

    def _overdue(self, folder: Folder) -> list[Settlement]:
        return [one for one in self._owed.values() if one.ref.folder == folder]
