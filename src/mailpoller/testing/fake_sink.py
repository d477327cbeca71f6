"""A sink in memory that can fail at any step: for tests of whatever uses the Sink port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.ports import OctetsPlace
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.testing.faults import Faults

Doubt = Callable[[Delivery], Refusal | Exception | None]
"""What a test has against a delivery: a refusal, an error that the whole batch fails with, or nothing."""


class FakeSink:
    """The :class:`~mailpoller.core.ports.Sink` port without a disk; it outlives the process that a test pretends to
    kill.

    ``held``: delivery id -> what a consumer would see, in order of arrival. ``batches``: how many deliveries each
    call brought. ``repeats`` counts deliveries that were held already.

    ``faults`` plans what goes wrong. Steps: ``deliver`` (before anything is held), ``deliver:N`` (once N of the batch
    are held), ``answer`` (all is held, and the receipts are lost), ``check``, ``close``. ``doubt`` is asked about
    every single delivery.
    """

    def __init__(
        self,
        faults: Faults | None = None,
        *,
        octets_place: OctetsPlace = "beside",
        doubt: Doubt = lambda delivery: None,
    ) -> None:
        self.octets_place: OctetsPlace = octets_place
        self.faults = faults or Faults()
        self.doubt = doubt
        self.held: dict[str, FakeHeld] = {}
        self.batches: list[int] = []
        self.repeats = 0
        self.checks = 0
        self.closed = False

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        self.batches.append(len(batch))
        await asyncio.sleep(0)
        await self.faults.at("deliver")
        doubts = [self.doubt(delivery) for delivery in batch]
        if error := next((doubt for doubt in doubts if isinstance(doubt, Exception)), None):
            raise error
        answers: list[Receipt | Refusal] = []
        for number, (delivery, doubt) in enumerate(zip(batch, doubts, strict=True)):
            await self.faults.at(f"deliver:{number}")
            answers.append(doubt if isinstance(doubt, Refusal) else self._hold(delivery))
        await self.faults.at("answer")
        return answers

    def _hold(self, delivery: Delivery) -> Receipt:
        repeated = delivery.delivery_id in self.held
        self.repeats += repeated
        if not repeated:
            self.held[delivery.delivery_id] = FakeHeld(delivery)
        return SealedReceipt(delivery.delivery_id, f"row {len(self.held)}", repeated)

    async def check(self) -> None:
        self.checks += 1
        await self.faults.at("check")

    async def close(self) -> None:
        self.closed = True
        await self.faults.at("close")

    def octets(self) -> list[bytes]:
        """The octets of every message that is held, in order of arrival."""
        return [held.octets for held in self.held.values()]


class FakeHeld:
    """One message as the sink keeps it: copies, because the engine takes its octets back."""

    def __init__(self, delivery: Delivery) -> None:
        self.mid = delivery.mid
        self.event = delivery.event.structured()
        self.octets = bytes(delivery.raw.octets.view())
        self.reason = delivery.attributes.reason
        self.detail = delivery.attributes.detail


def refusing(uids: Iterable[str], reason: str = "not this one", *, permanent: bool = True) -> Doubt:
    """A doubt that refuses the messages with these uids."""
    refused = frozenset(uids)

    def doubt(delivery: Delivery) -> Refusal | None:
        if delivery.raw.claim.ref.uid not in refused:
            return None
        return Refusal(delivery.delivery_id, reason, permanent)

    return doubt


def failing(uids: Iterable[str], error: Exception) -> Doubt:
    """A doubt that fails every batch in which there is a message with one of these uids."""
    bad = frozenset(uids)
    return lambda delivery: error if delivery.raw.claim.ref.uid in bad else None
