"""Short retries: for the fault that is over before anybody would notice it. The only file that imports tenacity.

Long waits belong to the engine, which frees the message, tells a human and goes on with other work meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

T = TypeVar("T")


async def briefly(
    work: Callable[[], Awaitable[T]],
    *,
    on: type[Exception] | tuple[type[Exception], ...],
    tries: int = 3,
    first_wait: timedelta = timedelta(milliseconds=200),
    longest_wait: timedelta = timedelta(seconds=2),
) -> T:
    """Do ``work``, again after an error of the kinds ``on``, at most ``tries`` times in all; the last error is raised
    as it came.

    The wait doubles from ``first_wait`` up to ``longest_wait``, with up to ``first_wait`` of jitter on top. Every
    other error, and a cancellation, passes at once. ``work`` must be harmless when repeated, and keeps its own
    deadline.
    """
    attempts = AsyncRetrying(
        stop=stop_after_attempt(tries),
        wait=wait_exponential(multiplier=first_wait.total_seconds(), max=longest_wait.total_seconds())
        + wait_random(0, first_wait.total_seconds()),
        retry=retry_if_exception_type(on),
        reraise=True,
    )
    async for attempt in attempts:
        with attempt:
            return await work()
    raise AssertionError("tenacity ends by returning or raising")


async def as_told(
    work: Callable[[], Awaitable[T]],
    wait: Callable[[Exception, int], float | None],
    *,
    tries: int,
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """Do ``work``, and again as long as a peer says that it may: at most ``tries`` times in all; the last error is
    raised as it came.

    ``wait``: seconds from this error of the attempt of that number (from 1) to the next one, spent in ``sleep``; None
    if there is none. It is asked after the last attempt too. A cancellation passes at once.
    """
    told = 0.0

    def again(state: RetryCallState) -> bool:
        nonlocal told
        error = state.outcome.exception() if state.outcome is not None else None
        seconds = wait(error, state.attempt_number) if isinstance(error, Exception) else None
        told = seconds or 0.0
        return seconds is not None

    attempts = AsyncRetrying(
        stop=stop_after_attempt(tries), wait=lambda _: told, retry=again, sleep=sleep, reraise=True
    )
    async for attempt in attempts:
        with attempt:
            return await work()
    raise AssertionError("tenacity ends by returning or raising")
