"""What every source promises, as tests: subclass :class:`SourceSuite` and give it a mailbox of your kind.

    class MyMailbox(MailboxUnderTest):
        ...  # how to make the source, how to put mail into the mailbox, what is in it

    class TestMySource(SourceSuite):
        @pytest.fixture
        async def mailbox(self, tmp_path):
            async with my_server(tmp_path) as server:
                yield MyMailbox(server)

Each test gets a mailbox whose folders ``first`` and ``second`` exist and are empty; ``target`` does not exist. What a
protocol cannot do is declared on the mailbox, and the suite then asks for what the port promises instead. For
readable failures call ``pytest.register_assert_rewrite("mailpoller.testing.source_suite")`` before the import.
"""

from __future__ import annotations

import abc
import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from mailpoller.core.delivery import LEAVE, Disposition, Settlement
from mailpoller.core.errors import MailpollerError, SessionLost, TransientError
from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Claim, Folder, Gone, MessageRef, Position, RawMessage
from mailpoller.core.ports import Session, Source, Start, Wake
from mailpoller.core.record import record
from mailpoller.core.seals.ledger import SealedSettlement

ALL, NOW, UNSEEN = Start("all"), Start("now"), Start("unseen")
WHOLE = 50_000_000
"""A limit that no message of the suite reaches."""

Step = Literal["seen", "flag", "move", "delete"]


@record
class Shown:
    """One message as somebody else's mail program sees it. ``flags`` are named as IMAP names them."""

    octets: bytes
    flags: frozenset[str]


class MailboxUnderTest(abc.ABC):
    """A mailbox and the suite's way into it beside the source. A folder that is None is ``first``."""

    first = "INBOX"
    second = "Archive"
    target = "Processed"
    """A folder that does not exist, can be created, and is moved to."""
    flag = "\\Flagged"
    """A flag other than seen that the server keeps."""
    impossible_flag: str | None = None
    """A flag that the server never keeps; None if it keeps any."""
    has_positions = True
    """False: every listing is a full one, and no page has a position."""
    steps: frozenset[Step] = frozenset({"seen", "flag", "move", "delete"})
    """What the protocol can do to a message; a disposition that asks for more is answered ``failed``, with a reason."""
    keeps_received = True
    """The server says when it received a message. False: it says nothing, and a ``since`` listing shows everything."""
    knows_unseen = True
    """The server tells seen from unseen. False: an ``unseen`` listing shows everything."""
    has_folders = True
    """False: ``first`` is the only folder there can be."""
    ends_lines = False
    """True: the protocol gives every message a line end at its end, whether or not it had one."""
    disposes_at_close = False
    """True: what is done to a message counts only when its session ends, and is ``pending`` until a later one can
    tell."""
    waits_connected = True
    """False: while a session waits it has no connection that could be lost."""
    notices_within = timedelta(seconds=2)
    """How soon ``wait`` reports new mail."""

    @abc.abstractmethod
    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        """A new source of this mailbox, polling ``folders`` (by default only the first)."""

    @abc.abstractmethod
    async def deliver(
        self, octets: bytes, folder: str | None = None, *, seen: bool = False, received: datetime | None = None
    ) -> None:
        """Put a message into a folder, received by the server at ``received`` (aware) or now."""

    @abc.abstractmethod
    async def shown(self, folder: str | None = None) -> Sequence[Shown]:
        """What is in a folder; nothing if it does not exist."""

    @abc.abstractmethod
    async def remove(self, octets: bytes, folder: str | None = None) -> None:
        """Somebody else deletes a message."""

    @abc.abstractmethod
    async def cut(self) -> None:
        """Every open session loses its connection."""

    async def mend(self) -> None:  # noqa: B027  most connections are only made anew
        """The mailbox can be reached again after :meth:`cut`, if that takes anything."""

    async def octets(self, folder: str | None = None) -> Counter[bytes]:
        """The messages of a folder without their flags."""
        return Counter(one.octets for one in await self.shown(folder))


