"""The intake of type ``redis``: a stream to which programs add entries; the answers are hashes beside it.

``stream`` takes and answers. Nothing but the block is imported unless such an intake is built.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints

from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.intake_config import IntakeSettings
from mailpoller.core.literals import Duration
from mailpoller.core.ports import EntrySource
from mailpoller.remote.redis.server import RedisServer, stream_key

__all__ = ["RedisIntakeConfig"]

Named = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^\S+$")]


class RedisIntakeConfig(RedisServer, IntakeSettings):
    """A stream at a Redis (7.0 or later) or Valkey server: programs add entries, and read what became of them beside
    it."""

    type: Literal["redis"]
    stream: Annotated[str, AfterValidator(stream_key)] | None = None
    """The stream's key; ``{mailpoller:INTAKE}`` with the intake's name if it is not given. Who may add to it may send
    for the departments."""
    group: Named = "mailpoller"
    """The consumer group; made if it is missing."""
    consumer: Named | None = None
    """Our name in that group; the host's if it is not given."""
    reclaim: Duration = timedelta(minutes=5)
    """What another consumer of the group has had in hand for so long is taken over: it is dead."""
    keep: Duration = timedelta(days=7)
    """How long an answer can be read."""

    def build(self, name: str, runtime: Runtime) -> EntrySource:
        """The stream. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.intakes.redis.stream import RedisIntake
        except ImportError as error:
            raise ConfigError(f"type: redis needs {error.name}: pip install 'mailpoller[redis]'") from None
        return RedisIntake(
            self,
            stream=self.stream or f"{{mailpoller:{name}}}",
            group=self.group,
            consumer=self.consumer,
            reclaim=self.reclaim,
            keep=self.keep,
            clock=runtime.clock,
        )
