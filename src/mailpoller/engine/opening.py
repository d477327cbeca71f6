"""The parts of a message that take a reader of their own, opened by a worker while no other mailbox waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from mailpoller.core.body import Body, Contents
from mailpoller.core.message import Message, RawMessage
from mailpoller.engine.observer import Observer
from mailpoller.mail.contents.kinds import FAILED
from mailpoller.storage.thread import Pool
from mailpoller.workers.pool import NoWorker, Unread, Workers

log = structlog.get_logger(__name__)

OPENING = timedelta(seconds=30)
"""So long a batch waits for the contents of its mails, one after the other; those behind that wait for another one."""

_openers = Pool("open", 4)


@dataclass(slots=True)
class Unopened:
    """A message that is judged later: it has parts that are to be opened first, or answers one that is to be looked
    for. ``trouble``: why that cannot be now."""

    raw: RawMessage
    message: Message
    repeat_of: str | None
    trouble: NoWorker | None = None


class Opener:
    """Opens what is closed in one mailbox's messages: ``workers`` do it, or a thread of ours if there are none.

    What a worker hangs on, dies of or finds too large is the message's: it stays closed, and the message says so. A
    worker that cannot be begun is ours.
    """

    def __init__(self, mailbox: str, observer: Observer) -> None:
        self._mailbox = mailbox
        self._observer = observer

    async def open(self, workers: Workers | None, messages: Sequence[Unopened]) -> None:
        """Give each message its contents, or the trouble that keeps them from it now."""
        until = time.monotonic() + OPENING.total_seconds()
        for one in messages:
            try:
                if time.monotonic() > until:
                    raise NoWorker("the mails before it took too long to be opened")
                one.message.take_contents(self._looked_at(one.raw, await self._contents(workers, one)))
            except NoWorker as trouble:
                one.trouble = trouble
            self._observer.progressed()

    async def whole(self, workers: Workers, raw: RawMessage, *, contents: bool) -> Body:
        """The body of a suspect, with ``contents`` if they can be had. Raises :class:`Unread` and :class:`NoWorker`."""
        body = await workers.read(raw)
        if not body.closed or not contents:
            return body
        try:
            return body.opened(self._looked_at(raw, await workers.open(raw, body.closed)))
        except Unread as unread:
            return body.opened(self._unread(raw, body.closed, unread))

    async def _contents(self, workers: Workers | None, one: Unopened) -> Contents:
        closed = one.message.closed
        try:
            if workers is not None:
                return await workers.open(one.raw, closed)
            # Here, because few services ever open anything in their own process.
            from mailpoller.mail.contents.reader import read_contents

            return await asyncio.get_running_loop().run_in_executor(_openers, read_contents, one.message, closed)
        except Unread as unread:
            return self._unread(one.raw, closed, unread)
        except RecursionError:
            return self._unread(one.raw, closed, Unread("too-deep"))
        except MemoryError:
            raise NoWorker("there is not enough memory to open its parts") from None

    def _looked_at(self, raw: RawMessage, contents: Contents) -> Contents:
        """The contents, once it is told which reader raised: a bug of ours, and none of the message's."""
        if failed := ", ".join(undone.what for undone in contents.undone if undone.why == FAILED):
            log.error("message.unopenable", mid=raw.claim.mid, mailbox=self._mailbox, what=failed)
            self._observer.fault("message.unopenable", failed, raw.claim.mid)
        return contents

    def _unread(self, raw: RawMessage, closed: Sequence[str], unread: Unread) -> Contents:
        claim, reason = raw.claim, str(unread)
        what = ", ".join(closed)
        log.warning(
            "message.unopened", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid, what=what, reason=reason
        )
        self._observer.fault("message.unopened", f"{what}: {reason}", claim.mid)
        return Contents.unread(closed, reason)
