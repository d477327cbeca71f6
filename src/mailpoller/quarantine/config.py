"""How the quarantine is set up."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from mailpoller.core.component import Runtime, SinkConfig
from mailpoller.core.literals import Duration, Size
from mailpoller.quarantine.store import Store


class StoreConfig(SinkConfig):
    """The quarantine, as the engine has its queues described. No file has this block: ``quarantine:`` says ``keep``
    and ``max_size``, and all else is the service's own."""

    type: Literal["quarantine"] = "quarantine"
    path: Path
    keep: Duration = timedelta(days=90)
    max_size: Size = Field(default=5_000_000_000, ge=1)
    min_free: Size = 64_000_000
    payload: Literal["summary"] = "summary"

    def build(self, name: str, runtime: Runtime) -> Store:
        """The quarantine. Opens nothing."""
        return Store(
            self.path,
            runtime.clock,
            runtime.spool,
            keep=self.keep,
            max_size=self.max_size,
            min_free=self.min_free,
        )
