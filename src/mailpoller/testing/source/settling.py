"""What is done to a message, and that it was seen to be done."""

from __future__ import annotations

from collections import Counter

import pytest

from mailpoller.core.delivery import LEAVE, Disposition
from mailpoller.testing.source.ground import (
    MailboxUnderTest,
    SourceGround,
    connected,
    done_by,
    fetched,
    is_possible,
    letter,
    listing,
    settlement,
    some_of,
    ways_of,
)


class SettlingPromises(SourceGround):
    """What is done to a message, and that it was seen to be done."""

    async def _settle(self, mailbox: MailboxUnderTest, disposition: Disposition, times: int = 1) -> None:
        """Settle the middle one of three letters with ``disposition``, in ``times`` sessions."""
        for number in range(3):
            await mailbox.deliver(letter(number))
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            shown = await fetched(session, refs)
        (ref,) = [ref for ref in refs if shown[ref.uid] == letter(1)]
        for turn in range(times):
            async with connected(mailbox.source()) as session:
                await session.open(mailbox.first)
                told = settlement(ref, disposition)
                (done,) = await session.settle([told])
                assert done.settlement is told
                if is_possible(mailbox, disposition) and mailbox.disposes_at_close and not turn:
                    assert done.state == "pending"
                elif is_possible(mailbox, disposition):
                    assert (done.state, done.reason) == ("applied", "")
                else:
                    assert done.state == "failed"
                    assert done.reason

    @pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
    async def test_seen_marks_that_message_and_no_other(self, mailbox: MailboxUnderTest, times: int) -> None:
        await self._settle(mailbox, Disposition(seen=True), times)
        seen = {one.octets for one in await mailbox.shown() if "\\Seen" in one.flags}
        assert seen == ({letter(1)} if "seen" in mailbox.steps else set())
        assert len(await mailbox.shown()) == 3

    @pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
    async def test_flag_is_set_on_that_message_and_no_other(self, mailbox: MailboxUnderTest, times: int) -> None:
        await self._settle(mailbox, Disposition(flags=(mailbox.flag,)), times)
        marked = {one.octets for one in await mailbox.shown() if mailbox.flag in one.flags}
        assert marked == ({letter(1)} if "flag" in mailbox.steps else set())
        assert not any("\\Seen" in one.flags for one in await mailbox.shown())

    @pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
    async def test_move_creates_the_target_and_moves_that_message(self, mailbox: MailboxUnderTest, times: int) -> None:
        await self._settle(mailbox, Disposition(seen=True, move=mailbox.target), times)
        if "move" not in mailbox.steps:
            assert len(await mailbox.shown()) == 3
            return
        assert await mailbox.octets() == Counter([letter(0), letter(2)])
        (moved,) = await mailbox.shown(mailbox.target)
        assert moved.octets == letter(1)
        assert "\\Seen" in moved.flags
        assert not any("\\Seen" in one.flags for one in await mailbox.shown())

    @pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
    async def test_delete_removes_that_message_and_no_other(self, mailbox: MailboxUnderTest, times: int) -> None:
        await self._settle(mailbox, Disposition(delete=True), times)
        left = [letter(0), letter(2)] if "delete" in mailbox.steps else [letter(0), letter(1), letter(2)]
        assert await mailbox.octets() == Counter(left)

    async def test_leave_touches_nothing(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        before = await mailbox.shown()
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            done = await session.settle([settlement(ref, LEAVE) for ref in refs])
            assert [one.state for one in done] == ["applied"]
        assert await mailbox.shown() == before

    async def test_settlements_are_answered_in_their_order(self, mailbox: MailboxUnderTest) -> None:
        for number in range(8):
            await mailbox.deliver(letter(number))
        ways = [way for way in ways_of(mailbox) if is_possible(mailbox, way)]
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            await mailbox.remove(letter(3))
            told = [settlement(ref, ways[n % len(ways)]) for n, ref in enumerate(reversed(refs))]
            done = await session.settle(told)
            assert [one.settlement for one in done] == told
            assert {one.state for one in done} <= {"applied", done_by(mailbox)}
            assert list(await session.settle([])) == []

    async def test_settling_what_vanished_is_applied(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            await mailbox.remove(letter(1))
            for way in ways_of(mailbox):
                if is_possible(mailbox, way):
                    (done,) = await session.settle([settlement(refs[0], way)])
                    assert done.state in ("applied", done_by(mailbox))
        async with connected(mailbox.source()) as session:
            await session.open(mailbox.first)
            (done,) = await session.settle([settlement(refs[0], some_of(mailbox))])
            assert done.state == "applied"

    async def test_flag_that_cannot_be_kept_fails_with_a_reason(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        flag = mailbox.impossible_flag
        async with connected(mailbox.source()) as session:
            (ref,), _ = await listing(session, await session.open(mailbox.first))
            (done,) = await session.settle([settlement(ref, Disposition(flags=(flag or mailbox.flag,)))])
            if flag is None and "flag" in mailbox.steps:
                assert done.state == "applied"
            else:
                assert done.state == "failed"
                assert done.reason
        assert await mailbox.octets() == Counter([letter(1)])

    async def test_shadow_changes_nothing(self, mailbox: MailboxUnderTest) -> None:
        for number in range(4):
            await mailbox.deliver(letter(number))
        before = await mailbox.shown()
        async with connected(mailbox.source(mode="shadow")) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            await fetched(session, refs)
            told = [settlement(ref, way) for ref in refs for way in ways_of(mailbox)]
            assert {one.state for one in await session.settle(told)} == {"applied"}
        assert await mailbox.shown() == before
        assert await mailbox.shown(mailbox.target) == []
