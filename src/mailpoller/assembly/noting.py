"""What ``mailpoller changes`` tells of the configuration and of the service's starts."""

from __future__ import annotations

import asyncio

import structlog

from mailpoller import __version__
from mailpoller.config import Config
from mailpoller.config.sums import differences, sums
from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.ports import Journal

log = structlog.get_logger(__name__)

NAMED = 100
"""Blocks of the configuration that are named at once."""


async def note_start(config: Config, journal: Journal) -> None:
    """Keep that this version started, and what is configured otherwise than the last time. A ledger that cannot be
    written is told of, and holds up nothing."""
    try:
        await journal.record("service.started", "", f"mailpoller {__version__}, {config.service.environment}")
    except LedgerUnavailable as error:
        log.warning("change.unrecorded", verb="start", reason=str(error))
    await note_configuration(config, journal)


async def note_configuration(config: Config, journal: Journal) -> None:
    """Keep what is configured otherwise than the last time; nothing, the first time."""
    try:
        now = await asyncio.to_thread(sums, config)
        before = await journal.configured(now)
        lines = differences(before, now) if before else []
        for line in lines[:NAMED]:
            await journal.record("configuration.changed", "", line)
        if len(lines) > NAMED:
            await journal.record("configuration.changed", "", f"and {len(lines) - NAMED} more blocks")
    except LedgerUnavailable as error:
        log.warning("change.unrecorded", verb="configuration", reason=str(error))
