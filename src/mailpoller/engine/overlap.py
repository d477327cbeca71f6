"""Two pieces of work side by side, neither torn by the other's failure."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def side_by_side(
    first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B], names: tuple[str, str]
) -> tuple[A, B]:
    """Run both to their ends and return both results.

    When one fails the other is still awaited, since a batch that is half delivered must not be cancelled because the
    next one could not be fetched; then the first failure is raised, and a second one is its context. Cancelling
    the caller cancels both.
    """
    failures: list[Exception] = []
    results: dict[int, Any] = {}

    async def kept(index: int, work: Coroutine[Any, Any, Any]) -> None:
        try:
            results[index] = await work
        except Exception as error:
            failures.append(error)

    async with asyncio.TaskGroup() as group:
        group.create_task(kept(0, first), name=names[0])
        group.create_task(kept(1, second), name=names[1])
    if len(failures) == 2:
        raise failures[0] from failures[1]
    if failures:
        raise failures[0]
    return results[0], results[1]
