"""What one pass over a folder works on, and in which order: what is due, what is pending, what is in doubt; cut to
batches."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import choice
from typing import Protocol

import structlog

from mailpoller.core.message import Folder, MessageRef, Page, Position
from mailpoller.core.ports import Backlog, Session, Start
from mailpoller.core.record import record
from mailpoller.engine.dispatcher import Dispatcher
from mailpoller.engine.hangup_suspects import HangupSuspects
from mailpoller.engine.pass_result import PassResult

log = structlog.get_logger(__name__)


FIRST = 50
"""New messages of the first batch of a listing; each further one may have twice as many, up to the limit."""


SUSPECTS = 100
"""Suspects that are fetched together: so many that a round trip counts for little, so few that other mailboxes soon
have their turn."""


AMONG = 100
"""Due messages of which one, picked at random, tries a queue that was down: bad ones may stand first."""


Wanted = Callable[[MessageRef], bool] | None
"""Which of the listed messages are worked on; None: all."""


class Stop(Protocol):
    """What tells a pass to end, such as an :class:`asyncio.Event`. Asked between two batches."""

    def is_set(self) -> bool: ...


@record
class Limits:
    """The bounds of a batch and of patience."""

    batch_messages: int = 400
    batch_size: int = 8_000_000
    max_strikes: int = 3


@dataclass(slots=True)
class Batch:
    """Refs to be worked on together; once they are claimed the folder may advance to ``position``.

    ``alone``: nothing further is begun before what has become of this batch is known. ``doubted``: it may take the
    session with it, which is known and accepted.
    """

    refs: list[MessageRef]
    position: Position | None = None
    alone: bool = False
    doubted: bool = False


async def pages_of(
    session: Session, folder: Folder, since: Position | None, start: Start, planned: Sequence[Page], listed: bool
) -> AsyncGenerator[Page, None]:
    """What was planned earlier, then what is listed now, unless that is the same."""
    for page in planned:
        yield page
    if not listed:
        async for page in session.pending(folder, since, start):
            yield page


class Batcher:
    """Cuts one mailbox's work into batches.

    ``in_hand``: batches that may be under way when the next one is asked for. ``largest``: octets of a message that
    are fetched at most. ``skip``: records messages that ``start`` does not want. ``listed``: told
    how many messages a listing shows. ``reachable``: the queues that the mailbox's mail can go to, or None if that
    cannot be told.
    """

    def __init__(
        self,
        mailbox: str,
        *,
        backlog: Backlog,
        dispatcher: Dispatcher,
        hangup_suspects: HangupSuspects,
        limits: Limits,
        stop: Stop,
        reachable: frozenset[str] | None,
        largest: int,
        in_hand: Callable[[], int],
        skip: Callable[[Sequence[MessageRef]], Awaitable[None]],
        listed: Callable[[int], None],
    ) -> None:
        self._mailbox = mailbox
        self._backlog = backlog
        self._dispatcher = dispatcher
        self._hangup_suspects = hangup_suspects
        self._limits = limits
        self._stop = stop
        self._reachable = reachable
        self._largest = largest
        self._in_hand = in_hand
        self._skip = skip
        self._listed = listed
        self._new_first = False
        self._tried = ""
        """The uid that tried a queue that was down, the last time."""

    async def suspects(self, folder: Folder) -> list[MessageRef]:
        """The suspects to be worked on next, before all else; those that are in doubt as well come last and alone."""
        if self.has_to_end():
            return []
        doubted = self._hangup_suspects.uids(folder)
        limit = SUSPECTS + len(doubted)
        refs = await self._backlog.suspects(folder, limit=limit, down=self._dispatcher.down())
        free = deque(ref for ref in refs if ref.uid not in doubted)
        if not free:
            return list(refs[:1])
        return self._cut(free, 1 if self._dispatcher.probing() else SUSPECTS, rest=True)

    async def batches(
        self,
        folder: Folder,
        pages: AsyncGenerator[Page, None],
        result: PassResult,
        wanted: Wanted = None,
        *,
        whole: bool,
    ) -> AsyncGenerator[Batch, None]:
        """What is due, then what is pending, then what may take the session with it. ``whole``: the pages are of a
        full listing.

        Each batch is cut when it is asked for, because a queue that went down meanwhile changes what is worth fetching.
        While a queue is tried, every other pass begins with what is pending: what is due may all be bad.
        """
        doubted = self._hangup_suspects.uids(folder)
        worked = set(doubted)
        new_first = self._new_first = bool(self._dispatcher.probing()) and not self._new_first
        if not new_first:
            async for piece in self._due(folder, worked, len(doubted)):
                yield piece
            if self.has_to_end():
                return
        begun: set[str] = set()
        async with aclosing(self._pending(folder, pages, worked, result, wanted, whole=whole)) as pending:
            async for piece in pending:
                if new_first:
                    begun.update(ref.uid for ref in piece.refs)
                yield piece
                if self.has_to_end():
                    return
        if new_first:
            worked |= begun
            async for piece in self._due(folder, worked, len(doubted)):
                yield piece
            if self.has_to_end():
                return
        for refs in self._hangup_suspects.pieces(folder):
            waiting = deque(refs)
            while waiting:
                if self.has_to_end():
                    return
                yield Batch(self._cut(waiting, len(refs), rest=True), alone=True, doubted=True)
        result.exhausted = True

    async def _due(self, folder: Folder, worked: set[str], doubted: int) -> AsyncGenerator[Batch, None]:
        """What the ledger says is due; ``worked`` gets the uids."""
        while not self._stop.is_set():
            probing = self._dispatcher.probing()
            limit = 1 if probing else self._limits.batch_messages
            # What is in hand looks due still, and comes first.
            asked = AMONG if probing else limit * (1 + self._in_hand())
            due = await self._backlog.due(folder, limit=asked + doubted, down=self._dispatcher.down())
            waiting = deque(ref for ref in due if ref.uid not in worked)
            if not waiting:
                return
            if probing:
                waiting = deque([choice([ref for ref in waiting if ref.uid != self._tried] or waiting)])
                self._tried = waiting[0].uid
            piece = self._cut(waiting, limit, rest=True)
            worked.update(ref.uid for ref in piece)
            yield Batch(piece, alone=bool(probing))

    async def _pending(
        self,
        folder: Folder,
        pages: AsyncGenerator[Page, None],
        worked: set[str],
        result: PassResult,
        wanted: Wanted,
        *,
        whole: bool,
    ) -> AsyncGenerator[Batch, None]:
        """What the session lists, but for the uids that were ``worked`` on."""
        listed = yielded = begun = 0
        waiting: deque[MessageRef] = deque()
        covered: deque[tuple[int, Position]] = deque()
        async for page in pages:
            if not result.listed and page.listed is not None:
                self._listed(page.listed)
                if whole:
                    log.info("folder.listed", mailbox=self._mailbox, folder=folder.name, listed=page.listed)
            result.gap, result.partial = page.gap, result.partial or page.partial
            if page.unwanted:
                await self._skip(page.unwanted)
            refs = [ref for ref in page.refs if ref.uid not in worked] if worked else list(page.refs)
            if wanted is not None:
                refs = [ref for ref in refs if wanted(ref)]
            result.listed += len(page.refs)
            listed += len(refs)
            waiting += refs
            if page.position is not None:
                covered.append((listed, page.position))
            while piece := self._cut(waiting, self._new_at_once(begun), rest=False):
                yielded, begun = yielded + len(piece), begun + 1
                yield Batch(piece, _reached(covered, yielded), alone=self._new_at_once(begun) == 1)
        while waiting or covered:
            piece = self._cut(waiting, self._new_at_once(begun), rest=True)
            yielded, begun = yielded + len(piece), begun + 1
            yield Batch(piece, _reached(covered, yielded), alone=self._new_at_once(begun) == 1)

    def has_to_end(self) -> bool:
        """True if the service stops, or there is no point in fetching new mail: every queue that it could go to is
        down."""
        if self._stop.is_set():
            return True
        if self.only_waits():
            log.debug("mailbox.waiting", mailbox=self._mailbox, queues=sorted(self._reachable or ()))
            return True
        return False

    def only_waits(self) -> bool:
        """True if every queue that its mail could go to is down, or paused, and the service does not stop."""
        return bool(self._reachable and self._reachable <= self._dispatcher.down() and not self._stop.is_set())

    def expected(self, ref: MessageRef) -> int:
        """The octets that fetching it will bring, as far as the server has announced them."""
        return self._largest if ref.size is None else min(ref.size, self._largest)

    def _new_at_once(self, begun: int) -> int:
        """How many new messages the next batch may have, after so many: one, while every queue that they could go to
        wants one message first; else few at first, so that all stages are soon at work."""
        doubtful = self._dispatcher.down() | self._dispatcher.probing()
        if self._reachable and self._reachable <= doubtful:
            return 1
        return min(self._limits.batch_messages, FIRST << min(begun, 10))

    def _cut(self, waiting: deque[MessageRef], limit: int, *, rest: bool) -> list[MessageRef]:
        """Take the next piece off ``waiting``: at most ``limit`` messages and, by the sizes that the server
        announced, so many octets. Without ``rest`` a piece that could still grow is left there."""
        octets = count = 0
        largest = self._largest
        for ref in waiting:  # each is looked at two or three times: expected(), without a call
            octets += largest if (size := ref.size) is None or size > largest else size
            if count and (count >= limit or octets > self._limits.batch_size):
                break
            count += 1
        else:
            if not rest:
                return []
        return [waiting.popleft() for _ in range(count)]


def _reached(covered: deque[tuple[int, Position]], yielded: int) -> Position | None:
    """The furthest position all of whose messages are among the first ``yielded`` of the listing."""
    position = None
    while covered and covered[0][0] <= yielded:
        position = covered.popleft()[1]
    return position
