"""The sink of a PostgreSQL table: a batch is a transaction, and a delivery id is held once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.errors import (
    DataError,
    FeatureNotSupported,
    IntegrityError,
    ProgramLimitExceeded,
    RaiseException,
    UndefinedTable,
)

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import QueueVanished, TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.parts import parts
from mailpoller.core.ports import Clock, Mark, OctetsPlace, SinkDoubt
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.remote.postgres.connection import in_words
from mailpoller.remote.postgres.line import PostgresLine
from mailpoller.sinks.postgres.config import PostgresQueueSettings
from mailpoller.sinks.postgres.insertion import Begun, Tables
from mailpoller.sinks.postgres.jobs import USUAL, Job

log = structlog.get_logger(__name__)

PART_OCTETS = 16 << 20
"""Octets of a transaction; one message may be more."""
PART_MESSAGES = 500
_OCTETS_PER_S = 1_000_000
_OF_THE_MESSAGE = (DataError, ProgramLimitExceeded)
"""What PostgreSQL cannot hold: NUL in text, a character that its encoding lacks, a size."""
_OF_THE_TABLE = (IntegrityError, RaiseException)
"""What a rule that somebody gave the table does not let in."""
_OF_ONE = (*_OF_THE_MESSAGE, *_OF_THE_TABLE)

_T = TypeVar("_T")


class PostgresQueue:
    """The sink, over one connection. What a commit is worth is read in every transaction, before anything is
    written."""

    doubts = (NOT_DURABLE,)

    def __init__(self, name: str, config: PostgresQueueSettings, clock: Clock) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        self._place = config.place
        self._seconds = config.timeout.total_seconds()
        job = None if config.job is None else Job(config.job, config.job_queue or USUAL)
        self.octets_place: OctetsPlace = "beside" if job is None else "inside"
        self._tables = Tables(
            config.table_of(name),
            config.notify,
            seconds=self._seconds,
            most=self._seconds + config.max_size / _OCTETS_PER_S,
            job=job,
        )
        self._line = PostgresLine(config)
        self._expected: Mark | None = None
        self._found: Durability | None = None

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. Raises :class:`TransientError` also if a part of the batch is
        held; that part is a repeat then."""
        large = {one.delivery_id for one in batch if self._size(one) > self._config.max_size}
        answers: list[Receipt | Refusal] = []
        taken = (one for one in batch if one.delivery_id not in large)
        for part in parts(taken, self._size, octets=PART_OCTETS, messages=PART_MESSAGES):
            answers += await self._hold(part)
        held = iter(answers)
        return [self._too_large(one) if one.delivery_id in large else next(held) for one in batch]

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`: connection, login, tables and rights, and what a commit is
        worth."""

        async def look(connection: AsyncConnection[Any]) -> str:
            async with self._tables.transaction(connection) as begun:
                self._judge(begun)
                if begun.encoding != "UTF8":
                    named = begun.encoding or "unknown"
                    return f"the database's encoding is {named}, which cannot hold every mail: UTF8 can"
                return await self._tables.lack(connection)

        if trouble := await self._do(look):
            raise TransientError(f"{self._place}: {trouble}")

    async def upkeep(self) -> Sequence[SinkDoubt]:
        """Forget ids that are old enough; say what the configuration accepts though it may lose mail."""

        async def forget(connection: AsyncConnection[Any]) -> None:
            async with self._tables.transaction(connection) as begun:
                self._judge(begun)
                await self._tables.forget(connection, self._config.remember)

        await self._do(forget)
        words = self._found.doubt() if self._found is not None else ""
        return [SinkDoubt(NOT_DURABLE, f"{self._place}: {words}")] if words else []

    async def holds(self, delivery_ids: Collection[str]) -> Collection[str]:
        """See :class:`~mailpoller.core.ports.Recalling`."""
        return await self._do(lambda connection: self._tables.holds(connection, delivery_ids)) if delivery_ids else []

    async def still_holds(self, delivery_ids: Collection[str]) -> Collection[str]:
        """See :class:`~mailpoller.core.ports.Inspectable`."""
        if not delivery_ids:
            return []
        return await self._do(lambda connection: self._tables.still_holds(connection, delivery_ids))

    async def mark(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        try:
            found = await self._do(self._tables.mark, told=(UndefinedTable,))
        except UndefinedTable:
            return None
        return None if found is None else Mark(*found, self.place())

    async def renewed(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`. The height is written with every message, so it needs no more."""
        found = await self.mark()
        return self._recognise(None if found is None else (found.identity, found.height))

    def expect(self, mark: Mark | None) -> None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        self._expected = mark

    def place(self) -> str:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return f"{self._place} {self._tables.name}"

    @property
    def durability(self) -> Durability | None:
        """See :class:`~mailpoller.core.ports.Durable`."""
        return self._found

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._line.close()

    # --- delivering ----------------------------------------------------------------------------------------------

    async def _hold(self, part: Sequence[Delivery]) -> list[Receipt | Refusal]:
        """All of them in a transaction; if one of them is at fault, each in its own."""

        async def hold(connection: AsyncConnection[Any]) -> tuple[Collection[str], tuple[str, int] | None]:
            return await self._tables.hold(connection, part, self._judge)

        more = sum(map(self._size, part)) / _OCTETS_PER_S
        try:
            try:
                taken, mark = await self._do(hold, more, (*_OF_ONE, FeatureNotSupported))
            except FeatureNotSupported:  # rows under a policy, or a view with rules of its own
                self._tables.copy_no_more()
                taken, mark = await self._do(hold, more, _OF_ONE)
        except _OF_ONE as error:
            if len(part) > 1:
                return [answer for one in part for answer in await self._hold([one])]
            reason = in_words("PostgreSQL cannot hold it", error)
            return [Refusal(part[0].delivery_id, str(reason), permanent=isinstance(error, _OF_THE_MESSAGE))]
        if mark is not None and self._expected is not None and self._expected.height < mark[1]:
            self._expected = Mark(*mark, self.place())
        new = set(taken)
        answers: list[Receipt | Refusal] = []
        for one in part:
            answers.append(SealedReceipt(one.delivery_id, self._tables.name, repeated=one.delivery_id not in new))
            new.discard(one.delivery_id)
        return answers

    def _size(self, delivery: Delivery) -> int:
        beside = delivery.octets_wanted and self.octets_place == "beside"
        return delivery.event.size + (delivery.raw.octets.size if beside else 0)

    def _too_large(self, delivery: Delivery) -> Refusal:
        reason = f"the message has {self._size(delivery):,} octets here, and max_size is {self._config.max_size:,}"
        return Refusal(delivery.delivery_id, reason, permanent=True, unasked=True)

    def _judge(self, begun: Begun) -> None:
        """Raise :class:`TransientError` if we do not take what a commit is worth, :class:`QueueVanished` if this is
        not the queue that is expected."""
        found = begun.durability
        if found != self._found:
            log.info("queue.durability", queue=self.name, finding=found.finding, setting=found.setting)
        self._found = found
        if refusal := found.refusal(self._config.durability):
            raise TransientError(f"{self._place}: {refusal}")
        self._recognise(begun.mark)

    def _recognise(self, found: tuple[str, int] | None) -> Mark | None:
        mark = None if found is None else Mark(*found, self.place())
        if self._expected is not None and (trouble := self._expected.unlike(mark, self.place())):
            raise QueueVanished(trouble)
        return mark

    # --- the connection ------------------------------------------------------------------------------------------

    async def _do(
        self,
        work: Callable[[AsyncConnection[Any]], Awaitable[_T]],
        more: float = 0,
        told: tuple[type[psycopg.Error], ...] = (),
    ) -> _T:
        """See :meth:`PostgresLine.do`. Where there are no tables any more, :class:`QueueVanished` is raised."""
        try:
            return await self._line.do(work, more, (*told, UndefinedTable))
        except UndefinedTable as error:
            if self._expected is not None:
                self._recognise(None)
            if UndefinedTable in told:
                raise
            raise in_words(self._place, error, self._config.makes) from None
