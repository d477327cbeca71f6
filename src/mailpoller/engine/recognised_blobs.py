"""A blob store that is begun anew by nobody but an operator: what earlier events refer to lies in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from mailpoller.core.errors import QueueVanished, TransientError
from mailpoller.core.ports import BlobReader, BlobReference, BlobStore, Clock, IdleBlob, QueueMarks, QueueRecord
from mailpoller.core.spool import Block, Octets
from mailpoller.engine.recognition import BLOBS, Recognition


class RecognisedBlobs:
    """A :class:`~mailpoller.core.ports.BlobStore` whose every method raises :class:`QueueVanished`, and makes nothing,
    while what lies in its place is not the store that events refer to: not mounted, another, or an older copy.

    A store that bears no mark (:class:`~mailpoller.core.ports.Marked`) is never in doubt.
    """

    def __init__(self, store: BlobStore, marks: QueueMarks, clock: Clock) -> None:
        self._store = store
        self._recognition = Recognition(BLOBS, store, marks, clock)

    def href(self, sha256: bytes) -> str:
        """See the port."""
        return self._store.href(sha256)

    async def refer(self, octets: Sequence[Octets], references: Sequence[BlobReference]) -> None:
        """See the port. The ledger knows the store before an event names anything in it."""
        async with self._recognised():
            await self._store.refer(octets, references)
        await self._recognition.received(len(references))

    async def read(self, mid: str, work: Callable[[Block], None]) -> bool:
        """See :class:`~mailpoller.core.ports.BlobReader`; of a store that is none nothing is held here."""
        async with self._recognised():
            return isinstance(self._store, BlobReader) and await self._store.read(mid, work)

    async def idle(self, before: datetime, *, limit: int) -> Sequence[IdleBlob]:
        """See the port."""
        async with self._recognised():
            return await self._store.idle(before, limit=limit)

    async def spare(self, several: Collection[bytes]) -> None:
        """See the port."""
        async with self._recognised():
            await self._store.spare(several)

    async def remove(self, several: Collection[bytes], before: datetime) -> int:
        """See the port."""
        async with self._recognised():
            return await self._store.remove(several, before)

    async def tidy(self) -> None:
        """See the port."""
        self._recognition.doubt()
        async with self._recognised():
            await self._store.tidy()

    async def check(self) -> None:
        """See the port."""
        self._recognition.doubt()
        async with self._recognised():
            await self._store.check()

    async def adopt(self) -> QueueRecord | None:
        """From now on what lies in its place is the store, or what is begun there. As
        :meth:`~mailpoller.engine.recognition.Recognition.adopt`."""
        return await self._recognition.adopt()

    async def close(self) -> None:
        """See the port."""
        await self._recognition.note()
        await self._store.close()

    @asynccontextmanager
    async def _recognised(self) -> AsyncIterator[None]:
        try:
            await self._recognition.require()
            yield
        except QueueVanished as error:
            self._recognition.doubt()
            raise QueueVanished(f"where its blobs lay: {self._recognition.explained(error)}") from error
        except TransientError:
            self._recognition.doubt()
            raise
