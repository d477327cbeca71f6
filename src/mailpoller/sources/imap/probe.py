"""Trying a mailbox step by step, for ``check --live``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from mailpoller.core.delivery import Disposition
from mailpoller.core.ports import Stage
from mailpoller.sources.imap.config import ImapConfig


async def probe(config: ImapConfig, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
    """Every stage, changing nothing; ends after the first that fails."""
    for stage in ():
        yield stage
