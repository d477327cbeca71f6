"""What the answers of a queue's server are worth: looked at when they are first needed, and then every hour."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from mailpoller.core.durability import LOOK_AGAIN, Durability, DurabilityWord
from mailpoller.core.errors import TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.ports import Clock, SinkDoubt

log = structlog.get_logger(__name__)


class Worth:
    """Keeps what was found. ``queue``: its name; ``word``: what its block takes; ``place``: where it lies, for
    errors."""

    def __init__(self, queue: str, word: DurabilityWord, clock: Clock, place: Callable[[], str]) -> None:
        self.found: Durability | None = None
        """What was found last; None as long as nobody looked."""
        self._queue = queue
        self._word = word
        self._clock = clock
        self._place = place
        self._looked_at = 0.0

    @property
    def due(self) -> bool:
        """It is to be looked at: nobody did, it is long ago, or the block does not take what was found."""
        late = self._clock.monotonic() - self._looked_at > LOOK_AGAIN.total_seconds()
        return self.found is None or late or bool(self.found.refusal(self._word))

    def note(self, found: Durability) -> None:
        """This was found now. Raises :class:`TransientError`, with what mends it, if the block does not take it."""
        if found != self.found:
            log.info("queue.durability", queue=self._queue, finding=found.finding, setting=found.setting)
        self.found, self._looked_at = found, self._clock.monotonic()
        if refusal := found.refusal(self._word):
            raise TransientError(f"{self._place()}: {refusal}")

    def forget(self) -> None:
        """It may be another server from now on."""
        self.found = None

    def doubts(self) -> list[SinkDoubt]:
        """What the block accepts though it may lose mail."""
        said = self.found.doubt() if self.found is not None else ""
        return [SinkDoubt(NOT_DURABLE, f"{self._place()}: {said}")] if said else []
