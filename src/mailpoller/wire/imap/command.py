"""A command on its way, and what has come for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import field

from aioimaplib import aioimaplib as library

from mailpoller.core.errors import SessionLost
from mailpoller.core.record import record
from mailpoller.wire.imap.reader import ProtocolViolation, Response, octets_of
from mailpoller.wire.imap.responses import Fetched, Status
from mailpoller.wire.imap.selected import SelectedFolder
from mailpoller.wire.imap.uids import MAX_UIDS, count_set
from mailpoller.wire.unasked import PIECE

MAX_DATA = 1 << 20
"""Octets of untagged data that one command may gather, each response counted as 100 more."""
MAX_DATA_OF = {"SEARCH": 16 << 20, "LIST": 8 << 20}
"""The same where an honest answer is larger: a million uids, tens of thousands of folders."""
_LOOK = 1000
"""After so many FETCH answers each it is asked whether there can be so many."""


@record
class Answer:
    """The end of a command, and the untagged data it gathered, in order."""

    status: Status
    data: list[Response] = field(default_factory=list)


class Request(library.Command):  # type: ignore[misc]
    """A command on its way, and what has come for it.

    Mends: ``repr`` showed the arguments, passwords among them; a timer was made anew for every line (the protocol
    watches all commands with one); the end of a command could only be awaited, so that sending on needed a task.
    """

    def __init__(
        self,
        name: str,
        tag: str,
        line: bytes,
        *,
        alone: bool,
        wants: Collection[bytes] = (),
        on_fetch: Callable[[Fetched], bool] | None = None,
        on_done: Callable[[Status], None] | None = None,
        replies: Iterable[bytes] = (),
        converse: bool = False,
    ) -> None:
        super().__init__(name, tag, loop=None)
        self.line = line
        self.alone = alone
        self.within: SelectedFolder | None = None
        self.wants = wants
        self.on_fetch = on_fetch
        self.on_done = on_done
        self.replies = deque(replies)
        self.challenges: asyncio.Queue[bytes | None] | None = asyncio.Queue() if converse else None
        self.unwanted = False  # an IDLE that is to end as soon as it has begun
        self.said_done = False
        self.status: Status | None = None
        self.expunged = 0  # messages that left the folder meanwhile, as the server says
        self.copied: set[int] = set()  # uids that were copied by it, as the server says (COPYUID, RFC 4315)
        self.data: list[Response] = []
        self.expires_at = float("inf")
        self._gathered = 0
        self._lines = 0
        self._told: tuple[int, int | None, int] | None = None

    def __repr__(self) -> str:
        return f"<{self.tag} {self.name}>"

    @property
    def done(self) -> bool:
        """Answered or failed."""
        return bool(self._event.is_set())

    def gather(self, response: Response) -> None:
        """Keep untagged data. Raises :class:`ProtocolViolation` when it is too much."""
        self._gathered += PIECE + octets_of(response)
        if self._gathered > (most := MAX_DATA_OF.get(self.name, MAX_DATA)):
            raise ProtocolViolation(f"the answer to {self.name} is larger than {most} octets")
        self.data.append(response)

    def belong(self, mailbox: SelectedFolder) -> None:
        """It is about messages of this folder, as that is now."""
        self.within = mailbox
        self._told = mailbox.exists, mailbox.uidnext, mailbox.arrived

    def count(self) -> None:
        """One more FETCH answer came that may be about it. Raises :class:`ProtocolViolation` if that is more than
        there can be."""
        self._lines += 1
        if not self._lines % _LOOK and self._told is not None and self._lines > 2 * self._messages(*self._told) + _LOOK:
            raise ProtocolViolation(f"{self._lines} answers to a FETCH of fewer messages")

    def _messages(self, exists: int, uidnext: int | None, arrived: int) -> int:
        """How many messages a UID FETCH may be answered with, by what was known of the folder when it was asked."""
        words = self.line.split(b" ", 4)[3]
        if not words.endswith(b"*"):
            return min(count_set(words), MAX_UIDS)
        if words == b"*":
            return 1
        there = min(exists, MAX_UIDS)
        low = words.partition(b":")[0]
        if uidnext is None or not low.isdigit():
            return there
        return min(there, max(0, uidnext - int(low)) + arrived)

    def end(self, status: Status) -> None:
        """The tagged answer has come."""
        self.status = status
        self._event.set()
        if self.challenges is not None:
            self.challenges.put_nowait(None)
        if self.on_done is not None:
            self.on_done(status)

    def fail(self, loss: SessionLost) -> None:
        """It will never come."""
        self._exception = loss
        self._event.set()
        if self.challenges is not None:
            self.challenges.put_nowait(None)

    async def challenged(self) -> bytes | None:
        """The server's next challenge, to be answered by :meth:`ImapProtocol.reply`;
        None when the command has ended."""
        assert self.challenges is not None
        return await self.challenges.get()

    async def answer(self) -> Answer:
        """Wait for the end. Raises :class:`SessionLost`."""
        await self.wait()
        assert self.status is not None
        return Answer(self.status, self.data)
