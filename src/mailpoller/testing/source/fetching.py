"""Octets, whole or cut, and what is not there."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime

from mailpoller.core.message import RawMessage
from mailpoller.testing.source.ground import (
    WHOLE,
    MailboxUnderTest,
    SourceGround,
    claim,
    connected,
    done_by,
    fetched,
    letter,
    listing,
    only,
    settlement,
    some_of,
)


class FetchingPromises(SourceGround):
    """Octets, whole or cut, and what is not there."""

    async def test_octets_arrive_bit_for_bit(self, mailbox: MailboxUnderTest) -> None:
        odd = [
            b"Subject: no body\r\n\r\n",
            b"Subject: eight bits\r\n\r\n\xff\xfe\x80 \xe4\xf6\xfc\r\n",
            b"Subject: dots\r\n\r\n.\r\n..\r\n.dot\r\n",
            b"Subject: brackets {12}\r\n\r\n) {3}\r\n* 1 FETCH (UID 7)\r\nA1 OK done\r\n",
            b"Subject: long line\r\n\r\n" + b"x" * 100_000 + b"\r\n",
            b"Subject: no line end at the end\r\n\r\nhere",
            b"no header at all\r\n",
            letter(1, size=3_000_000),
        ]
        for one in odd:
            await mailbox.deliver(one)
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            if mailbox.ends_lines:
                odd = [one if one.endswith(b"\r\n") else one + b"\r\n" for one in odd]
            assert Counter((await fetched(session, refs)).values()) == Counter(odd)

    async def test_every_claim_of_a_large_batch_is_answered_once(self, mailbox: MailboxUnderTest) -> None:
        octets = [letter(number, size=number * 50) for number in range(120)]
        for one in octets:
            await mailbox.deliver(one)
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            assert Counter((await fetched(session, refs)).values()) == Counter(octets)

    async def test_vanished_message_is_answered_with_gone(self, mailbox: MailboxUnderTest) -> None:
        for number in range(4):
            await mailbox.deliver(letter(number))
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            await mailbox.remove(letter(1))
            await mailbox.remove(letter(3))
            shown = await fetched(session, refs)
            assert Counter(shown.values()) == Counter([letter(0), letter(2), None, None])

    async def test_fetch_says_what_the_server_knows(self, mailbox: MailboxUnderTest) -> None:
        received = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
        await mailbox.deliver(letter(1), received=received, seen=True)
        async with connected(mailbox.source()) as session:
            raw = await only(session, await session.open(mailbox.first))
            raw.octets.close()
            assert not raw.truncated
            assert raw.received == (received if mailbox.keeps_received else None)
            assert "\\Seen" in raw.flags or not mailbox.knows_unseen

    async def test_fetch_changes_no_flag(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        before = await mailbox.shown()
        async with connected(mailbox.source()) as session:
            (await only(session, await session.open(mailbox.first))).octets.close()
            (await only(session, await session.open(mailbox.first), limit=10)).octets.close()
        assert await mailbox.shown() == before

    async def test_limit_cuts_and_says_so(self, mailbox: MailboxUnderTest) -> None:
        octets = letter(1, size=200_000)
        await mailbox.deliver(octets)
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            for limit in (1, 100, 65_536, len(octets) - 1):
                raw = await only(session, folder, limit)
                assert bytes(raw.octets.view()) == octets[:limit]
                assert raw.truncated
                assert raw.announced in (None, len(octets))
                raw.octets.close()

    async def test_message_of_exactly_the_limit_is_whole(self, mailbox: MailboxUnderTest) -> None:
        octets = letter(1, size=5_000)
        await mailbox.deliver(octets)
        async with connected(mailbox.source()) as session:
            raw = await only(session, await session.open(mailbox.first), len(octets))
            assert bytes(raw.octets.view()) == octets
            assert not raw.truncated
            raw.octets.close()

    async def test_consumer_that_stops_early_leaves_the_session_usable(self, mailbox: MailboxUnderTest) -> None:
        for number in range(20):
            await mailbox.deliver(letter(number, size=20_000))
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            answers = session.fetch([claim(ref) for ref in refs], WHOLE)
            first = await anext(answers)
            assert isinstance(first, RawMessage)
            first.octets.close()
            await answers.aclose()  # type: ignore[attr-defined]
            assert len(await fetched(session, refs)) == 20

    async def test_two_fetches_at_once_each_answer_their_own_claims(self, mailbox: MailboxUnderTest) -> None:
        octets = [letter(number, size=number * 500) for number in range(24)]
        for one in octets:
            await mailbox.deliver(one)
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            halves = refs[:12], refs[12:]
            async with asyncio.timeout(20):
                shown = await asyncio.gather(*(fetched(session, half) for half in halves))
        assert [set(answered) for answered in shown] == [{ref.uid for ref in half} for half in halves]
        assert Counter([*shown[0].values(), *shown[1].values()]) == Counter(octets)

    async def test_fetch_that_is_given_up_leaves_the_one_beside_it_whole(self, mailbox: MailboxUnderTest) -> None:
        for number in range(20):
            await mailbox.deliver(letter(number, size=20_000))
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            async with asyncio.timeout(20):
                beside = asyncio.create_task(fetched(session, refs[10:]))
                answers = session.fetch([claim(ref) for ref in refs[:10]], WHOLE)
                first = await anext(answers)
                assert isinstance(first, RawMessage)
                first.octets.close()
                await answers.aclose()  # type: ignore[attr-defined]
                whole = await beside
                assert set(whole) == {ref.uid for ref in refs[10:]}
                assert set(whole.values()) <= {letter(number, size=20_000) for number in range(20)}
                assert len(await fetched(session, refs)) == 20

    async def test_settling_takes_its_turn_while_a_fetch_is_consumed(self, mailbox: MailboxUnderTest) -> None:
        for number in range(10):
            await mailbox.deliver(letter(number))
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            shown: Counter[bytes] = Counter()
            async with asyncio.timeout(20):
                async for answer in session.fetch([claim(ref) for ref in refs], WHOLE):
                    assert isinstance(answer, RawMessage)
                    shown[bytes(answer.octets.view())] += 1
                    answer.octets.close()
                    done = await session.settle([settlement(answer.claim.ref, some_of(mailbox))])
                    assert [one.state for one in done] == [done_by(mailbox)]
            assert shown == Counter(letter(number) for number in range(10))
