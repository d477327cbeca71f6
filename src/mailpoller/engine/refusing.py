"""Notes what an intake refuses, for the queue that is told of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import orjson
import structlog

from mailpoller.core.errors import EntryRefused
from mailpoller.core.ports import Clock, Outbox, OutboxRefusal
from mailpoller.engine.senders import Intake

log = structlog.get_logger(__name__)

_LONGEST = 200
_IN_A_THREAD_ABOVE = 1 << 14


class Refusing:
    """Owes an event for each entry that is refused within :meth:`telling`, from before the refusal is answered."""

    def __init__(self, ledger: Outbox, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._overflowing: set[str] = set()

    @asynccontextmanager
    async def telling(
        self, intake: Intake, octets: bytes | None, key: str = "", number: int | None = None
    ) -> AsyncIterator[None]:
        """Raises what the block raises. A repeat under one key is the same refusal; without a key there is none.
        Raises :class:`~mailpoller.core.errors.LedgerUnavailable`: then the entry was not answered at all."""
        try:
            yield
        except EntryRefused as error:
            if intake.events:
                await self._note(intake, octets or b"", key, number, str(error))
            raise

    async def _note(self, intake: Intake, octets: bytes, key: str, number: int | None, reason: str) -> None:
        large = len(octets) > _IN_A_THREAD_ABOVE
        said = await asyncio.to_thread(_said, octets) if large else _said(octets)
        known = said.get("key") or key
        id = uuid.uuid4().hex
        if known:
            id = sha256(f"{intake.name}\0{known}\0".encode("utf-8", "replace") + octets).hexdigest()[:32]
        # What a table or a stream calls an entry that says no key is nothing to whoever wrote it.
        key = "" if number is not None else key
        refusal = OutboxRefusal(
            id, intake.name, said.get("key") or key, number, said.get("reply_to", ""), reason, self._clock.now()
        )
        if await self._ledger.outbox_refuse(refusal):
            self._overflowing.discard(intake.name)
        elif intake.name not in self._overflowing:
            self._overflowing.add(intake.name)
            log.warning("outbox.refusals_untold", intake=intake.name, queue=intake.events)


def _said(octets: bytes) -> dict[str, str]:
    """What an entry calls itself, as far as it can be read."""
    try:
        found: Any = orjson.loads(octets)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: found[name][:_LONGEST] for name in ("key", "reply_to") if isinstance(found.get(name), str) and found[name]
    }
