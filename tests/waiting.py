"""To wait for what another task, or another process, is about to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


async def until(true: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something holds: for long on a machine that is busy, and no longer than it takes."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.002)
