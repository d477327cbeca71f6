"""Short retries."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from mailpoller.wire.retry import briefly

SOON = timedelta(milliseconds=1)


class Flaky:
    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_a_fault_that_passes_is_not_noticed() -> None:
    work = Flaky(ConnectionResetError(), ConnectionRefusedError())
    assert await briefly(work, on=ConnectionError, first_wait=SOON) == "done"
    assert work.calls == 3


async def test_the_last_error_is_raised_as_it_came() -> None:
    errors = [ConnectionResetError(str(number)) for number in range(5)]
    work = Flaky(*errors)
    with pytest.raises(ConnectionResetError) as caught:
        await briefly(work, on=ConnectionError, tries=3, first_wait=SOON)
    assert caught.value is errors[2]
    assert work.calls == 3


@pytest.mark.parametrize("error", [ValueError(), TimeoutError(), asyncio.CancelledError()])
async def test_other_errors_and_cancellation_pass_at_once(error: BaseException) -> None:
    work = Flaky(error)
    with pytest.raises(type(error)):
        await briefly(work, on=ConnectionError, first_wait=SOON)
    assert work.calls == 1


async def test_waits_grow_and_stay_short() -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionError):
        await briefly(
            Flaky(*[ConnectionError()] * 4),
            on=ConnectionError,
            tries=4,
            first_wait=timedelta(milliseconds=20),
            longest_wait=timedelta(milliseconds=40),
        )
    assert 0.1 <= time.monotonic() - started < 0.5
