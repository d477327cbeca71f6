"""Waiting, the end of a session, and the probe."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest

from mailpoller.core.errors import SessionLost
from mailpoller.core.message import MessageRef, RawMessage
from mailpoller.core.ports import Session, Wake
from mailpoller.testing.source.ground import (
    ALL,
    WHOLE,
    MailboxUnderTest,
    SourceGround,
    claim,
    close_quietly,
    connected,
    fetched,
    is_possible,
    letter,
    listing,
    rest_of,
    settlement,
    some_of,
    ways_of,
)


class EndingPromises(SourceGround):
    """Waiting, the end of a session, and the probe."""

    async def test_wait_ends_at_its_limit_when_nothing_happens(self, mailbox: MailboxUnderTest) -> None:
        async with connected(mailbox.source()) as session:
            await listing(session, await session.open(mailbox.first))
            began = time.monotonic()
            assert await session.wait(timedelta(seconds=0.3)) is Wake.LIMIT
            assert 0.25 < time.monotonic() - began < 2.5

    async def test_wait_reports_new_mail(self, mailbox: MailboxUnderTest) -> None:
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            _, position = await listing(session, folder)
            waiting = asyncio.create_task(session.wait(timedelta(seconds=20)))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await mailbox.deliver(letter(1))
            async with asyncio.timeout(mailbox.notices_within.total_seconds()):
                assert await waiting is Wake.NEWS
            refs, _ = await listing(session, folder, position)
            assert list((await fetched(session, refs)).values()) == [letter(1)]

    async def test_mail_that_came_between_listing_and_waiting_is_not_slept_over(
        self, mailbox: MailboxUnderTest
    ) -> None:
        async with connected(mailbox.source()) as session:
            await listing(session, await session.open(mailbox.first))
            await mailbox.deliver(letter(1))
            async with asyncio.timeout(mailbox.notices_within.total_seconds()):
                assert await session.wait(timedelta(seconds=20)) is Wake.NEWS

    async def test_wait_that_is_cancelled_leaves_the_session_usable(self, mailbox: MailboxUnderTest) -> None:
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            _, position = await listing(session, folder)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await session.wait(timedelta(seconds=20))
            await mailbox.deliver(letter(1))
            refs, _ = await listing(session, await session.open(mailbox.first), position)
            assert list((await fetched(session, refs)).values()) == [letter(1)]

    async def _every_call_is_lost(
        self, mailbox: MailboxUnderTest, session: Session, refs: Sequence[MessageRef]
    ) -> None:
        """Whatever is asked of ``session`` raises SessionLost, soon."""
        folder = refs[0].folder
        for call in (
            session.open(mailbox.first),
            anext(session.pending(folder, None, ALL)),
            anext(session.fetch([claim(refs[0])], WHOLE)),
            session.survey(folder, None),
            session.look([refs[0]]),
            session.settle([settlement(refs[0], some_of(mailbox))]),
            session.wait(timedelta(seconds=20)),
            # Last, because it may answer from memory until the loss was noticed.
            session.folders(),
        ):
            async with asyncio.timeout(10):
                with pytest.raises(SessionLost):
                    await call

    async def test_closed_session_is_of_no_more_use(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        session = await mailbox.source().connect()
        refs, _ = await listing(session, await session.open(mailbox.first))
        for _ in range(2):
            async with asyncio.timeout(5):
                await session.close()
        await self._every_call_is_lost(mailbox, session, refs)
        assert await mailbox.octets() == Counter([letter(1)])

    async def test_lost_connection_is_noticed_by_every_call(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        source = mailbox.source()
        session = await source.connect()
        try:
            refs, _ = await listing(session, await session.open(mailbox.first))
            await mailbox.cut()
            await self._every_call_is_lost(mailbox, session, refs)
        finally:
            async with asyncio.timeout(5):
                await close_quietly(session)
        await mailbox.mend()
        async with connected(source) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            assert list((await fetched(session, refs)).values()) == [letter(1)]

    async def test_connection_lost_while_two_fetches_are_consumed_ends_both(self, mailbox: MailboxUnderTest) -> None:
        for number in range(60):
            await mailbox.deliver(letter(number, size=100_000))
        session = await mailbox.source().connect()
        try:
            refs, _ = await listing(session, await session.open(mailbox.first))
            answers = session.fetch([claim(ref) for ref in refs[:30]], WHOLE)
            beside = asyncio.create_task(fetched(session, refs[30:]))
            first = await anext(answers)
            assert isinstance(first, RawMessage)
            first.octets.close()
            await mailbox.cut()
            async with asyncio.timeout(20):
                for one in (rest_of(answers), beside):
                    try:
                        await one
                    except SessionLost:
                        pass
                    # What had come already is no reason to complain; but the session is of no more use.
                with pytest.raises(SessionLost):
                    await fetched(session, refs)
        finally:
            await close_quietly(session)

    async def test_connection_lost_while_waiting_ends_the_wait(self, mailbox: MailboxUnderTest) -> None:
        if not mailbox.waits_connected:
            return
        session = await mailbox.source().connect()
        try:
            await listing(session, await session.open(mailbox.first))
            waiting = asyncio.create_task(session.wait(timedelta(seconds=60)))
            await asyncio.sleep(0.2)
            await mailbox.cut()
            async with asyncio.timeout(10):
                with pytest.raises(SessionLost):
                    await waiting
        finally:
            await close_quietly(session)

    async def test_probe_succeeds_and_changes_nothing(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        before = await mailbox.shown()
        ways = [way for way in ways_of(mailbox) if is_possible(mailbox, way)]
        stages = [stage async for stage in mailbox.source().probe(ways)]
        assert stages
        assert [(stage.name, stage.detail) for stage in stages if not stage.ok] == []
        assert all(stage.elapsed >= timedelta(0) and not stage.advice for stage in stages)
        assert await mailbox.shown() == before
        assert await mailbox.shown(mailbox.target) == []

    async def test_probe_ends_at_the_first_failure_with_advice(self, mailbox: MailboxUnderTest) -> None:
        stages = [stage async for stage in mailbox.source(folders=[mailbox.target]).probe([])]
        assert [stage.ok for stage in stages] == [True] * (len(stages) - 1) + [False]
        assert stages[-1].detail
        assert stages[-1].advice
