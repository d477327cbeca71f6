"""One request of a web service: when it is made again, how long that waits, and what ends the session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from clocks import SkippingClock
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.remote.bearer import TokenTrouble
from mailpoller.remote.throttle import LONGEST_PAUSE, Busy, Throttle
from mailpoller.remote.web import TRIES, Refusal, WebClient
from mailpoller.wire.http import HttpClient, HttpCut, HttpError, HttpStatus, IntakeTrouble, Unauthorized


class Gate(Throttle):
    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        await self._until(lambda _: 0.0)
        yield


class Client(WebClient):
    """Asks a service that gives ``answers``, one after the other: an error is raised."""

    def __init__(self, *answers: str | Exception) -> None:
        self.clock = SkippingClock()
        self.gate = Gate("The service", self.clock)
        super().__init__(HttpClient("https://service.invalid"), self.gate)
        self.answers = list(answers)
        self.asked_at: list[float] = []

    async def ask(self) -> str:
        return await self._in_turn(self.gate.turn, self._once, self._means)

    async def _once(self) -> str:
        self.asked_at.append(self.clock.seconds)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _means(self, error: HttpStatus | Unauthorized) -> Refusal:
        decision = TransientError(f"decided: {error}")
        if isinstance(error, Unauthorized):
            return Refusal(decision)
        return Refusal(decision, error.status >= 429, error.status == 429, error.retry_after)

    @property
    def waits(self) -> list[float]:
        return [round(later - sooner, 2) for sooner, later in zip(self.asked_at, self.asked_at[1:], strict=False)]


def refused(status: int, wish: float | None = None) -> HttpStatus:
    return HttpStatus(
        f"HTTP {status}", status=status, retry_after=None if wish is None else timedelta(seconds=wish)
    )  # fmt: skip


async def test_a_service_that_is_busy_is_asked_again_when_it_wants_to_be() -> None:
    client = Client(refused(429, 7), refused(429, 3), "done")
    assert await client.ask() == "done"
    assert client.waits == [7, 3]


async def test_what_failed_inside_the_service_is_asked_again_after_waits_that_double() -> None:
    client = Client(refused(500), refused(500), refused(500), "done")
    assert await client.ask() == "done"
    assert all(wish * 0.8 <= wait <= wish * 1.2 for wait, wish in zip(client.waits, (0.3, 0.6, 1.2), strict=True))


@pytest.mark.parametrize("status", [429, 500])
async def test_there_are_so_many_tries_and_the_last_refusal_is_the_decision(status: int) -> None:
    client = Client(*(refused(status) for _ in range(TRIES)), "too late")
    with pytest.raises(TransientError, match=f"decided: HTTP {status}"):
        await client.ask()
    assert client.answers == ["too late"]
    assert client.lost is None


async def test_for_longer_than_is_worth_waiting_here_nobody_waits_nor_asks() -> None:
    client = Client(refused(429, LONGEST_PAUSE + 1), "not asked for")
    with pytest.raises(TransientError, match="decided: HTTP 429"):
        await client.ask()
    with pytest.raises(Busy, match="The service wants to be left alone"):
        await client.ask()
    assert client.answers == ["not asked for"]


@pytest.mark.parametrize("error", [refused(404), Unauthorized("HTTP 401")])
async def test_a_refusal_that_will_not_pass_is_decided_at_once(error: Exception) -> None:
    client = Client(error, "not asked for")
    with pytest.raises(TransientError, match="decided"):
        await client.ask()
    assert client.answers == ["not asked for"]
    assert client.lost is None


@pytest.mark.parametrize("error", [TokenTrouble("the provider is down"), IntakeTrouble("cannot spool a message")])
async def test_whose_trouble_it_is_not_keeps_the_session(error: Exception) -> None:
    client = Client(error, "done")
    with pytest.raises(type(error)):
        await client.ask()
    assert await client.ask() == "done"


@pytest.mark.parametrize(
    "error", [HttpCut("the connection broke"), HttpError("no HTTP"), TransientError("TLS: untrusted")]
)
async def test_without_an_answer_the_session_is_lost_for_every_later_request_too(error: Exception) -> None:
    client = Client(error, "not asked for")
    for _ in range(2):
        with pytest.raises(SessionLost, match=str(error)):
            await client.ask()
    assert client.answers == ["not asked for"]


async def test_whoever_waits_for_his_turn_while_the_session_is_closed_asks_nothing_any_more() -> None:
    client = Client("not asked for")
    turn = client.gate.turn

    @asynccontextmanager
    async def late() -> AsyncIterator[None]:
        async with turn():
            await client.close()
            yield

    client.gate.turn = late  # type: ignore[method-assign]
    with pytest.raises(SessionLost, match="the session was closed"):
        await client.ask()
    assert client.answers == ["not asked for"]
