"""The sink of a Redis stream: an entry a message, and a delivery id is held once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import QueueVanished, TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.parts import parts
from mailpoller.core.ports import Clock, Mark, OctetsPlace, SinkDoubt
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.remote.redis.client import ask, borrowed, close_pool, make_client, place_of
from mailpoller.sinks.redis import durability
from mailpoller.sinks.redis.config import RedisQueueSettings
from mailpoller.sinks.redis.jobs import FORMATS
from mailpoller.sinks.redis.script import ENTRIES, JOBS, Keys, entry_of
from mailpoller.wire.worth import Worth

_T = TypeVar("_T")

CALL_OCTETS = 4 << 20
"""Octets of a call of the script, which stops everybody else at the server while it runs; one message may be more."""
CALL_MESSAGES = 200
_OCTETS_PER_S = 1_000_000


class RedisQueue:
    """The sink. The server's settings are read at each connection before anything is sent over it, and every hour."""

    doubts = (NOT_DURABLE,)

    def __init__(self, name: str, config: RedisQueueSettings, clock: Clock) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        ours = f"{{mailpoller:{name}}}"
        self._format = FORMATS.get(config.format)
        self.octets_place: OctetsPlace = "beside" if self._format is None else "inside"
        self._jobs = "" if self._format is None else config.job_queue or self._format.usual
        self._script = ENTRIES if self._format is None else JOBS
        self._keys = Keys(config.stream or ours) if self._format is None else Keys(self._format.key(self._jobs), ours)
        self._place = place_of(config)
        self._seconds = config.timeout.total_seconds()
        self._client = make_client(config, self._greet)
        self._expected: Mark | None = None
        self._worth = Worth(name, config.durability, clock, lambda: self._place)

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. Raises :class:`TransientError` also if a part of the batch is
        held; that part is a repeat then."""
        await self._look_again()
        refusals = {one.delivery_id: self._too_large(one) for one in batch if self._size(one) > self._config.max_size}
        answers: list[Receipt] = []
        taken = (one for one in batch if one.delivery_id not in refusals)
        for part in parts(taken, self._size, octets=CALL_OCTETS, messages=CALL_MESSAGES):
            answers += await self._hold(part)
        receipts = iter(answers)
        return [refusals.get(one.delivery_id) or next(receipts) for one in batch]

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`: connection, login, the right to run the script on our keys, room,
        and what the server's answers are worth."""
        trouble, kind = await self._ask(self._look)
        wanted = "stream" if self._format is None else "list"
        if "none" not in kind and wanted not in kind:
            raise TransientError(f"{self._place}: the key {self._keys.stream} is there and is no {wanted}")
        if trouble:
            raise TransientError(f"{self._place}: {trouble}")
        await self._call([])

    async def upkeep(self) -> Sequence[SinkDoubt]:
        """What the configuration accepts though it may lose mail. Reads the server's settings if that is long ago."""
        await self._look_again()
        if self._expected is not None:
            await self.renewed()
        return self._worth.doubts()

    async def holds(self, delivery_ids: Collection[str]) -> Collection[str]:
        """See :class:`~mailpoller.core.ports.Recalling`."""
        wanted = list(delivery_ids)
        if not wanted:
            return []
        found = await self._ask(lambda: self._client.mget([self._keys.of(one) for one in wanted]))
        return [one for one, entry in zip(wanted, found, strict=True) if entry is not None]

    async def still_holds(self, delivery_ids: Collection[str]) -> Collection[str]:
        """See :class:`~mailpoller.core.ports.Inspectable`. As long as the ids are remembered; what became of a job only
        its workers know, so that those are never held."""
        wanted = list(delivery_ids)
        if not wanted or self._format is not None:
            return []
        entries = await self._ask(lambda: self._client.mget([self._keys.of(one) for one in wanted]))
        held = []
        for one, entry in zip(wanted, entries, strict=True):
            if entry is not None and await self._has_entry(_text(entry)):
                held.append(one)
        return held

    async def _has_entry(self, place: str) -> bool:
        return bool(await self._ask(lambda: self._client.xrange(self._keys.stream, place, place)))

    async def mark(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        fields = ["identity", "height"]
        identity, height = await self._ask(lambda: self._client.hmget(self._keys.mark, fields))
        return None if identity is None else Mark(_text(identity), int(height or 0), self.place())

    async def renewed(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`. The height is written with every message, so it needs no more."""
        found = await self.mark()
        if self._expected is not None and (trouble := self._expected.unlike(found, self.place())):
            raise QueueVanished(trouble)
        return found

    def expect(self, mark: Mark | None) -> None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        self._expected = mark

    def place(self) -> str:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return f"{self._place} {self._keys.stream}"

    @property
    def durability(self) -> Durability | None:
        """See :class:`~mailpoller.core.ports.Durable`."""
        return self._worth.found

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._client.aclose()
        await close_pool(self._client.connection_pool)

    # --- delivering ----------------------------------------------------------------------------------------------

    async def _hold(self, part: Sequence[Delivery]) -> list[Receipt]:
        answers = await self._call(part)
        if len(answers) != len(part):
            raise TransientError(f"{self._place}: it answered for {len(answers)} of {len(part)} messages")
        return [
            SealedReceipt(one.delivery_id, _text(entry), repeated=bool(known))
            for one, (known, entry) in zip(part, answers, strict=True)
        ]

    async def _call(self, part: Sequence[Delivery]) -> list[tuple[int, bytes]]:
        """Run the script; its answers, once enough replicas have what it wrote."""
        expected = self._expected
        known = self._config.maxlen or "" if self._format is None else self._format.known
        keys, words = self._keys.call(part, int(self._config.remember.total_seconds()), known, expected, self._shape)

        async def run() -> list[Any]:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.evalsha(self._script.sha, len(keys), *keys, *words)
                if self._config.replicas and part:
                    pipe.wait(self._config.replicas, max(1, int(self._seconds * 1000)))
                answers = await pipe.execute(raise_on_error=False)  # its errors would repeat what we sent
            for one in answers:
                if isinstance(one, Exception):
                    raise one
            return answers

        async def run_known() -> list[Any]:
            try:
                return await run()
            except NoScriptError:  # somebody removed it
                await self._client.script_load(self._script.text)
                return await run()

        more = sum(map(self._size, part)) / _OCTETS_PER_S + (self._seconds if self._config.replicas else 0)
        (identity, height, answers), *waited = await self._ask(run_known, more)
        found = Mark(_text(identity), height, self.place()) if identity else None
        if answers is None:
            assert expected is not None
            raise QueueVanished(expected.unlike(found, self.place()))
        if found is not None and self._expected is not None and self._expected.height < found.height:
            self._expected = found
        if waited and waited[0] < self._config.replicas:
            raise TransientError(f"{self._place}: {waited[0]} of {self._config.replicas} replicas have the messages")
        return list(answers)

    def _size(self, delivery: Delivery) -> int:
        beside = delivery.octets_wanted and self.octets_place == "beside"
        return delivery.event.size + (delivery.raw.octets.size if beside else 0)

    def _shape(self, one: Delivery) -> Sequence[bytes | str | int]:
        """What the script is told of one delivery behind its id."""
        if self._format is None:
            return entry_of(one)
        return self._format.render(one, self._config.job or "", self._jobs, self._clock.now()), 0, self._jobs

    def _too_large(self, delivery: Delivery) -> Refusal:
        reason = f"the message has {self._size(delivery):,} octets here, and max_size is {self._config.max_size:,}"
        return Refusal(delivery.delivery_id, reason, permanent=True, unasked=True)

    # --- what its answers are worth ------------------------------------------------------------------------------

    async def _greet(self, connection: AbstractConnection) -> None:
        try:
            await connection.on_connect()
            await self._judge(connection)
            await connection.send_command("SCRIPT", "LOAD", self._script.text)
            await connection.read_response()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def _look_again(self) -> None:
        """Read the settings if that is long ago, or if they were refused the last time."""
        if self._worth.found is not None and self._worth.due:
            await self._ask(self._look_now)

    async def _look_now(self) -> None:
        async with borrowed(self._client) as connection:
            await self._judge(connection)

    async def _look(self) -> tuple[str, str]:
        async with borrowed(self._client) as connection:
            await self._judge(connection)
            trouble = await durability.trouble(connection)
        return trouble, str(await self._client.type(self._keys.stream))

    async def _ask(self, work: Callable[[], Awaitable[_T]], more: float = 0) -> _T:
        return await ask(self._client, self._place, self._seconds + more, work)

    async def _judge(self, connection: AbstractConnection) -> None:
        """Read what the server's answers are worth. Raises :class:`TransientError` if we do not take that."""
        found = await durability.read(connection)
        self._worth.note(found)


def _text(octets: bytes | str) -> str:
    return octets.decode("ascii", "replace") if isinstance(octets, bytes) else octets
