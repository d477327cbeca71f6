"""A session beside the mailbox's own, in which a message that takes sessions with it has all the time there is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import structlog

from mailpoller.core.errors import MachineTrouble, MailpollerError, SessionLost, TransientError, machine_trouble
from mailpoller.core.message import Claim, Gone, RawMessage
from mailpoller.core.ports import Clock, Parallel, Progressing, Session, Source
from mailpoller.core.spool import MEMORY_THRESHOLD
from mailpoller.engine.budget import Budget
from mailpoller.engine.connections import ConnectionSlot
from mailpoller.engine.deadline import LEAST, WINDOW

log = structlog.get_logger(__name__)

Answer = RawMessage | Gone | TransientError
"""What came of it: :class:`SessionLost` if it takes this session with it, too."""


class SideSession:
    """Fetches one message at a time for the mailbox's own session, which goes on meanwhile: that new mail does not
    wait for a message which may only be slow.

    Used as a context manager for as long as the mailbox is attended; outside of it, and where a source has one session
    at a time (see :class:`~mailpoller.core.ports.Parallel`), it is not ``ready``. ``admit``: a place to connect from.
    """

    def __init__(
        self, mailbox: str, source: Source, clock: Clock, admit: Callable[[], Awaitable[ConnectionSlot]]
    ) -> None:
        self._mailbox = mailbox
        self._source = source
        self._clock = clock
        self._admit = admit
        self._open = False
        self._task: asyncio.Task[Answer] | None = None
        self._claim: Claim | None = None

    @property
    def ready(self) -> bool:
        """True if it can be used."""
        return self._open and isinstance(self._source, Parallel)

    def answer(self, claim: Claim, limit: int, budget: Budget) -> Answer | None:
        """What came for this message, once; None while it is waited for, which begins now if it had not.

        At most the first ``limit`` octets of it, and no more of them in memory than ``budget`` has room for.
        While another is waited for, this one's turn comes later. Octets are the caller's, who looks at the message
        again in his own session before he has anything done with it there."""
        if self._claim is not None and _same(self._claim, claim):
            if self._task is None or not self._task.done():
                return None
            task, self._task, self._claim = self._task, None, None
            return task.result()
        if self._task is not None and not self._task.done():
            return None
        self._discard()
        self._claim = claim
        self._task = asyncio.create_task(self._fetch(claim, limit, budget), name=f"fetch beside {self._mailbox}")
        log.info("session.beside", mailbox=self._mailbox, mid=claim.mid, uid=claim.ref.uid)
        return None

    async def _fetch(self, claim: Claim, limit: int, budget: Budget) -> Answer:
        """Never raises but CancelledError."""
        try:
            with await self._admit():
                reservation = await budget.reserve(min(limit, claim.ref.size or limit, MEMORY_THRESHOLD))
                try:
                    return await self._fetched(claim, limit)
                finally:
                    reservation.release()
        except TransientError as error:
            return error
        except MailpollerError as error:
            return TransientError(str(error))
        except Exception as error:
            if (trouble := machine_trouble(error)) is None:
                raise
            return MachineTrouble(trouble)

    async def _fetched(self, claim: Claim, limit: int) -> Answer:
        session = await self._source.connect()
        try:
            if await session.open(claim.ref.folder.name) != claim.ref.folder:
                raise TransientError("the folder's numbering is another")
            return await self._within_pace(session, self._asked(session, claim, limit))
        finally:
            with contextlib.suppress(MailpollerError):
                await session.close()

    async def _asked(self, session: Session, claim: Claim, limit: int) -> Answer:
        found: Answer = SessionLost("the server did not answer for it")
        try:
            async for answer in session.fetch([claim], limit):
                found = answer
        except BaseException:
            if isinstance(found, RawMessage):
                found.octets.close()
            raise
        return found

    async def _within_pace(self, session: Session, asked: Awaitable[Answer]) -> Answer:
        """What is slower than :data:`~mailpoller.engine.deadline.LEAST` is given up: the session's own deadlines are
        about silence."""
        fetching = asyncio.ensure_future(asked)
        try:
            octets = 0
            while not fetching.done():
                await asyncio.wait([fetching], timeout=WINDOW.total_seconds())
                come = session.octets_in if isinstance(session, Progressing) else 0
                if not fetching.done() and come - octets < LEAST * WINDOW.total_seconds():
                    raise SessionLost("too few octets of it come in a minute")
                octets = come
            return fetching.result()
        finally:
            fetching.cancel()

    def _discard(self) -> None:
        """What nobody asked for any more."""
        task, self._task, self._claim = self._task, None, None
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return
        if isinstance(answer := task.result(), RawMessage):
            answer.octets.close()

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._discard()


def _same(one: Claim, other: Claim) -> bool:
    return one.mid == other.mid and one.ref.folder == other.ref.folder and one.ref.uid == other.ref.uid