def letter(number: int, *, size: int = 0) -> bytes:
    """A message of at least ``size`` octets, CRLF line ends; another one for every number."""
    head = f"From: sender@example.com\r\nTo: support@example.org\r\nSubject: letter {number}\r\n\r\n".encode()
    line = b"The quick brown fox jumps over the lazy dog, again and again.\r\n"
    return head + line * max(1, (size - len(head)) // len(line) + 1)


@asynccontextmanager
async def connected(source: Source) -> AsyncIterator[Session]:
    """A session of ``source``, closed at the end."""
    session = await source.connect()
    try:
        yield session
    finally:
        await session.close()


async def listing(
    session: Session, folder: Folder, since: Position | None = None, start: Start = ALL
) -> tuple[list[MessageRef], Position | None]:
    """All refs of a listing, none twice, and the position of its last page.

    A session may take ``open`` for the moment to look anew, as the engine does before every listing.
    """
    pages = [page async for page in session.pending(folder, since, start)]
    assert pages, "a listing has at least one page"
    refs = [ref for page in pages for ref in page.refs]
    assert max(Counter(ref.uid for ref in refs).values(), default=1) == 1, "a message is listed once"
    assert all(ref.folder == folder for ref in refs)
    return refs, pages[-1].position


def claim(ref: MessageRef) -> Claim:
    """As a ledger would make it."""
    return Claim(ref, mint_mid(ref.folder.mailbox, ref.folder.name, ref.folder.epoch, ref.uid))


def settlement(ref: MessageRef, disposition: Disposition) -> Settlement:
    """As a ledger would make it."""
    return SealedSettlement(ref, claim(ref).mid, "delivered", disposition)


async def fetched(session: Session, refs: Sequence[MessageRef], limit: int = WHOLE) -> dict[str, bytes | None]:
    """uid -> octets, None for Gone; every ref answered once."""
    answers: dict[str, bytes | None] = {}
    async for answer in session.fetch([claim(ref) for ref in refs], limit):
        uid = answer.claim.ref.uid
        assert uid not in answers, "a claim is answered once"
        if isinstance(answer, Gone):
            answers[uid] = None
        else:
            answers[uid] = bytes(answer.octets.view())
            answer.octets.close()
    assert set(answers) == {ref.uid for ref in refs}, "every claim is answered"
    return answers


async def only(session: Session, folder: Folder, limit: int = WHOLE) -> RawMessage:
    """The one message of a folder; whoever asks closes its octets."""
    (ref,), _ = await listing(session, folder)
    (answer,) = [answer async for answer in session.fetch([claim(ref)], limit)]
    assert isinstance(answer, RawMessage)
    return answer


class SourceSuite:
    """The promises of :class:`~mailpoller.core.ports.Source` and :class:`~mailpoller.core.ports.Session`."""

    @pytest.fixture
    async def mailbox(self) -> AsyncIterator[MailboxUnderTest]:
        """The mailbox, empty. Every subclass has its own."""
        raise NotImplementedError
        yield

    # --- folders -----------------------------------------------------------------------------------------------
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

    # --- listing -----------------------------------------------------------------------------------------------
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

    # --- fetching ----------------------------------------------------------------------------------------------
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
                    done = await session.settle([settlement(answer.claim.ref, _some(mailbox))])
                    assert [one.state for one in done] == [_done(mailbox)]
            assert shown == Counter(letter(number) for number in range(10))

    # --- looking -----------------------------------------------------------------------------------------------
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
                assert found.received is None or ref.received is None or _second(found) == _second(ref)

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

    # --- settling ----------------------------------------------------------------------------------------------
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
                if _possible(mailbox, disposition) and mailbox.disposes_at_close and not turn:
                    assert done.state == "pending"
                elif _possible(mailbox, disposition):
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
        ways = [way for way in _ways(mailbox) if _possible(mailbox, way)]
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            await mailbox.remove(letter(3))
            told = [settlement(ref, ways[n % len(ways)]) for n, ref in enumerate(reversed(refs))]
            done = await session.settle(told)
            assert [one.settlement for one in done] == told
            assert {one.state for one in done} <= {"applied", _done(mailbox)}
            assert list(await session.settle([])) == []

    async def test_settling_what_vanished_is_applied(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        async with connected(mailbox.source()) as session:
            refs, _ = await listing(session, await session.open(mailbox.first))
            await mailbox.remove(letter(1))
            for way in _ways(mailbox):
                if _possible(mailbox, way):
                    (done,) = await session.settle([settlement(refs[0], way)])
                    assert done.state in ("applied", _done(mailbox))
        async with connected(mailbox.source()) as session:
            await session.open(mailbox.first)
            (done,) = await session.settle([settlement(refs[0], _some(mailbox))])
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
            told = [settlement(ref, way) for ref in refs for way in _ways(mailbox)]
            assert {one.state for one in await session.settle(told)} == {"applied"}
        assert await mailbox.shown() == before
        assert await mailbox.shown(mailbox.target) == []

    # --- waiting -----------------------------------------------------------------------------------------------
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

    # --- the end -----------------------------------------------------------------------------------------------
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
            session.settle([settlement(refs[0], _some(mailbox))]),
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
                await _close_quietly(session)
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
                for one in (_rest(answers), beside):
                    try:
                        await one
                    except SessionLost:
                        pass
                    # What had come already is no reason to complain; but the session is of no more use.
                with pytest.raises(SessionLost):
                    await fetched(session, refs)
        finally:
            await _close_quietly(session)

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
            await _close_quietly(session)

    # --- the probe ---------------------------------------------------------------------------------------------
    async def test_probe_succeeds_and_changes_nothing(self, mailbox: MailboxUnderTest) -> None:
        await mailbox.deliver(letter(1))
        before = await mailbox.shown()
        ways = [way for way in _ways(mailbox) if _possible(mailbox, way)]
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


def _second(ref: MessageRef) -> datetime | None:
    return None if ref.received is None else ref.received.replace(microsecond=0)


async def _rest(answers: AsyncIterator[RawMessage | Gone]) -> None:
    async for answer in answers:
        if isinstance(answer, RawMessage):
            answer.octets.close()


def _ways(mailbox: MailboxUnderTest) -> list[Disposition]:
    return [
        Disposition(seen=True),
        Disposition(flags=(mailbox.flag,)),
        Disposition(seen=True, move=mailbox.target),
        Disposition(delete=True),
    ]


def _possible(mailbox: MailboxUnderTest, way: Disposition) -> bool:
    needed: dict[Step, bool] = {
        "seen": way.seen, "flag": bool(way.flags), "move": way.move is not None, "delete": way.delete
    }  # fmt: skip
    return all(step in mailbox.steps for step, wanted in needed.items() if wanted)


def _some(mailbox: MailboxUnderTest) -> Disposition:
    return next(way for way in _ways(mailbox) if _possible(mailbox, way))


def _done(mailbox: MailboxUnderTest) -> str:
    """What is said of a disposition that was carried out."""
    return "pending" if mailbox.disposes_at_close else "applied"


async def _close_quietly(session: Session) -> None:
    try:
        await session.close()
    except MailpollerError:
        # Where dispositions count only at the end, a lost session says that they did not.
        pass
