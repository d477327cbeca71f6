"""The sink of a bucket: an object for each event, beside it one for its octets, each put once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from typing import Literal

from mailpoller.core.answers import in_order, sifted
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.parts import parts
from mailpoller.core.ports import Clock, OctetsPlace, SinkDoubt
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.core.spool import Octets
from mailpoller.sinks.s3.config import S3QueueSettings
from mailpoller.storage.recent import Recent
from mailpoller.wire.aws.bucket import Bucket
from mailpoller.wire.aws.client import AwsClient, AwsError
from mailpoller.wire.cloudevents import RFC822, STRUCTURED
from mailpoller.wire.worth import Worth

PART_OCTETS = 16 << 20
"""Octets that are on their way at once; one message may be more."""
_TOO_LARGE = frozenset(("EntityTooLarge", "MaxMessageLengthExceeded", "413"))

Answer = Receipt | Refusal | TransientError


class S3Queue:
    """The sink. Octets are put before the event that leads to them. What is there already counts once it was looked
    at: an event if it is of the same delivery, octets if they are the same.

    The bucket is looked at before the first message, and hourly.
    """

    doubts = (NOT_DURABLE,)
    sifts: Literal[True] = True
    octets_place: OctetsPlace = "beside"

    def __init__(self, name: str, config: S3QueueSettings, clock: Clock) -> None:
        self.name = name
        self._config = config
        self._where = f"s3 {config.bucket}"
        self._client = AwsClient("s3", config, self._where)
        self._bucket = Bucket(self._client, config)
        self._recent = Recent()
        self._worth = Worth(name, config.durability, clock, lambda: self._where)

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. Raises :class:`TransientError` if nothing is known of any."""
        if not batch:
            return []
        if self._worth.due:
            await self.check()
        answers, fresh = sifted(batch, self._recent.__contains__, self._too_large, self._repeated)
        trouble: TransientError | None = None
        for part in parts(fresh.values(), self._size, octets=PART_OCTETS, messages=self._config.connections):
            for one, answer in zip(part, await self._bring(part), strict=True):
                if isinstance(answer, TransientError):
                    trouble = trouble or answer
                else:
                    answers[one.delivery_id] = answer
            if trouble is not None:
                break
        self._recent.add(one for one in fresh if isinstance(answers.get(one), Receipt))
        return in_order(batch, answers, trouble, self._repeated)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`: connection, login, that the bucket is there, and what an answer is
        worth. The right to put is known by putting alone."""
        await self._bucket.look()
        self._worth.note(self._config.worth("S3"))

    async def upkeep(self) -> Sequence[SinkDoubt]:
        """What the configuration accepts though it may lose mail."""
        if self._worth.found is not None and self._worth.due:
            await self.check()
        return self._worth.doubts()

    @property
    def durability(self) -> Durability | None:
        """See :class:`~mailpoller.core.ports.Durable`."""
        return self._worth.found

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._client.close()

    # --- a part of a batch ---------------------------------------------------------------------------------------
    def _repeated(self, delivery_id: str) -> Receipt:
        return SealedReceipt(delivery_id, self._where, repeated=True)

    def _size(self, one: Delivery) -> int:
        return one.event.size + (one.raw.octets.size if one.octets_wanted else 0)

    def _too_large(self, one: Delivery) -> str:
        sizes = [one.event.size] + ([one.raw.octets.size] if one.octets_wanted else [])
        most = self._config.max_size
        return f"the message has {max(sizes):,} octets here, and max_size is {most:,}" if max(sizes) > most else ""

    async def _bring(self, part: Sequence[Delivery]) -> list[Answer]:
        """Octets first, each once; then the events whose octets are there."""
        octets = {one.raw.octets.digest: one.raw.octets for one in part if one.octets_wanted}
        put = await asyncio.gather(*(_tried(self._put_octets(one)) for one in octets.values()))
        troubles = {digest: found for digest, found in zip(octets, put, strict=True) if isinstance(found, Exception)}

        async def bring(one: Delivery) -> Answer:
            trouble = troubles.get(one.raw.octets.digest) if one.octets_wanted else None
            found = trouble or await _tried(self._put_event(one))
            if isinstance(found, _Unfit):
                return Refusal(one.delivery_id, str(found), permanent=found.permanent)
            if isinstance(found, TransientError):
                return found
            return SealedReceipt(one.delivery_id, f"{self._config.bucket}/{self._name(one)}", repeated=found is True)

        return list(await asyncio.gather(*map(bring, part)))

    async def _put_octets(self, octets: Octets) -> bool:
        name = f"{octets.digest.hex()}.eml"
        if await self._bucket.put(name, bytes(octets.view()), RFC822, octets.digest):
            return False
        if await self._bucket.holds(name, octets.digest, octets.size):
            return True
        raise _Unfit(f"{self._where}: something else lies under {self._bucket.key(name)}")

    async def _put_event(self, one: Delivery) -> bool:
        """Whether it was there already."""
        name = f"{one.delivery_id}.json"
        if await self._bucket.put(name, one.event.structured(), STRUCTURED):
            return False
        found = await self._bucket.read(name, one.event.size)
        if found is not None and _delivery_of(found) == one.delivery_id:
            return True
        raise _Unfit(f"{self._where}: something else lies under {self._bucket.key(name)}")

    def _name(self, one: Delivery) -> str:
        return self._bucket.key(f"{one.delivery_id}.json")


class _Unfit(Exception):
    """This message cannot be put there. ``permanent``: nor ever will."""

    def __init__(self, words: str, *, permanent: bool = False) -> None:
        super().__init__(words)
        self.permanent = permanent


async def _tried(work: Awaitable[bool]) -> bool | _Unfit | TransientError:
    """What ``work`` returns, or why it cannot: the message's trouble, or the queue's."""
    try:
        return await work
    except AwsError as error:
        return _Unfit(str(error), permanent=True) if error.code in _TOO_LARGE else error
    except (_Unfit, TransientError) as error:
        return error


def _delivery_of(octets: bytes) -> object:
    """The delivery id of an event; None if it is none, or is not whole."""
    try:
        found = json.loads(octets)
    except ValueError:
        return None
    return found.get("deliveryid") if isinstance(found, dict) and "data" in found else None
