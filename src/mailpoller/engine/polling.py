"""One look into each folder of a mailbox: verify, hold, carry, complete, prune."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from mailpoller.core.errors import LedgerUnavailable, SessionLost, TransientError
from mailpoller.core.message import Page
from mailpoller.core.ports import FolderState, Session
from mailpoller.engine.attended import Attended
from mailpoller.engine.batch_runner import BatchRunner
from mailpoller.engine.deadline import Deadline
from mailpoller.engine.epochs import Epochs, suppress
from mailpoller.engine.folders import FailingFolders
from mailpoller.engine.numbering import Numbering
from mailpoller.engine.pass_result import PassResult
from mailpoller.engine.patience import Patience
from mailpoller.engine.pruning import Pruning
from mailpoller.engine.reports import Reports

log = structlog.get_logger(__name__)


class Polls:
    """The polls of one mailbox, and what they have to remember from one to the next."""

    def __init__(
        self, attended: Attended, *, deadline: Deadline, patience: Patience, numbering: Numbering, reports: Reports
    ) -> None:
        self._attended = attended
        self._mailbox = attended.mailbox
        self._records = attended.records
        self._deadline = deadline
        self._patience = patience
        self._numbering = numbering
        self._reports = reports
        self._epochs = Epochs(attended, deadline.progressed)
        self._pruning = Pruning(attended, deadline.progressed)
        self._failing = FailingFolders(
            attended.mailbox,
            attended.config,
            alarm=attended.alarm,
            health=attended.health.mailboxes[attended.mailbox],
            group=attended.group,
        )

    @property
    def failing(self) -> bool:
        """True if a folder could not be polled, while others could."""
        return bool(self._failing)

    def holds(self, name: str | None = None) -> bool:
        """True if an operator must decide about this folder; about any."""
        return any(name in (None, folder.name) for folder in self._epochs.held)

    @property
    def unfinished(self) -> str:
        """Why not all can be done that should be, in words, or nothing."""
        if self.holds():
            return "it is held: an operator must decide"
        if self.failing:
            return "a folder cannot be polled"
        if self._numbering.doubted:
            return "messages stand where none was, and a further look decides"
        if self._numbering.unanswered():
            return "whether names stand for other messages cannot be told"
        return ""

    async def poll(
        self, session: Session, runner: BatchRunner, chosen: Sequence[str], names: Sequence[str]
    ) -> PassResult:
        """Carry each of the ``chosen`` folders, of all that the session has; the sum of it.

        A folder that cannot be polled does not stop the others. When none of them all can, that is the mailbox's own
        trouble.
        """
        total = PassResult(exhausted=True)
        polled: list[str] = []
        failed: dict[str, TransientError] = {}
        for number, name in enumerate(chosen):
            if number and self._patience.is_set():
                total.exhausted = False
                break
            self._deadline.progressed()
            try:
                total.add(await self._poll_folder(session, runner, name))
                polled.append(name)
            except (SessionLost, LedgerUnavailable):
                raise
            except TransientError as error:
                if error.retry_after is not None:
                    raise  # a server that wants to be left alone means all folders
                failed[name] = error
        if len(failed) == len(names):
            raise next(iter(failed.values()))
        await self._failing.note(names, polled, {name: str(error) for name, error in failed.items()})
        self._attended.health.mailboxes[self._mailbox].deferred = total.deferred
        log.debug("mailbox.polled", mailbox=self._mailbox, listed=total.listed, settled=total.settled)
        return total

    async def _poll_folder(self, session: Session, runner: BatchRunner, name: str) -> PassResult:
        folder = await session.open(name)
        state = await self._records.folders.open_folder(
            folder, self._attended.source.account, formerly=self._attended.config.formerly
        )
        if state.position is not None or state.complete:
            state = await self._verified(session, runner, state)
        if await self._epochs.must_hold(session, state):
            return PassResult(exhausted=True)
        start = self._epochs.start(state)
        self._epochs.begin(state)
        wanted = await self._epochs.wanted(state)
        position = state.position
        planned: Sequence[Page] = ()
        once = start.kind in ("now", "unseen") or state.accepted == "baseline"
        first = position is None and once and not state.complete and not state.planned
        if first:
            planned = await runner.plan(session, folder, start, wanted)
            listed = sum(len(page.refs) for page in planned)
            log.info("folder.listed", mailbox=self._mailbox, folder=name, listed=listed)
        elif state.planned and (refs := await self._records.folders.planned(folder)):
            planned = [Page(refs)]
        result = await runner.carry(
            session,
            folder,
            position,
            start,
            suppress=suppress(state),
            accepted=state.absence_accepted,
            wanted=wanted,
            planned=planned,
            listed=first,
            heirless=state.heirless,
            quiet=not state.complete,
        )
        await self._reports.gap(name, result)
        if result.partial or not result.exhausted:
            return result
        if not state.complete and await self._epochs.is_complete(result):
            await self._records.folders.complete(folder)
        if state.complete:
            await self._pruning.prune(session, state)
        return result

    async def _verified(self, session: Session, runner: BatchRunner, state: FolderState) -> FolderState:
        """What is known of the folder, once its names still stand for what they stood for: else of a new epoch."""
        folder = state.folder
        state, reason = await self._numbering.verify(session, state)
        if not reason:
            return state
        log.warning("epoch.set_back", mailbox=self._mailbox, folder=folder.name, epoch=folder.epoch, reason=reason)
        await self._records.folders.begin_anew(folder, reason)
        self._epochs.begin_anew(folder)
        runner.begin_anew(folder)
        self._reports.renumbered(f"{folder.name}: {reason}", "epoch.set_back")
        return await self._records.folders.open_folder(folder, self._attended.source.account)
