"""Blocking work in threads that nobody has to wait for: a disk or a resolver that hangs holds up neither other work nor
the end of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

SEEN_OUT_S = 10.0
"""So long work is waited for whose owner was cancelled. What takes longer hangs."""
_IDLE_S = 30.0
"""An idle thread ends after so long."""
BORN_WITHIN_S = 1.0
"""So long the birth of a thread is waited for."""
_LOOK_S = 0.02

_Piece = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class _Started(Event):
    """Of a thread that dies before it can say that it has begun, CPython's own ``start`` would wait for ever."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(BORN_WITHIN_S if timeout is None else timeout)


class _Daemon(Thread):
    def __init__(self, target: Callable[[], None], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._started = _Started()


def begin(work: Callable[[], None], name: str) -> Thread:
    """A daemon thread that is at ``work``. Raises :class:`RuntimeError` or :class:`MemoryError` if there is none.

    One that dies at its birth, for want of memory, has been started as far as :class:`threading.Thread` can tell. One
    that is born after we gave it up does nothing.
    """
    at_work, deciding = Event(), Lock()
    given_up = False

    def serve() -> None:
        with deciding:
            if given_up:
                return
            at_work.set()
        work()

    thread = _Daemon(serve, name)
    thread.start()
    while not at_work.wait(_LOOK_S):
        with deciding:
            given_up = not at_work.is_set() and not thread.is_alive()
        if given_up:
            raise RuntimeError("can't start new thread")
    return thread


class Pool(ThreadPoolExecutor):
    """Daemon threads, begun as they are needed, ``most`` at a time; beyond that work waits.

    Where :class:`~concurrent.futures.ThreadPoolExecutor` waits for its threads at the end of the process, and at
    :meth:`shutdown`, this one does not: work that must be whole is awaited by whoever asked for it. (It extends that
    class only because an event loop takes no other kind of default executor.)
    """

    def __init__(self, name: str, most: int) -> None:
        super().__init__(max_workers=1)  # which begins no thread before the first submit, and there is none
        self._name = name
        self._most = most
        self._entrance = Lock()
        self._pieces: SimpleQueue[_Piece | None] = SimpleQueue()
        self._threads_alive = 0
        self._free = 0
        self._ended = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As every executor has it. Raises :class:`RuntimeError` after :meth:`shutdown`, and if no thread at all can be
        begun: then the work is not done later either."""
        future: Future[T] = Future()
        with self._entrance:
            if self._ended:
                raise RuntimeError("the threads have ended")
            if self._free:
                self._free -= 1
            elif self._threads_alive < self._most:
                try:
                    begin(self._serve, f"{self._name}-{self._threads_alive}")
                    self._threads_alive += 1
                except (RuntimeError, MemoryError):
                    if not self._threads_alive:
                        raise
            self._pieces.put((future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. Returns at once; with ``cancel_futures`` what was not begun is not done either."""
        with self._entrance:
            self._ended = True
            if cancel_futures:
                while not self._pieces.empty():
                    if (piece := self._pieces.get()) is not None:
                        piece[0].cancel()
            for _ in range(self._threads_alive):
                self._pieces.put(None)

    def _serve(self) -> None:
        while (piece := self._next()) is not None:
            future, work, args, kwargs = piece
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)
            del piece, future, work, args, kwargs  # an idle thread holds on to nothing

    def _next(self) -> _Piece | None:
        """The next piece of work; None if there was none for a while, or there will be none."""
        with self._entrance:
            waits = self._pieces.empty()
            self._free += waits
        while True:
            try:
                return self._pieces.get(timeout=_IDLE_S)
            except Empty:
                with self._entrance:
                    if self._pieces.empty() and self._free:
                        self._free -= 1
                        self._threads_alive -= 1
                        return None


def each(pool: Pool, work: Callable[[T], Exception | None], several: Sequence[T]) -> list[Exception | None]:
    """What ``work`` returned or raised of each, once all of it has ended: whoever asks may then close what it used, and
    remove what it left. Blocks. Never raises: what no thread is begun for is done here."""

    def one(item: T) -> Exception | None:
        try:
            return work(item)
        except Exception as error:
            return error

    begun: list[Future[Exception | None]] = []
    if len(several) > 1:
        with suppress(RuntimeError, MemoryError):
            begun.extend(pool.submit(one, item) for item in several)  # those that were begun are in it
    here = [one(item) for item in several[len(begun) :]]
    return [*(future.result() for future in begun), *here]


def unforeseen(outcomes: Iterable[Exception | None]) -> Exception | None:
    """The first of them that says nothing about a file alone: memory was short, or a bug."""
    return next((one for one in outcomes if one is not None and not isinstance(one, OSError)), None)


async def completed(work: Awaitable[T]) -> T:
    """The result of ``work``, which is seen to its end when the caller is cancelled meanwhile; then that is raised.

    A thread cannot be interrupted: abandoned, it would go on reading a message that its owner has closed. But a disk
    that hangs must hold up neither a deadline nor the end of the process. After :data:`SEEN_OUT_S` the work is
    abandoned, and not done at all if it was not begun; a second cancellation is obeyed at once, and the work done.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await seen_out(task)
        raise


async def seen_out(work: asyncio.Future[Any]) -> bool:
    """Wait for the end of work that nobody wants any more, for :data:`SEEN_OUT_S` at most; then give it up. True if it
    has ended."""
    work.add_done_callback(_heed)
    ended, _ = await asyncio.wait((work,), timeout=SEEN_OUT_S)
    if not ended:
        work.cancel()
    return bool(ended)


def _heed(task: asyncio.Future[Any]) -> None:
    """Look at an exception that nobody else will, so that asyncio does not complain."""
    if not task.cancelled():
        task.exception()


class Worker:
    """One thread, which does one piece of work at a time, in the order in which it was asked. Starts when first
    used."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pool: Pool | None = None

    async def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """What ``work(*arguments)`` returns or raises in the thread; see :func:`completed`."""
        if self._pool is None:
            self._pool = Pool(self.name, 1)
        return await completed(asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments))

    async def close(self) -> None:
        """Wait for the work in hand and end the thread. Harmless when repeated."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await completed(asyncio.get_running_loop().run_in_executor(pool, _nothing))  # behind all other work
            finally:
                pool.shutdown()


def _nothing() -> None:
    return None
