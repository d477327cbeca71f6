"""Whether the queue that lies in a sink's place is the one that the ledger has receipts of."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from shlex import quote

import structlog

from mailpoller.core.errors import LedgerUnavailable, MailpollerError, QueueVanished, TransientError
from mailpoller.core.ports import Clock, Mark, Marked, QueueMarks, QueueRecord

log = structlog.get_logger(__name__)

NOTE_INTERVAL = timedelta(minutes=1)
"""How often the ledger is told at most how far a queue has got."""

BLOBS = "blobs:"
"""What the ledger knows the blob store by, and operators adopt it by; no queue may be called so."""


def vanished(record: QueueRecord | None, found: Mark | None, place: str) -> str:
    """Why what was ``found`` at ``place`` is not the queue that the ledger knows, and what an operator can do; else
    empty."""
    if record is None or not (trouble := record.mark.unlike(found, place)):
        return ""
    return (
        f"{trouble}; receipts of it that the ledger noted: {record.receipts:,}, from "
        f"{record.first_at:%Y-%m-%d %H:%M} to "
        f"{record.last_at:%Y-%m-%d %H:%M} UTC. {advice(record.name)}"
    )


def advice(name: str) -> str:
    """What an operator can do about a queue that vanished."""
    return f"Put it back, or begin anew with what is there: mailpoller queue adopt {quote(name)}"


class Recognition:
    """One queue's identity, for :class:`~mailpoller.engine.queues.Queue`. A sink that bears no mark is never in doubt.

    ``name`` is what the ledger knows the queue by. The ledger knows it before it has a receipt of it; from then on it
    is told once a minute how far the queue has got, and at the end.
    """

    def __init__(self, name: str, sink: object, marks: QueueMarks, clock: Clock) -> None:
        self.name = name
        self._what = "the blob store" if name == BLOBS else f"the queue {name}"
        self._sink = sink if isinstance(sink, Marked) else None
        self._marks = marks
        self._clock = clock
        self._lock = asyncio.Lock()
        self._certain = self._sink is None
        self._mark: Mark | None = None
        self._unnoted = 0
        self._noted_at: float | None = None

    async def require(self) -> None:
        """Return if the queue may be delivered to. Asks nobody once that is known.

        Raises :class:`QueueVanished`; :class:`LedgerUnavailable` if the ledger cannot be asked;
        :class:`TransientError` if the sink cannot tell.
        """
        if self._certain or self._sink is None:
            return
        async with self._lock:
            if not self._certain:
                await self._compare(self._sink)
                self._certain = True

    async def _compare(self, sink: Marked) -> None:
        record = await self._marks.queue_mark(self.name)
        known = record.mark if record is not None else self._mark
        if known is not None:
            # Before the look: whatever the sink is asked meanwhile, it makes nothing anew.
            sink.expect(known)
        found = await sink.mark()
        if trouble := vanished(record, found, sink.place()):
            raise QueueVanished(trouble)
        if record is None and known is not None and (trouble := known.unlike(found, sink.place())):
            raise QueueVanished(trouble)  # delivered to in this process, and not noted yet
        if found is not None:
            sink.expect(found)
        self._mark = found

    def doubt(self) -> None:
        """Something went wrong: look again before the next delivery."""
        self._certain = self._sink is None

    def explained(self, error: QueueVanished) -> str:
        """The words of a sink that found it out by itself, with what an operator can do."""
        words = str(error)
        return words if "queue adopt" in words else f"{words}. {advice(self.name)}"

    async def received(self, count: int) -> None:
        """The queue gave ``count`` receipts. Returns before the ledger has them: the first time it knows the queue by
        then."""
        if self.count(count):
            await self.note()

    def count(self, count: int) -> bool:
        """As :meth:`received`; True if it is time to :meth:`note`, which is left to the caller."""
        if self._sink is None or not count:
            return False
        self._unnoted += count
        return self._noted_at is None or self._clock.monotonic() - self._noted_at >= NOTE_INTERVAL.total_seconds()

    @property
    def certain(self) -> bool:
        """:meth:`require` asks nobody."""
        return self._certain

    async def note(self) -> None:
        """Tell the ledger how far the queue has got, if it has got any further. Never raises for the ledger's or the
        sink's sake: what could not be noted now is noted the next time."""
        sink = self._sink
        if sink is None or not self._unnoted:
            return
        async with self._lock:
            if not (count := self._unnoted):
                return
            try:
                mark = await sink.renewed()
                if mark is None:
                    self._noted_at = self._clock.monotonic()
                    return
                if self._mark is not None and self._mark.unlike(mark, mark.place):
                    self._certain = False
                    return
                await self._marks.note_queue(self.name, mark, count)
            except QueueVanished:
                self._certain = False
                return
            except MailpollerError as error:
                log.debug("queue.unnoted", queue=self.name, reason=str(error))
                return
            self._unnoted -= count
            self._noted_at = self._clock.monotonic()
            self._mark = mark
            sink.expect(mark)

    async def adopt(self) -> QueueRecord | None:
        """From now on what lies in the queue's place is the queue, or what is begun there: what was known of the one
        before.

        Raises :class:`MailpollerError` if there is nothing to adopt.
        """
        if self._sink is None:
            raise MailpollerError(f"{self._what} bears no mark: there is nothing to adopt")
        self.doubt()
        try:
            await self.require()
        except QueueVanished:
            pass
        except LedgerUnavailable:
            raise
        except TransientError as error:
            log.debug("queue.unnoted", queue=self.name, reason=str(error))
        else:
            raise MailpollerError(f"{self._what} is the one that was delivered to: there is nothing to adopt")
        async with self._lock:
            record = await self._marks.adopt_queue(self.name)
            self._mark, self._unnoted, self._noted_at, self._certain = None, 0, None, False
            self._sink.expect(None)
        return record
