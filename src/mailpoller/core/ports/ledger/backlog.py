"""What is still to be done: messages that wait, that were lost, that are suspected or to blame."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from mailpoller.core.message import Claim, Folder, MessageRef


class Backlog(Protocol):
    """Messages without an outcome, and those whose outcome may have been a mistake."""

    async def due(self, folder: Folder, *, limit: int, down: Collection[str] = ()) -> Sequence[MessageRef]:
        """At most ``limit`` refs of others to be worked on again now: messages whose disposition is due, then deferred
        messages whose time has come, oldest first; without those that wait for a queue named in ``down``."""

    async def suspects(self, folder: Folder, *, limit: int, down: Collection[str] = ()) -> Sequence[MessageRef]:
        """At most ``limit`` refs of suspects to be worked on now, those without strikes first; without those that wait
        for a queue named in ``down``."""

    async def at_risk(self, claim: Claim) -> None:
        """Mark a suspect just before it is parsed: a crash from here until :meth:`cleared` is a strike."""

    async def cleared(self, claim: Claim) -> None:
        """The suspect has its verdict: no risk, no strikes."""

    async def unsettled(self, folder: Folder, *, limit: int) -> Sequence[MessageRef]:
        """At most ``limit`` refs of messages that have no outcome yet and are not claimed."""

    async def sighted(
        self, folder: Folder, present: Sequence[MessageRef], absent: Sequence[MessageRef]
    ) -> tuple[int, int]:
        """Keep which messages a look showed, and which it missed (the first such look counts).
        How many of the folder's unsettled messages are absent now, and how many there are."""

    async def lost(self, folder: Folder, *, limit: int, turn: int = 0) -> Sequence[MessageRef]:
        """At most ``limit`` refs of messages that ended as ``gone`` before all of their queues had them, or as
        ``doubtful``, the latest first; from the one on whose ``turn`` it is, counted round and round."""

    async def revive(self, refs: Sequence[MessageRef]) -> int:
        """These are there: messages that had ended as ``gone`` are due, and those that had ended as ``doubtful`` and
        show another size or date now. Their number."""

    async def take_up(self, refs: Sequence[MessageRef]) -> int:
        """These refs of one folder were left out by ``start``: those that are unknown, or settled as ``skipped``, are
        due, of generation :data:`~mailpoller.core.identity.BACKFILLED`; their number. All others stay as they are, and
        so do skipped ones that show another size or date now.

        Raises :class:`MessageGone` if the folder was numbered anew since the refs were listed."""

    async def blame(self, refs: Sequence[MessageRef]) -> None:
        """The session was lost, or came to a standstill, while these had been asked for and had not come: one more
        time."""

    async def blamed(self, folder: Folder) -> Sequence[tuple[MessageRef, int]]:
        """Unsettled messages that are to blame, perhaps, for lost sessions, and for how many."""

    async def absolve(self, refs: Sequence[MessageRef]) -> None:
        """They came, and the session lived."""
