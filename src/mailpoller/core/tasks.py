"""Tasks that belong together, on every Python that we run on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class TaskGroup(asyncio.TaskGroup):
    """As :class:`asyncio.TaskGroup`, and leaves no cancel request behind.

    When a child fails while the parent waits at the end of the block, Python 3.11 asks for the parent's cancellation
    and never takes that back. In 3.11.2, which Debian 12 has, no :func:`asyncio.timeout` of the parent raises
    :class:`TimeoutError` from then on: :class:`asyncio.CancelledError` goes through every handler and ends the task.
    What fails within the block is taken back by every version, so that is where the children are waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._children: set[asyncio.Task[Any]] = set()

    def create_task(self, coro: Coroutine[Any, Any, T], **how: Any) -> asyncio.Task[T]:  # type: ignore[override]
        """See :meth:`asyncio.TaskGroup.create_task`."""
        task = super().create_task(coro, **how)
        self._children.add(task)
        task.add_done_callback(self._children.discard)
        return task

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while error is None and self._children:
                await asyncio.wait(self._children)
        except BaseException as ended:
            kind, error, trace = type(ended), ended, ended.__traceback__
        await super().__aexit__(kind, error, trace)


LONGEST_END_S = 12.0
"""What is cancelled with its caller may take so long to end."""
MOMENT_S = 1.0
"""What was cancelled at its deadline may take so long to end."""


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``. Raises :class:`TimeoutError` after ``seconds`` and a moment, whatever ``work`` does.

    :func:`asyncio.timeout` ends an await that heeds its cancellation; one that swallows it (it sees work in a thread
    to its end, or is another's) would make the deadline nobody's. Such work is abandoned: it goes on by itself, and
    what comes of it is dropped. If the caller is cancelled, so is the work, which is then waited for, but not for
    ever.
    """
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait((task,), timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(_dropped)
        await asyncio.wait((task,), timeout=min(seconds, LONGEST_END_S))
        raise
    if done:
        return task.result()
    task.cancel()
    task.add_done_callback(_dropped)
    done, _ = await asyncio.wait((task,), timeout=MOMENT_S)
    if done and not task.cancelled() and task.exception() is None:
        return task.result()  # it came through in the last moment: a receipt is a receipt
    raise TimeoutError


def _dropped(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
