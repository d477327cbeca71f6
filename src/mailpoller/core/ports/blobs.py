"""The port of what holds raw octets that events refer to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from mailpoller.core.record import record
from mailpoller.core.spool import Block, Octets


@record
class BlobReference:
    """An event names a blob: the event of the message ``mid`` for ``queue``, under ``delivery_id``."""

    sha256: bytes
    queue: str
    delivery_id: str
    mid: str


@record
class IdleBlob:
    """A blob that was not referred to for long, and who refers to it."""

    sha256: bytes
    references: tuple[BlobReference, ...]


@runtime_checkable
class BlobReader(Protocol):
    """A blob store from which octets can be read here."""

    async def read(self, mid: str, work: Callable[[Block], None]) -> bool:
        """Let ``work`` see, in a thread, the octets that events of the message ``mid`` refer to, once they were read
        and are what their name says; what it raises is raised. False if none are held. They are not to be kept: the
        block ends with ``work``."""


class BlobStore(Protocol):
    """Octets under their SHA-256, each held once. Every method raises :class:`~mailpoller.core.errors.TransientError`
    for the store's sake, of which nothing is the message's fault."""

    def href(self, sha256: bytes) -> str:
        """Where a consumer finds the blob: a URI. The same for ever."""

    async def refer(self, octets: Sequence[Octets], references: Sequence[BlobReference]) -> None:
        """Return when all of these octets, to which the references lead, are held so that they and the references
        survive a power cut. Only then may an event name them. Excludes :meth:`remove`."""

    async def idle(self, before: datetime, *, limit: int) -> Sequence[IdleBlob]:
        """At most ``limit`` blobs that were referred to, and spared, before this instant for the last time, the
        longest idle first."""

    async def spare(self, several: Collection[bytes]) -> None:
        """Somebody still needs these: they count as referred to now."""

    async def remove(self, several: Collection[bytes], before: datetime) -> int:
        """Remove those of them that were not referred to since ``before``. Their number. Excludes :meth:`refer`."""

    async def tidy(self) -> None:
        """Called every hour: remove what a killed process left unfinished."""

    async def check(self) -> None:
        """Raise :class:`~mailpoller.core.errors.TransientError` with the reason if nothing could be held now. Leaves no
        trace."""

    async def close(self) -> None:
        """Free what is held. After this nothing is called."""
