"""Deliveries in calls of ten: each call within its limit, an answer for each entry of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mailpoller.core.answers import in_order, sifted
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.parts import parts
from mailpoller.storage.recent import Recent
from mailpoller.wire.aws.client import AwsError
from mailpoller.wire.aws.entries import AT_ONCE, Entry, about_a_message, entry_of, least_size, outcomes

Answer = Receipt | Refusal | TransientError


class Calls:
    """What a sink of SQS or SNS brings. ``place``: whom to name in errors. ``largest``: octets of all messages of one
    call together, as they are rendered and with their attributes. ``at_once``: calls that are under way together.
    ``ask``: one call, which raises as :class:`~mailpoller.wire.aws.client.AwsClient` does; its entries are to bear the
    names ``0``, ``1`` … ``taken``: the answer for one that the service says it took. ``repeated``: the receipt for an
    id that is held already.

    ``limit`` is what one message may have; the sink may lower it when it has asked.
    """

    def __init__(
        self,
        place: str,
        *,
        largest: int,
        at_once: int,
        ask: Callable[[Sequence[Entry]], Awaitable[Mapping[str, Any]]],
        taken: Callable[[Entry, Mapping[str, Any]], Receipt | TransientError],
        repeated: Callable[[str], Receipt],
    ) -> None:
        self.limit = largest
        self._place = place
        self._largest = largest
        self._at_once = at_once
        self._ask = ask
        self._taken = taken
        self._repeated = repeated
        self._recent = Recent()

    async def bring(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        """An answer for each. What this process knows to be held is not sent again. Raises :class:`TransientError` if
        nothing is known of any."""
        answers, fresh = sifted(batch, self._recent.__contains__, self._too_large, self._repeated)
        trouble: TransientError | None = None
        for several in self._calls(fresh.values(), answers):
            told = await asyncio.gather(*map(self._send, several))
            for part, found in zip(several, told, strict=True):
                for entry, answer in zip(part, found, strict=True):
                    if isinstance(answer, TransientError):
                        trouble = trouble or answer
                    else:
                        answers[entry.delivery.delivery_id] = answer
            if trouble is not None:
                break
        self._recent.add(one for one in fresh if isinstance(answers.get(one), Receipt))
        return in_order(batch, answers, trouble, self._repeated)

    def _too_large(self, one: Delivery) -> str:
        return self._beyond(least_size(one))

    def _beyond(self, size: int) -> str:
        if size <= self.limit:
            return ""
        return f"the message has {size:,} octets here with its attributes, and the queue takes {self.limit:,}"

    def _calls(self, fresh: Iterable[Delivery], answers: dict[str, Receipt | Refusal]) -> Iterator[list[list[Entry]]]:
        """What is sent at once: parts of ten. One that turns out to be too large is refused in ``answers``."""

        def rendered() -> Iterator[Entry]:
            for one in fresh:
                entry = entry_of(one)
                if reason := self._beyond(entry.size):
                    answers[one.delivery_id] = Refusal(one.delivery_id, reason, permanent=True, unasked=True)
                else:
                    yield entry

        several: list[list[Entry]] = []
        for part in parts(rendered(), lambda entry: entry.size, octets=self._largest, messages=AT_ONCE):
            several.append(part)
            if len(several) == self._at_once:
                yield several
                several = []
        if several:
            yield several

    async def _send(self, part: Sequence[Entry]) -> list[Answer]:
        """One call, and the answer for each entry. Where the call is refused for something in a message, each goes
        alone: the service does not say which it is."""
        try:
            said = await self._ask(part)
        except AwsError as error:
            if not about_a_message(error.code, str(error)):
                return [error] * len(part)
            if len(part) == 1:
                return [Refusal(part[0].delivery.delivery_id, str(error), permanent=True)]
            return [answer for entry in part for answer in await self._send([entry])]
        except TransientError as error:
            return [error] * len(part)
        return [self._answer(entry, one) for entry, one in zip(part, outcomes(part, said, self._place), strict=True)]

    def _answer(self, entry: Entry, said: Mapping[str, Any] | Refusal | TransientError) -> Answer:
        return said if isinstance(said, Refusal | TransientError) else self._taken(entry, said)
