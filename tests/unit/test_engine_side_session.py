"""A message that may only be slow is waited for in a session of its own; the mailbox's own session never is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, RawMessage
from mailpoller.core.ports import Start
from mailpoller.engine.budget import Budget
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.connections import Connections, ConnectionSlot
from mailpoller.engine.side_session import Answer, SideSession
from mailpoller.testing.builders import plain
from mailpoller.testing.fake_mailbox import FakeMailbox
from mailpoller.testing.fake_source import FakeSource


class Several(FakeSource):
    """One that may have several sessions open at once."""

    parallel: Literal[True] = True


class Place:
    """A mailbox of one message, and what waits for it beside."""

    def __init__(self, kind: type[FakeSource] = Several) -> None:
        self.mailbox = FakeMailbox()
        self.mailbox.deliver(plain(subject="slow"))
        self.source = kind(self.mailbox)
        self.clock = SystemClock()
        self.connections = Connections(self.clock, limit=1)
        self.budget = Budget(10_000_000)
        self.beside = SideSession("support", self.source, self.clock, self.admit)

    async def admit(self) -> ConnectionSlot:
        return await self.connections.take("support", "fake.example", 0.0)

    async def claim(self) -> Claim:
        session = await self.source.connect()
        folder = await session.open("INBOX")
        (ref,) = [ref async for page in session.pending(folder, None, Start("all")) for ref in page.refs]
        await session.close()
        return Claim(ref, "a mid")

    async def answer(self, claim: Claim) -> Answer:
        async with asyncio.timeout(5):
            while (answer := self.beside.answer(claim, 1_000_000, self.budget)) is None:
                await asyncio.sleep(0.01)
        return answer


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    async with place.beside:
        yield place
    assert place.connections.open == 0 and place.budget.used == 0


async def test_nobody_waits_for_it_and_it_is_there_in_the_end(place: Place) -> None:
    claim = await place.claim()
    assert place.beside.answer(claim, 1_000_000, place.budget) is None, "at once"
    answer = await place.answer(claim)
    assert isinstance(answer, RawMessage) and b"slow" in bytes(answer.octets.view())
    answer.octets.close()


@pytest.mark.parametrize("step", ["connect", "open", "fetch"])
async def test_what_goes_wrong_beside_is_an_answer_and_no_error(place: Place, step: str) -> None:
    claim = await place.claim()
    place.source.faults.fail(step, SessionLost("gone"))
    assert isinstance(await place.answer(claim), TransientError)
    answer = await place.answer(claim)
    assert isinstance(answer, RawMessage), "and the next time it is asked for anew"
    answer.octets.close()


async def test_what_is_no_more_there_is_said_to_be_gone(place: Place) -> None:
    claim = await place.claim()
    place.mailbox.remove("1")
    assert isinstance(await place.answer(claim), Gone)


async def test_a_name_of_another_numbering_is_not_asked_for(place: Place) -> None:
    claim = await place.claim()
    ref = claim.ref
    other = Claim(type(ref)(Folder(ref.folder.mailbox, "INBOX", "another"), ref.uid), "a mid")
    assert "numbering" in str(await place.answer(other))
    assert not place.source.asked


async def test_one_at_a_time_and_each_in_its_turn(place: Place) -> None:
    claim = await place.claim()
    other = Claim(claim.ref, "another mid")
    place.source.faults.hang("fetch")
    assert place.beside.answer(claim, 1_000_000, place.budget) is None
    await asyncio.sleep(0.05)
    assert place.beside.answer(other, 1_000_000, place.budget) is None
    await asyncio.sleep(0.05)
    assert len(place.source.sessions) == 2, "the claim's and the one that hangs"


async def test_what_nobody_asks_for_any_more_makes_room_for_the_next(place: Place) -> None:
    claim = await place.claim()
    place.beside.answer(claim, 1_000_000, place.budget)
    await asyncio.sleep(0.1)
    answer = await place.answer(Claim(claim.ref, "another mid"))
    assert isinstance(answer, RawMessage)
    answer.octets.close()


async def test_its_end_is_the_end_of_what_hangs() -> None:
    place = Place()
    async with place.beside:
        claim = await place.claim()
        place.source.faults.hang("fetch")
        place.beside.answer(claim, 1_000_000, place.budget)
        await asyncio.sleep(0.05)
        assert place.connections.open == 1
    assert place.connections.open == 0 and place.budget.used == 0
    assert place.source.steps[-1] == "close"


async def test_a_source_of_one_session_at_a_time_has_none_beside() -> None:
    place = Place(FakeSource)
    async with place.beside:
        assert not place.beside.ready


async def test_it_is_ready_while_the_mailbox_is_attended() -> None:
    place = Place()
    assert not place.beside.ready
    async with place.beside:
        assert place.beside.ready
    assert not place.beside.ready
