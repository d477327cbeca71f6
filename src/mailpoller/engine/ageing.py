"""Mail that is moved or deleted some time after it was settled."""

from __future__ import annotations

from datetime import datetime

import structlog

from mailpoller.core.message import Folder
from mailpoller.core.ports import Clock
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.dispatcher import Dispatcher
from mailpoller.engine.records import Records

log = structlog.get_logger(__name__)


class Ageing:
    """Has the dispositions of one mailbox's old settlements come due, as ``disposition.after`` wants it.

    Once in a poll interval, and no more than ``max_per_poll`` of them, in all folders together: what an operator has
    bounded is not multiplied by folders. From then on they are dispositions like all others: whose name it is, is
    looked at once more in the session that does it. While a queue that the mailbox's mail goes to is down, or has
    vanished, nothing comes due: its receipts may be worth nothing. Nor does what was settled before the mailbox was in
    shadow for the last time: another program was to deal with that mail.
    """

    def __init__(
        self,
        mailbox: str,
        config: SourceConfig,
        *,
        records: Records,
        dispatcher: Dispatcher,
        clock: Clock,
        reachable: frozenset[str] | None,
    ) -> None:
        self._mailbox = mailbox
        self._config = config
        self._records = records
        self._dispatcher = dispatcher
        self._clock = clock
        self._reachable = reachable
        self._looked_to: dict[Folder, datetime] = {}
        self._asked: set[Folder] = set()
        self._noted: set[Folder] = set()
        self._left = 0
        self._until = float("-inf")
        """The folders that were looked at in this interval, how many may come due in it yet, and its end."""

    async def bring_due(self, folder: Folder) -> None:
        """If it is time to."""
        wanted, after, shadow = self._config.later, self._config.disposition.after, self._config.mode == "shadow"
        if (shadow or wanted is not None) and folder not in self._noted:
            await self._records.claims.shadowed(folder, shadow)
            self._noted.add(folder)
        if wanted is None or after is None:
            return
        now = self._clock.monotonic()
        if now >= self._until:
            self._until = now + self._config.poll_interval.total_seconds()
            self._left = self._config.disposition.max_per_poll
            self._asked.clear()
        if folder in self._asked or not self._left:
            return
        down = self._dispatcher.down()
        if down if self._reachable is None else down & self._reachable:
            return
        found, self._looked_to[folder] = await self._records.claims.come_due(
            folder, wanted, beyond=self._looked_to.get(folder), until=self._clock.now() - after, limit=self._left
        )
        self._asked.add(folder)
        self._left -= found
        if found:
            log.info("disposition.came_due", mailbox=self._mailbox, folder=folder.name, messages=found)
