"""What is there at this moment, and whose names were given anew."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime

from mailpoller.core.message import RawMessage
from mailpoller.core.ports import Start
from mailpoller.testing.source.ground import (
    WHOLE,
    MailboxUnderTest,
    SourceGround,
    claim,
    connected,
    fetched,
    letter,
    listing,
    second_of,
)


class LookingPromises(SourceGround):
    """What is there at this moment, and whose names were given anew."""

    async def test_look_shows_what_is_there_and_none_of_what_is_not(self, mailbox: MailboxUnderTest) -> None:
        for number in range(5):
            await mailbox.deliver(letter(number, size=number * 300))
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            octets = await fetched(session, refs)
            await mailbox.remove(letter(1, size=300))
            await mailbox.remove(letter(4, size=1200))
        removed = {letter(1, size=300), letter(4, size=1200)}
        async with connected(mailbox.source()) as session:
            await session.open(mailbox.first)
            asked = [*reversed(refs), refs[0]]
            shown = await session.look(asked)
            assert len(shown) == len(asked)
            for ref, found in zip(asked, shown, strict=True):
                if octets[ref.uid] in removed:
                    assert found is None
                else:
                    assert found is not None
                    assert (found.folder, found.uid) == (ref.folder, ref.uid), "in the order of the question"
            assert list(await session.look([])) == []

    async def test_look_says_what_the_listing_said(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1), received=datetime(2026, 3, 1, 12, 30, tzinfo=UTC))
        await mailbox.deliver(letter(2, size=9_000))
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            refs, _ = await listing(session, folder, start=Start("all", dated=True))
            for ref, found in zip(refs, await session.look(refs), strict=True):
                assert found is not None
                assert found.size is None or ref.size is None or found.size == ref.size
                assert found.received is None or ref.received is None or second_of(found) == second_of(ref)

    async def test_dated_listing_has_the_servers_dates(self, mailbox: MailboxUnderTest) -> None:
        if not mailbox.keeps_received:
            return
        received = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
        await mailbox.deliver(letter(1), received=received)
        async with connected(mailbox.source()) as session:
            (ref,), _ = await listing(session, await session.open(mailbox.first), start=Start("all", dated=True))
            assert ref.received == received

    async def test_look_changes_nothing(self, mailbox: MailboxUnderTest) -> None:
        for number in range(3):
            await mailbox.deliver(letter(number))
        before = await mailbox.shown()
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            refs, position = await listing(session, folder)
            await session.look(refs)
            await session.survey(folder, position)
        assert await mailbox.shown() == before

    async def test_survey_shows_only_what_is_there_and_keeps_the_position_good(self, mailbox: MailboxUnderTest) -> None:
        for number in range(3):
            await mailbox.deliver(letter(number))
        async with connected(mailbox.source()) as session:
            refs, position = await listing(session, await session.open(mailbox.first))
        await mailbox.remove(letter(1))
        await mailbox.deliver(letter(3))
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            survey = await session.survey(folder, position)
            assert not survey.behind
            shown = await session.look([*survey.familiar, *survey.strange])
            assert None not in shown
            if mailbox.has_positions and not survey.whole:
                assert {ref.uid for ref in survey.familiar} <= {ref.uid for ref in refs}, (
                    "it speaks of what is behind the position"
                )
            refs, _ = await listing(session, folder, survey.position or position)
            assert letter(3) in (await fetched(session, refs)).values()

    async def test_survey_without_a_position_finds_nothing_amiss(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        async with connected(mailbox.source()) as session:
            survey = await session.survey(await session.open(mailbox.first), None)
            assert not survey.behind
            assert not survey.strange

    async def test_looking_takes_its_turn_while_a_fetch_is_consumed(self, mailbox: MailboxUnderTest) -> None:
        for number in range(6):
            await mailbox.deliver(letter(number))
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            shown: Counter[bytes] = Counter()
            async with asyncio.timeout(20):
                async for answer in session.fetch([claim(ref) for ref in refs], WHOLE):
                    assert isinstance(answer, RawMessage)
                    shown[bytes(answer.octets.view())] += 1
                    answer.octets.close()
                    assert None not in await session.look([answer.claim.ref])
            assert shown == Counter(letter(number) for number in range(6))
