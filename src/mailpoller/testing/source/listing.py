"""Folders, and what is listed of them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.ports import Start
from mailpoller.testing.source.ground import (
    ALL,
    NOW,
    UNSEEN,
    MailboxUnderTest,
    SourceGround,
    connected,
    fetched,
    letter,
    listing,
    settlement,
)


class ListingPromises(SourceGround):
    """Folders, and what is listed of them."""

    async def test_folders_are_listed_in_the_configured_order(self, mailbox: MailboxUnderTest) -> None:
        if not mailbox.has_folders:
            async with connected(mailbox.source()) as session:
                assert list(await session.folders()) == [mailbox.first]
            return
        async with connected(mailbox.source(folders=[mailbox.second, mailbox.first])) as session:
            assert list(await session.folders()) == [mailbox.second, mailbox.first]

    async def test_folder_that_does_not_exist_is_left_out(self, mailbox: MailboxUnderTest) -> None:
        if not mailbox.has_folders:
            return
        async with connected(mailbox.source(folders=[mailbox.first, mailbox.target])) as session:
            assert list(await session.folders()) == [mailbox.first]

    async def test_opening_a_missing_folder_is_transient_and_leaves_the_session_usable(
        self, mailbox: MailboxUnderTest
    ) -> None:
        await mailbox.deliver(letter(1))
        async with connected(mailbox.source()) as session:
            with pytest.raises(TransientError) as caught:
                await session.open(mailbox.target)
            assert not isinstance(caught.value, SessionLost)
            folder = await session.open(mailbox.first)
            assert len((await listing(session, folder))[0]) == 1

    async def test_folder_is_the_same_in_every_session(self, mailbox: MailboxUnderTest) -> None:
        async with connected(mailbox.source()) as session:
            before = await session.open(mailbox.first)
        await mailbox.deliver(letter(1))
        async with connected(mailbox.source()) as session:
            assert await session.open(mailbox.first) == before
            assert before.name == mailbox.first

    async def test_folders_are_kept_apart(self, mailbox: MailboxUnderTest) -> None:
        if not mailbox.has_folders:
            return
        await mailbox.deliver(letter(1))
        await mailbox.deliver(letter(2), mailbox.second)
        async with connected(mailbox.source(folders=[mailbox.first, mailbox.second])) as session:
            for name, number in ((mailbox.first, 1), (mailbox.second, 2), (mailbox.first, 1)):
                folder = await session.open(name)
                refs, _ = await listing(session, folder)
                assert list((await fetched(session, refs)).values()) == [letter(number)]

    async def test_empty_folder_has_one_empty_listing(self, mailbox: MailboxUnderTest) -> None:
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            refs, position = await listing(session, folder)
            assert refs == []
            assert (position is not None) is mailbox.has_positions

    async def test_full_listing_shows_what_start_wants(self, mailbox: MailboxUnderTest) -> None:
        now = datetime.now(UTC)
        await mailbox.deliver(letter(1), received=now - timedelta(days=30))
        await mailbox.deliver(letter(2), received=now - timedelta(days=30), seen=True)
        await mailbox.deliver(letter(3))
        await mailbox.deliver(letter(4), seen=True)
        since = Start("since", now - timedelta(days=3))
        wanted = {
            ALL: {1, 2, 3, 4},
            NOW: set(),
            UNSEEN: {1, 3} if mailbox.knows_unseen else {1, 2, 3, 4},
            since: {3, 4} if mailbox.keeps_received else {1, 2, 3, 4},
        }
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            for start, numbers in wanted.items():
                refs, _ = await listing(session, folder, start=start)
                shown = await fetched(session, refs)
                assert Counter(shown.values()) == Counter(letter(number) for number in numbers), start.kind

    async def test_sizes_are_right_or_missing(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1, size=30_000))
        async with connected(mailbox.source()) as session:
            (ref,), _ = await listing(session, await session.open(mailbox.first))
            assert ref.size in (None, len(letter(1, size=30_000)))

    async def test_uids_stay_over_sessions_and_flag_changes(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        async with connected(mailbox.source()) as session:
            before, _ = await listing(session, await session.open(mailbox.first))
            if "seen" in mailbox.steps:
                await session.settle([settlement(ref, Disposition(seen=True)) for ref in before])
        async with connected(mailbox.source()) as session:
            after, _ = await listing(session, await session.open(mailbox.first))
        assert [ref.uid for ref in after] == [ref.uid for ref in before]

    async def test_two_mails_with_equal_octets_have_two_uids(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        await mailbox.deliver(letter(1))
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            assert list((await fetched(session, refs)).values()) == [letter(1), letter(1)]

    async def test_listing_from_a_position_shows_what_came_later(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            known, position = await listing(session, folder)
            for number in range(2, 5):
                await mailbox.deliver(letter(number))
                refs, position = await listing(session, await session.open(mailbox.first), position)
                shown = list((await fetched(session, refs)).values())
                earlier = [letter(n) for n in range(1, number)]
                assert shown == [letter(number)] if mailbox.has_positions else shown == [*earlier, letter(number)]
                known += refs
            refs, _ = await listing(session, await session.open(mailbox.first), position)
            assert refs == [] if mailbox.has_positions else len(refs) == 4

    async def test_position_of_another_session_loses_nothing(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        async with connected(mailbox.source()) as session:
            _, position = await listing(session, await session.open(mailbox.first))
        for number in (2, 3):
            await mailbox.deliver(letter(number))
            async with connected(mailbox.source()) as session:
                folder = await session.open(mailbox.first)
                refs, position = await listing(session, folder, position)
                assert letter(number) in (await fetched(session, refs)).values()

    async def test_mail_received_long_ago_but_put_there_now_is_shown(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            for start in (ALL, NOW):
                _, position = await listing(session, folder, start=start)
                number = 2 if start is ALL else 3
                await mailbox.deliver(letter(number), received=datetime.now(UTC) - timedelta(days=400), seen=True)
                refs, _ = await listing(session, await session.open(mailbox.first), position)
                if mailbox.has_positions:
                    assert list((await fetched(session, refs)).values()) == [letter(number)]

    async def test_position_keeps_what_start_did_not_want(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1), seen=True)
        await mailbox.deliver(letter(2), seen=True)
        for start in (NOW, UNSEEN):
            async with connected(mailbox.source()) as session:
                _, position = await listing(session, await session.open(mailbox.first), start=start)
            if not mailbox.has_positions or (start is UNSEEN and not mailbox.knows_unseen):
                continue
            await mailbox.deliver(letter(3))
            # Each listing goes on from the last one, in this session and in the next.
            for _ in range(2):
                async with connected(mailbox.source()) as session:
                    folder = await session.open(mailbox.first)
                    for _ in range(2):
                        refs, position = await listing(session, folder, position)
                        shown = set((await fetched(session, refs)).values())
                        assert shown.isdisjoint({letter(1), letter(2)}), start.kind
            await mailbox.remove(letter(3))

    async def test_interrupted_first_listing_is_begun_anew_without_loss(self, mailbox: MailboxUnderTest) -> None:
        octets = [letter(number) for number in range(40)]
        for one in octets:
            await mailbox.deliver(one)
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            pages = session.pending(folder, None, ALL)
            await anext(pages)
            await pages.aclose()  # type: ignore[attr-defined]
            assert len((await listing(session, folder))[0]) == 40
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            assert Counter((await fetched(session, refs)).values()) == Counter(octets)

    async def test_messages_are_fetched_while_pages_are_consumed(self, mailbox: MailboxUnderTest) -> None:
        for number in range(3):
            await mailbox.deliver(letter(number))
        async with connected(mailbox.source()) as session:
            folder = await session.open(mailbox.first)
            shown: Counter[bytes | None] = Counter()
            async for page in session.pending(folder, None, ALL):
                shown.update((await fetched(session, page.refs)).values())
            assert shown == Counter(letter(number) for number in range(3))
