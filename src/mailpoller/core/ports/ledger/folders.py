"""What is known of a folder: its epoch, how far its listing got, what was planned, whether it is held."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from datetime import datetime
from typing import Literal, Protocol

from mailpoller.core.message import Account, Folder, MessageRef, Position
from mailpoller.core.ports.records import Census, FolderState


class Folders(Protocol):
    """One row for each folder and epoch."""

    async def open_folder(self, folder: Folder, account: Account, *, formerly: str | None = None) -> FolderState:
        """Register the folder and its epoch if they are new, and tell what is known.

        ``formerly``: the mailbox's earlier name; its rows are renamed first, once. Another epoch than the last one
        (UIDVALIDITY, host or user) begins a new one under the same name.
        """

    async def begin_anew(self, folder: Folder, reason: str) -> None:
        """The numbering of this epoch was set back: a new epoch begins under the same name of an epoch.
        What a listing shows there under a known name, with the same size and date, stays what it was, under its mid.
        :meth:`open_folder` tells the new state."""

    async def strange(self, folder: Folder, doubtful: bool) -> None:
        """Keep when a survey first showed what we should know and do not (``doubtful``), or that it shows it no
        more."""

    async def census(self, folder: Folder, refs: Sequence[MessageRef], names: Container[str]) -> Census:
        """What a listing of a whole mailbox comes to. ``names``: the uids of ``refs``; another thread looks them up.
        Records nothing: until something is concluded from it, it is told again."""

    async def note_absent(self, folder: Folder, names: Container[str]) -> None:
        """Take such a listing: names that it lacks are absent from now on if they were not yet, those that it has are
        not."""

    async def advance(self, folder: Folder, position: Position) -> None:
        """Record how far the listing got. Called only after all that it covers is recorded."""

    async def plan(self, folder: Folder, refs: Sequence[MessageRef], position: Position | None) -> None:
        """Keep what a first listing shows, in one commit, before any of it is worked on: what ``start`` wants is
        decided once, whatever becomes of the messages' flags, of the queues and of us.
        The folder is advanced to ``position``, unless that is None."""

    async def planned(self, folder: Folder) -> Sequence[MessageRef]:
        """What was planned and is not recorded as a message of its own yet; nothing once the folder is complete."""

    async def complete(self, folder: Folder) -> None:
        """A full listing of this epoch was worked through: fingerprints stop suppressing repeats in it."""

    async def unknown(self, folder: Folder, refs: Sequence[MessageRef]) -> int:
        """An estimate of how many of ``refs`` were never settled in an earlier epoch of this folder: those whose size
        (as listed then and now) no earlier message had. A size counts as often as it occurred; no size is unknown."""

    async def left(self, folder: Folder) -> Collection[tuple[int | None, datetime | None]]:
        """Size, as listed, and date of the messages that no earlier epoch of this folder settled;
        None where it was not told."""

    async def hold(self, folder: Folder, reason: str) -> bool:
        """Note that an operator must decide about this epoch (``mailpoller accept``).
        False: one has decided meanwhile, and that stands."""

    async def accept(self, mailbox: str, how: Literal["baseline", "replay", "absence"]) -> int:
        """Release the held folders of a mailbox; or (``absence``) let what its folders do not show any more count as
        gone. Their number."""

    async def prune(self, folder: Folder, present: Container[str], *, before: datetime) -> int:
        """Forget settled messages of this folder (and of its former epochs) that were settled before ``before`` and
        that two prunings, at least a day apart, both missed among the uids ``present``; their number.
        Called only with a listing that shows everything. When it was is kept (``FolderState.pruned_at``)."""
