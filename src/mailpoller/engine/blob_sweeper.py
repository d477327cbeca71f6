"""Octets that events refer to are removed when nobody needs them any more."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

import structlog

from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.core.ports import BlobStore, Clock, IdleBlob, Inspectable, Stories
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.queues import Queue

log = structlog.get_logger(__name__)

SWEEP_INTERVAL = timedelta(hours=1)
SETTLING = timedelta(minutes=1)
LOOKED_AT = 200
"""Blobs that are looked at together."""


class Sweeper:
    """Removes what has lain for ``keep`` since it was last referred to, unless the ledger owes its message, or a queue
    that can be looked into holds its event. What cannot be told now is kept."""

    def __init__(
        self,
        store: BlobStore,
        keep: timedelta,
        queues: Callable[[], Iterable[Queue]],
        ledger: Stories,
        clock: Clock,
    ) -> None:
        self._store = store
        self._keep = keep
        self._queues = queues
        self._ledger = ledger
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep every hour, until ``stop``."""
        async with TaskGroup() as group:
            sweeping = group.create_task(self._again_and_again(), name="sweep blobs")
            await stop.wait()
            sweeping.cancel()

    async def _again_and_again(self) -> None:
        await self._clock.sleep(SETTLING.total_seconds())
        while True:
            try:
                await self.sweep()
            except MailpollerError as error:
                log.warning("blobs.unswept", reason=str(error))
            await self._clock.sleep(SWEEP_INTERVAL.total_seconds())

    async def sweep(self) -> int:
        """Remove all that may go now; how many that were. Raises :class:`TransientError`."""
        await self._store.tidy()
        before, removed = self._clock.now() - self._keep, 0
        while several := await self._store.idle(before, limit=LOOKED_AT):
            needed = await self._needed(several)
            if needed:
                await self._store.spare(needed)
            removed += await self._store.remove([one.sha256 for one in several if one.sha256 not in needed], before)
        if removed:
            log.info("blobs.removed", count=removed)
        return removed

    async def _needed(self, several: Sequence[IdleBlob]) -> set[bytes]:
        references = [reference for one in several for reference in one.references]
        owed = set(await self._ledger.still_owed({one.mid for one in references}))
        needed = {one.sha256 for one in references if one.mid in owed}
        by_queue: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        for one in references:
            by_queue[one.queue][one.delivery_id] = one.sha256
        queues = list(self._queues())
        for name, blobs in by_queue.items():
            # One of a name that is no queue's may have been renamed more than once, or long ago: any may hold it.
            for queue in [one for one in queues if name in (one.name, one.formerly)] or queues:
                if isinstance(queue.sink, Inspectable):
                    needed.update(await self._held(queue.name, queue.sink, blobs))
        return needed

    async def _held(self, name: str, sink: Inspectable, blobs: dict[str, bytes]) -> list[bytes]:
        try:
            return [blobs[one] for one in await sink.still_holds(blobs)]
        except TransientError as error:
            log.warning("blobs.unseen", queue=name, count=len(blobs), reason=str(error))
            return list(blobs.values())
