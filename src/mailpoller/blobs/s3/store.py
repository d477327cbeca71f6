"""Blobs in a bucket: an object under the SHA-256 of what it holds, put before anything refers to it.

Nothing is removed by us. A rule of the bucket may, by age: so each time an event is to refer to an object it is put
anew, and one that is still needed after ``keep`` is copied onto itself, which makes it young again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import structlog

from mailpoller.blobs.s3.config import S3BlobsSettings
from mailpoller.blobs.s3.rules import shortest
from mailpoller.core.durability import LOOK_AGAIN
from mailpoller.core.errors import MachineTrouble, TransientError
from mailpoller.core.parts import parts
from mailpoller.core.ports import BlobReference, Clock, IdleBlob
from mailpoller.core.spool import Octets
from mailpoller.storage import blob_index as index
from mailpoller.storage.sqlite import Database
from mailpoller.storage.sqlite.errors import SqliteUnavailable
from mailpoller.wire.aws.bucket import Bucket
from mailpoller.wire.aws.client import AwsClient
from mailpoller.wire.aws.transport import CONNECTIONS
from mailpoller.wire.cloudevents import RFC822

log = structlog.get_logger(__name__)

T = TypeVar("T")

PART_OCTETS = 16 << 20
"""Octets that are on their way at once; one message may be more."""
MARGIN = timedelta(days=7)
"""A rule of the bucket must wait this much longer than ``keep``: what is needed is made young again when it is ``keep``
old, and for so long nobody may be there to do it."""


class S3Blobs:
    """The store. Who refers to what is noted in a database in ``state``: it tells what is still needed, and is no proof
    of an object."""

    def __init__(self, config: S3BlobsSettings, clock: Clock, state: Path) -> None:
        self._config = config
        self._clock = clock
        self._where = f"s3 {config.bucket}"
        self._client = AwsClient("s3", config, self._where)
        self._bucket = Bucket(self._client, config)
        self._index = Database(state / "blobs-s3" / "index.db", index.BLOBS, recreate=True)
        self._looked_at: float | None = None

    def href(self, sha256: bytes) -> str:
        """See :class:`~mailpoller.core.ports.BlobStore`."""
        return self._config.base + sha256.hex()

    async def refer(self, octets: Sequence[Octets], references: Sequence[BlobReference]) -> None:
        """See :class:`~mailpoller.core.ports.BlobStore`. They are put whether or not they are there: the bucket counts
        the age of an object from that."""
        await self._require()
        wanted = {one.digest: one for one in octets}.values()
        for part in parts(wanted, lambda one: one.size, octets=PART_OCTETS, messages=CONNECTIONS):
            put = await asyncio.gather(*map(self._put, part), return_exceptions=True)
            for trouble in put:
                if trouble is not None:
                    raise trouble
        now = self._clock.now().timestamp()
        await self._indexed(self._index.write, lambda connection: index.refer(connection, references, now))

    async def idle(self, before: datetime, *, limit: int) -> Sequence[IdleBlob]:
        """See :class:`~mailpoller.core.ports.BlobStore`."""
        if not self._index.path.exists():
            return []
        return await self._indexed(
            self._index.read, lambda connection: index.idle(connection, before.timestamp(), limit)
        )

    async def spare(self, several: Collection[bytes]) -> None:
        """See :class:`~mailpoller.core.ports.BlobStore`."""
        for sha256 in several:
            if not await self._bucket.renew(sha256.hex(), RFC822):
                log.error("blobs.missing", file=sha256.hex(), reason="somebody else removed it")
        now = self._clock.now().timestamp()
        await self._indexed(self._index.write, lambda connection: index.adopt(connection, several, now))

    async def remove(self, several: Collection[bytes], before: datetime) -> int:
        """Forget them: a rule of the bucket removes them. None is removed by us, for a request to do it that was given
        up may be heeded much later, when an event refers to the object again."""

        def forget(connection: sqlite3.Connection) -> None:
            for sha256 in several:
                index.forget(connection, sha256, before.timestamp())

        await self._indexed(self._index.write, forget)
        return 0

    async def tidy(self) -> None:
        """See :class:`~mailpoller.core.ports.BlobStore`: there is nothing unfinished. The bucket's rules are looked
        at."""
        self._looked_at = None
        await self._require()

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.BlobStore`: the bucket, its rules, and what its answers are worth. The
        right to put is known by putting alone."""
        self._looked_at = None
        await self._require()
        await self._bucket.look()

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.BlobStore`. Harmless when repeated."""
        await self._client.close()
        await self._index.close()

    async def _put(self, one: Octets) -> None:
        await self._bucket.overwrite(one.digest.hex(), bytes(one.view()), RFC822, one.digest)

    async def _require(self) -> None:
        """Raise :class:`TransientError` unless what is put there stays for long enough."""
        if refusal := self._config.worth("S3").refusal(self._config.durability):
            raise TransientError(f"{self._where}: {refusal}")
        now = self._clock.monotonic()
        if self._looked_at is not None and now - self._looked_at < LOOK_AGAIN.total_seconds():
            return
        least = self._config.keep + MARGIN
        if (found := shortest(await self._bucket.rules(), self._config.prefix)) is not None and found[0] < least:
            after, name = found
            raise TransientError(
                f"{self._where}: its rule {name!r} removes objects after {after.days} days,"
                f" and blobs.keep and a week are {least.days}",
                advice="Let the bucket's rule (lifecycle) wait longer, or shorten blobs.keep.",
            )
        self._looked_at = now

    async def _indexed(self, ask: Callable[..., object], work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            found: T = await ask(work)  # type: ignore[misc]
            return found
        except SqliteUnavailable as error:
            raise MachineTrouble(str(error)) from error
