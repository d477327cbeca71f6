"""Several pieces of work side by side, none torn by another's failure."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def side_by_side(**work: Coroutine[Any, Any, None]) -> None:
    """Run all to their ends; a name becomes part of its task's.

    When one fails the others are still awaited, since a batch that is half delivered must not be cancelled because the
    next one could not be fetched; then the first failure is raised, with the next one as its cause. Cancelling the
    caller cancels all.
    """
    failures: list[Exception] = []

    async def kept(one: Coroutine[Any, Any, None]) -> None:
        try:
            await one
        except Exception as error:
            failures.append(error)

    async with asyncio.TaskGroup() as group:
        for name, one in work.items():
            group.create_task(kept(one), name=name)
    if len(failures) > 1:
        raise failures[0] from failures[1]
    if failures:
        raise failures[0]
