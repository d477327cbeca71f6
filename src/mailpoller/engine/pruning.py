"""Forgetting what was settled long ago and has left the mailbox."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from mailpoller.core.ports import FolderState, Session, Start
from mailpoller.engine.attended import Attended
from mailpoller.engine.name_set import NameSet

log = structlog.get_logger(__name__)

PRUNE_INTERVAL = timedelta(days=1)
PRUNED_LATER = timedelta(hours=1)
"""After a listing that was not whole, the next one for a pruning comes so much later."""


class Pruning:
    """Prunings of one mailbox's folders. ``progressed`` is called for each page that is listed."""

    def __init__(self, attended: Attended, progressed: Callable[[], None]) -> None:
        self._mailbox = attended.mailbox
        self._config = attended.config
        self._records = attended.records
        self._clock = attended.clock
        self._progressed = progressed
        self._prune_after: dict[str, datetime] = {}
        """Folder -> when it is to be pruned at the earliest, of those whose last whole listing was none."""

    async def prune(self, session: Session, state: FolderState) -> None:
        """Once a day, forget what was settled long ago and has left the mailbox.
        When that was, the ledger knows, for a service that is started anew every few minutes must do it, too."""
        folder, now = state.folder, self._clock.now()
        since = state.pruned_at or state.baseline_at
        if since <= now < since + PRUNE_INTERVAL or now < self._prune_after.get(folder.name, now):
            return
        present = NameSet()
        partial = False
        async for page in session.pending(folder, None, Start("all")):
            self._progressed()
            present.add(ref.uid for ref in page.refs)
            partial = partial or page.partial or bool(page.gap)
        if partial:
            # What it does not show may be there all the same. Later; to list everything at every poll would cost too
            # much.
            self._prune_after[folder.name] = now + PRUNED_LATER
            return
        self._prune_after.pop(folder.name, None)
        forgotten = await self._records.folders.prune(folder, present, before=now - self._config.keep)
        log.info("ledger.pruned", mailbox=self._mailbox, folder=folder.name, forgotten=forgotten, present=len(present))
