"""What is asked of a way in for mail that is to be sent, where programs leave entries and find the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, runtime_checkable

from mailpoller.core.record import record


@record
class WaitingEntry:
    """An entry that nobody has answered. ``key``: the same for this entry for ever, and no other's. ``octets``: None if
    it cannot be read as one; ``size`` then says how large it is, 0 for what is no text at all."""

    number: int
    key: str
    octets: bytes | None
    size: int = 0


@record
class EntryAnswer:
    """What is answered to an entry: the id and Message-ID of its mail, or why it is refused."""

    number: int
    mail: str = ""
    message_id: str = ""
    reason: str = ""


@record
class TakenEntry:
    """An entry that is accepted: its mail survives a power cut. ``repeated``: it had been, under the same key."""

    mail: str
    message_id: str
    recipients: int
    repeated: bool


class EntryTaker(Protocol):
    """What is done with an entry that somebody brings."""

    async def __call__(self, octets: bytes, key: str) -> TakenEntry:
        """Accept an entry in JSON under this key, if it is not empty. Raises
        :class:`~mailpoller.core.errors.EntryRefused` with the reason, and
        :class:`~mailpoller.core.errors.TransientError` if it may be accepted later."""


@runtime_checkable
class EntryListener(Protocol):
    """A place to which programs bring entries, and wait for the answer."""

    async def serve(self, take: EntryTaker, ended: asyncio.Event, *, largest: int, opened: Callable[[], None]) -> None:
        """Answer everybody until ``ended``, and then who was heard already. Entries have ``largest`` octets at most.
        ``opened`` is called once somebody can come. Raises :class:`~mailpoller.core.errors.TransientError` if nobody
        can."""

    async def check(self) -> None:
        """Raise :class:`~mailpoller.core.errors.TransientError` with the reason if nobody could come now. Makes
        nothing."""

    async def close(self) -> None: ...


class EntrySource(Protocol):
    """A place where programs leave entries."""

    async def waiting(self, *, limit: int, largest: int, but: Collection[int] = ()) -> Sequence[WaitingEntry]:
        """Entries that are not answered, oldest first, without those of the numbers ``but``; of those of more octets
        than ``largest`` the size alone. Fewer than ``limit`` if they would take much memory, and none only if there is
        none. Raises :class:`~mailpoller.core.errors.TransientError` if they cannot be read now."""

    async def answer(self, answers: Sequence[EntryAnswer]) -> None:
        """Write the answers, durably. One to an entry that is not there any more is nobody's. Raises
        :class:`~mailpoller.core.errors.TransientError`: then the entries are waiting still."""

    async def check(self) -> None:
        """Raise :class:`~mailpoller.core.errors.TransientError` with the reason if entries could not be taken or
        answered now. Makes nothing, and takes no entry."""

    async def close(self) -> None: ...
