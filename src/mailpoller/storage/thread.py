"""Blocking work in a thread, seen to its end whatever becomes of who asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


async def completed(work: Awaitable[T]) -> T:
    """The result of ``work``, which is seen to its end when the caller is cancelled meanwhile; then that is raised.

    A thread cannot be interrupted: abandoned, it would go on reading a message that its owner has closed. A second
    cancellation is obeyed at once all the same: a disk that hangs must not hold up the end of the process.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_heed)
        await asyncio.wait((task,))
        raise


def _heed(task: asyncio.Future[Any]) -> None:
    """Look at an exception that nobody else will, so that asyncio does not complain."""
    if not task.cancelled():
        task.exception()


class Worker:
    """One thread, which does one piece of work at a time, in the order in which it was asked. Starts when first
    used."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pool: ThreadPoolExecutor | None = None

    async def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """What ``work(*arguments)`` returns or raises in the thread; see :func:`completed`."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix=self.name)
        return await completed(asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments))

    async def close(self) -> None:
        """Wait for the work in hand and end the thread. Harmless when repeated."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await completed(asyncio.get_running_loop().run_in_executor(None, pool.shutdown))
