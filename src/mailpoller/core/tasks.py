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
