"""How a part that leaves is closed: nobody waits for it for long, and nobody else suffers from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from mailpoller.core.tasks import within

log = structlog.get_logger(__name__)

CLOSING = timedelta(seconds=30)
"""How long one part that leaves may take to close."""


async def _run(close: Callable[[], Awaitable[None]]) -> None:
    await close()


async def closed(part: str, close: Callable[[], Awaitable[None]]) -> None:
    """Close a part that leaves. Whatever comes of that is logged and not raised."""
    try:
        await within(CLOSING.total_seconds(), _run(close))
    except Exception as error:
        log.warning("fleet.unclosed", part=part, reason=str(error) or type(error).__name__)
