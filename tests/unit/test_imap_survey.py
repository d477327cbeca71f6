"""What lies behind a bookmark: is it what was listed, is all of it there, and where does a listing lack something?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailpoller.core.errors import TransientError
from mailpoller.core.message import MessageRef, Page, Position, Survey
from mailpoller.core.ports import Session, Start
from mailpoller.sources.imap.bookmark import Bookmark, Gap
from mailpoller.sources.imap.survey import FAMILIAR
from servers.mailboxes import ALL, imap_source, listed, session_of
from servers.scripted import Conversation, ScriptedImap

MAIL = b"Subject: hello\r\n\r\nbody\r\n"
RECEIVED = datetime(2026, 2, 1, 2, 4, 5, tzinfo=UTC)


def numbered(first: int, last: int) -> dict[int, bytes]:
    return {uid: b"Subject: %d\r\n\r\n" % uid for uid in range(first, last + 1)}


def uids(refs: object) -> list[int]:
    return [int(ref.uid) for ref in refs]  # type: ignore[attr-defined]


def read(position: Position | None) -> Bookmark:
    found = Bookmark.read(position)
    assert found is not None
    return found


async def surveyed(tmp_path: Path, server: ScriptedImap, position: str) -> Survey:
    async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
        return await session.survey(await session.open("INBOX"), Position(position))


async def pages(session: Session, position: str | None) -> list[Page]:
    folder = await session.open("INBOX")
    since = None if position is None else Position(position)
    return [page async for page in session.pending(folder, since, ALL)]


class Gapped(ScriptedImap):
    """A server whose FETCH leaves out ``lacking``; with ``blind`` SEARCH does so, too."""

    lacking: frozenset[int] = frozenset({5})
    blind = True

    def _fetch(self, conversation: Conversation, tag: str, arguments: str) -> bytes:
        chosen, _, items = arguments.partition(" ")
        shown = [uid for uid in self._chosen(chosen) if uid not in self.lacking]
        return b"".join(self.fetch_answer(uid, items) for uid in shown) + b"%T OK done\r\n"

    def _search(self, conversation: Conversation, tag: str, arguments: str) -> bytes | None:
        kept = self.messages
        if self.blind:
            self.messages = {uid: octets for uid, octets in kept.items() if uid not in self.lacking}
        try:
            return super()._search(conversation, tag, arguments)
        finally:
            self.messages = kept


# --- positions -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "bookmark",
    [
        Bookmark(12, below=7),
        Bookmark(12, 90, Start("unseen"), below=0, grown_at=1_790_000_000),
        Bookmark(12, low=5, high=12, caught_at=1_790_000_000),
        Bookmark(12, below=3, gaps=(Gap(5, 6, 2, 3, 739_000), Gap(9, 9))),
    ],
)
def test_a_position_keeps_what_is_remembered(bookmark: Bookmark) -> None:
    assert Bookmark.read(bookmark.write()) == bookmark


def test_a_position_of_an_earlier_version_is_read() -> None:
    assert Bookmark.read(Position("12 90 unseen")) == Bookmark(12, 90, Start("unseen"))


def test_what_is_remembered_and_cannot_be_read_costs_no_position() -> None:
    assert Bookmark.read(Position("12 below=x gap=1-2 odd=3 low=")) == Bookmark(12)


# --- surveys ---------------------------------------------------------------------------------------------------------
async def test_the_newest_messages_below_the_bookmark_are_told_in_one_round_trip(tmp_path: Path) -> None:
    async with ScriptedImap(messages=numbered(1, 100)) as server:
        survey = await surveyed(tmp_path, server, "91 below=90")
        assert uids(survey.familiar) == list(range(91 - FAMILIAR, 91))
        assert {(ref.size, ref.received) for ref in survey.familiar} == {(15, RECEIVED)}
        assert (list(survey.strange), survey.behind, survey.position) == ([], False, None)
        assert len([line for line in server.lines if line.startswith("UID")]) == 1


async def test_an_empty_folder_costs_no_question(tmp_path: Path) -> None:
    async with ScriptedImap(uidnext=91) as server:
        survey = await surveyed(tmp_path, server, "91 below=4")
        assert (list(survey.familiar), survey.behind, survey.position) == ([], False, "91 below=0")
        assert not server.asked("UID")


async def test_a_position_of_an_earlier_version_learns_how_many_messages_are_below(tmp_path: Path) -> None:
    async with ScriptedImap(messages=numbered(81, 100)) as server:
        assert (await surveyed(tmp_path, server, "91")).position == "91 below=10"


async def test_messages_far_below_the_bookmark_are_found(tmp_path: Path) -> None:
    async with ScriptedImap(messages=numbered(1, 30), uidnext=5001) as server:
        survey = await surveyed(tmp_path, server, "5001 below=30")
        assert uids(survey.familiar) == list(range(11, 31))


async def test_a_server_that_stands_behind_the_bookmark_is_told_as_behind_and_its_mark_is_kept(tmp_path: Path) -> None:
    async with ScriptedImap(messages=numbered(1, 49)) as server:
        first = await surveyed(tmp_path, server, "100 below=99")
        assert (first.behind, list(first.strange), uids(first.familiar)) == (True, [], list(range(30, 50)))
        assert first.position == "100 below=99 low=50-100-0"
        server.messages |= numbered(50, 52)  # numbers that were given before
        later = await surveyed(tmp_path, server, first.position)
        assert (later.behind, uids(later.strange), later.position) == (True, [50, 51, 52], None)
        assert {50, 51, 52} <= set(uids(later.familiar))


async def test_the_lowest_mark_is_the_one_that_is_kept(tmp_path: Path) -> None:
    async with ScriptedImap(messages=numbered(1, 39)) as server:
        assert (await surveyed(tmp_path, server, "100 low=50-100-0")).position == "100 low=40-100-0"


async def test_a_server_that_has_grown_past_the_bookmark_again_is_shown_twice_a_minute_apart(tmp_path: Path) -> None:
    async with ScriptedImap(messages=numbered(1, 120)) as server:
        first = await surveyed(tmp_path, server, "100 below=99 low=50-100-0")
        assert (first.behind, uids(first.strange)) == (True, list(range(50, 100)))
        assert first.position is not None
        soon = await surveyed(tmp_path, server, first.position)
        assert (soon.behind, uids(soon.strange), soon.position) == (True, list(range(50, 100)), None)
        at = read(first.position).caught_at
        late = await surveyed(tmp_path, server, first.position.replace(str(at), str(at - 1000)))
        assert (late.behind, uids(late.strange), late.position) == (False, list(range(50, 100)), "100 below=99")
        ahead = await surveyed(tmp_path, server, first.position.replace(str(at), str(at + 9_999)))
        assert not ahead.behind  # a clock that was once ahead


async def test_what_looks_set_back_is_shown_for_three_polls_however_far_these_are_apart(tmp_path: Path) -> None:
    async with ScriptedImap(messages=numbered(1, 120)) as server:
        now = int(datetime.now(UTC).timestamp())
        for interval, again in (("1m", False), ("10m", True)):
            source = imap_source(tmp_path, server.port, "joe", poll_interval=interval)
            async with session_of(source) as session:
                position = Position(f"100 below=99 low=50-100-{now - 1000}")
                assert (await session.survey(await session.open("INBOX"), position)).behind == again


async def test_mail_that_came_since_the_selection_is_no_proof_that_the_server_is_behind(tmp_path: Path) -> None:
    async with (
        ScriptedImap(messages=numbered(1, 49)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        server.messages |= numbered(50, 120)
        server.script["NOOP"] = b"* 120 EXISTS\r\n%T OK\r\n"
        await session.open("INBOX")
        survey = await session.survey(folder, Position("100 low=50-100-0"))
        assert read(survey.position).caught_at
        assert uids(survey.strange) == list(range(50, 100))


async def test_more_messages_below_the_bookmark_than_there_were_are_all_told(tmp_path: Path) -> None:
    async with ScriptedImap(messages=numbered(1, 300), uidnext=400) as server:
        survey = await surveyed(tmp_path, server, "400 below=299")
        assert uids(survey.familiar) == uids(survey.strange) == list(range(1, 301))
        assert survey.familiar[-1] == MessageRef(survey.familiar[0].folder, "300", 16, RECEIVED)
        assert survey.behind  # asked again, a poll later
        grown = read(survey.position)
        assert (grown.below, grown.grown_at > 0) == (299, True)
        late = await surveyed(tmp_path, server, f"400 below=299 grown={grown.grown_at - 1000}")
        assert (late.behind, len(late.strange), late.position) == (False, 300, "400 below=300")


async def test_fewer_messages_below_the_bookmark_are_everyday(tmp_path: Path) -> None:
    async with ScriptedImap(messages=numbered(1, 300), uidnext=400) as server:
        survey = await surveyed(tmp_path, server, "400 below=301")
        assert (len(survey.familiar), list(survey.strange), survey.position) == (FAMILIAR, [], "400 below=300")


@pytest.mark.parametrize("status", [True, False])
async def test_a_server_that_tells_no_uidnext_is_asked_for_it_otherwise(tmp_path: Path, status: bool) -> None:
    answer = b"* STATUS INBOX (UIDNEXT 50)\r\n%T OK\r\n" if status else b"%T BAD\r\n"
    async with ScriptedImap({"STATUS": answer}, messages=numbered(1, 49)) as server:
        server.tells_uidnext = False
        assert (await surveyed(tmp_path, server, "100 below=99")).position == "100 below=99 low=50-100-0"
        assert (await surveyed(tmp_path, server, "50 below=49")).behind is False


async def test_a_size_that_is_refused_hides_no_other_message(tmp_path: Path) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if 7 in server._chosen(arguments.split(" ")[0]) and "SIZE" in arguments:
            return b"%T NO message 7 cannot be converted\r\n"
        return server._fetch(conversation, tag, arguments)

    async with ScriptedImap({"FETCH": fetch}, messages=numbered(1, 10)) as server:
        survey = await surveyed(tmp_path, server, "11 below=10")
        assert uids(survey.familiar) == list(range(1, 11))
        assert {ref.size for ref in survey.familiar} == {14, 15, None}


async def test_what_a_survey_has_noted_is_not_forgotten_by_a_listing_from_the_position_before(tmp_path: Path) -> None:
    async with (
        ScriptedImap(messages=numbered(1, 49)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        survey = await session.survey(folder, Position("100 below=99"))
        assert survey.position == "100 below=99 low=50-100-0"
        for position in ("100 below=99", survey.position):
            (page,) = await pages(session, position)
            assert page.position == survey.position


# --- looking ---------------------------------------------------------------------------------------------------------
async def test_a_look_tells_size_and_date_of_what_is_there_and_none_of_what_is_not(tmp_path: Path) -> None:
    async with (
        ScriptedImap(messages=numbered(1, 900)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        asked = [MessageRef(folder, str(uid)) for uid in (3, 2000, 1, *range(10, 900, 2))]
        seen = await session.look(asked)
        assert [ref and ref.uid for ref in seen] == ["3", None, "1", *map(str, range(10, 900, 2))]
        assert seen[0] == MessageRef(folder, "3", 14, RECEIVED)
        assert max(map(len, server.asked("FETCH"))) < 8000


async def test_a_refused_look_is_no_absence(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"FETCH": b"%T NO [UNAVAILABLE] later\r\n"}, messages=numbered(1, 3)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        with pytest.raises(TransientError, match="later"):
            await session.look([MessageRef(folder, "1")])
        server.script |= {"FETCH": b"%T NO no\r\n", "SEARCH": b"%T NO never\r\n"}
        with pytest.raises(TransientError, match="never"):
            await session.look([MessageRef(folder, "1")])


async def test_a_line_that_a_look_lacks_is_no_absence(tmp_path: Path) -> None:
    server = Gapped(messages=numbered(1, 9))
    server.blind = False
    async with server, session_of(imap_source(tmp_path, server.port, "joe")) as session:
        folder = await session.open("INBOX")
        assert await session.look([MessageRef(folder, "5"), MessageRef(folder, "10")]) == [
            MessageRef(folder, "5"),
            None,
        ]


# --- dates -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [10, 1200])
async def test_refs_bear_dates_where_these_are_wanted_and_only_there(tmp_path: Path, count: int) -> None:
    async with (
        ScriptedImap(messages=numbered(1, count)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        refs, _ = await listed(session, folder)
        assert {ref.received for ref in refs} == {None}
        assert not server.asked("INTERNALDATE")
        refs, _ = await listed(session, folder, None, Start("all", dated=True))
        assert {ref.received for ref in refs} == {RECEIVED}
        since = Start("since", datetime(2026, 1, 1, tzinfo=UTC))
        refs, _ = await listed(session, folder, None, since)
        assert {ref.received for ref in refs} == {RECEIVED}  # asked for anyway


@pytest.mark.parametrize(("hours", "day"), [(-10, 31), (14, 1)])
async def test_start_since_takes_a_message_whose_day_is_another_one_at_the_server(
    tmp_path: Path, hours: int, day: int
) -> None:
    # Received at 00:45 UTC on February 1st. A server in Hawaii files that under January 31st, and SINCE knows days
    # only.
    local = datetime(2026, 2, 1, 0, 45, tzinfo=UTC) + timedelta(hours=hours)
    zone = f"{'-' if hours < 0 else '+'}{abs(hours):02}00"
    assert local.day == day

    def search(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if "SINCE" not in arguments:
            answer = server._search(conversation, tag, arguments)
            assert answer is not None
            return answer
        asked = datetime.strptime(arguments.split("SINCE ")[1], "%d-%b-%Y")
        hit = b" ALL 1" if local.replace(tzinfo=None) >= asked else b""
        return b'* ESEARCH (TAG "%%T") UID%b\r\n%%T OK\r\n' % hit

    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        date = local.strftime("%d-%b-%Y %H:%M:%S ") + zone
        return f'* 1 FETCH (UID 1 RFC822.SIZE 24 INTERNALDATE "{date}")\r\n%T OK\r\n'.encode()

    async with (
        ScriptedImap({"SEARCH": search, "FETCH": fetch}, messages={1: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        start = Start("since", datetime(2026, 2, 1, 0, 30, tzinfo=UTC))
        refs, _ = await listed(session, await session.open("INBOX"), None, start)
        assert uids(refs) == [1]


# --- gaps ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [9, 700])
@pytest.mark.parametrize("lacking", [1, 5])
async def test_a_line_that_a_listing_lacks_is_found_by_search(tmp_path: Path, count: int, lacking: int) -> None:
    server = Gapped(messages=numbered(1, count))
    server.lacking, server.blind = frozenset({lacking}), False
    async with server, session_of(imap_source(tmp_path, server.port, "joe")) as session:
        with capture_logs() as logs:
            refs, position = await listed(session, await session.open("INBOX"))
        assert uids(refs) == list(range(1, count + 1))
        assert position == f"{count + 1} below={count}"
        assert not logs


async def test_a_message_that_a_search_lacks_is_found_by_fetch(tmp_path: Path) -> None:
    def search(conversation: Conversation, tag: str, arguments: str) -> bytes:
        answer = Gapped._search(server, conversation, tag, arguments)
        assert answer is not None
        return answer

    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes | None:
        return ScriptedImap._fetch(server, conversation, tag, arguments)

    server = Gapped({"SEARCH": search, "FETCH": fetch}, messages=numbered(1, 700))
    async with server, session_of(imap_source(tmp_path, server.port, "joe")) as session:
        refs, position = await listed(session, await session.open("INBOX"))
        assert (uids(refs), position) == (list(range(1, 701)), "701 below=700")


@pytest.mark.parametrize("line", [b"* 2 FETCH (RFC822.SIZE 3)\r\n", b"* 2 FETCH (UID x RFC822.SIZE 3)\r\n", b""])
async def test_a_line_that_cannot_be_read_is_a_gap_unless_search_fills_it(tmp_path: Path, line: bytes) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        return server.fetch_answer(1, arguments) + line + server.fetch_answer(3, arguments) + b"%T OK\r\n"

    async with (
        ScriptedImap({"FETCH": fetch}, messages=numbered(1, 3)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        assert uids(refs) == [1, 2, 3]


@pytest.mark.parametrize("count", [9, 700])
async def test_the_bookmark_stays_before_a_gap_and_what_is_listed_is_taken(tmp_path: Path, count: int) -> None:
    server = Gapped(messages=numbered(1, count))
    async with server, session_of(imap_source(tmp_path, server.port, "joe")) as session:
        with capture_logs() as logs:
            for _ in range(3):  # polls of one session, which count once
                found = await pages(session, None)
        assert sorted(uid for page in found for uid in uids(page.refs)) == [*range(1, 5), *range(6, count + 1)]
        assert {page.gap for page in found} == {""}
        assert found[-1].partial, "what the gap hides is missing: nothing is complete by this"
        assert [found[-1].position, len(logs)] == ["5 below=4 gap=5-5-1-1-0", 1]
        assert (logs[0]["event"], logs[0]["low"], logs[0]["missing"]) == ("listing.incomplete", 5, 1)


async def test_a_listing_with_a_gap_is_made_again_at_the_next_poll(tmp_path: Path) -> None:
    server = Gapped(messages=numbered(1, 9))
    async with server, session_of(imap_source(tmp_path, server.port, "joe")) as session:
        position = (await pages(session, None))[-1].position
        server.lacking = frozenset()
        (page,) = await pages(session, position)
        assert (uids(page.refs), page.position) == ([5, 6, 7, 8, 9], "10 below=9")


async def test_a_gap_that_three_sessions_confirm_is_passed_told_and_asked_for_once_a_day(tmp_path: Path) -> None:
    server = Gapped(messages=numbered(1, 9))
    async with server:
        position: str | None = None
        for _ in range(2):
            async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
                position = (await pages(session, position))[-1].position
        assert position == "5 below=4 gap=5-5-1-2-0"
        async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
            page = (await pages(session, position))[-1]
            assert page.position is not None
            assert page.position.startswith("10 ")
            assert page.gap == "1 missing among uid 5"
            server.messages |= numbered(10, 10)
            server.script["NOOP"] = b"* 10 EXISTS\r\n%T OK\r\n"
            page = (await pages(session, page.position))[-1]
            assert (uids(page.refs), page.gap) == ([10], "1 missing among uid 5")
            del server.script["NOOP"]
            asked = len(server.asked("5:5"))
            page = (await pages(session, page.position))[-1]
            assert (uids(page.refs), page.gap) == ([], "1 missing among uid 5")
        async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
            assert page.position is not None
            page = (await pages(session, page.position))[-1]
            assert (uids(page.refs), page.gap) == ([], "1 missing among uid 5")
            assert len(server.asked("5:5")) == asked  # once a day
        server.lacking = frozenset()
        assert page.position is not None
        yesterday = read(page.position)
        day = yesterday.gaps[0].day
        async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
            (page,) = await pages(session, page.position.replace(f"-{day}", f"-{day - 1}"))
            assert (uids(page.refs), page.gap, page.position) == ([5], "", "11 below=10")


async def test_a_gap_at_the_end_holds_the_bookmark_before_it(tmp_path: Path) -> None:
    server = Gapped(messages=numbered(1, 9))
    server.lacking = frozenset({8, 9})
    async with server:
        position: str | None = None
        for following in ("8", "8", "10"):
            async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
                page = (await pages(session, position))[-1]
                assert page.position is not None
                position = page.position
                assert position.split()[0] == following
        assert page.gap == "2 missing among uids 8 to 9"


async def test_a_gap_right_behind_the_bookmark_is_noticed_by_the_number_of_messages_below(tmp_path: Path) -> None:
    server = Gapped(messages=numbered(1, 9))
    async with server, session_of(imap_source(tmp_path, server.port, "joe")) as session:
        (page,) = await pages(session, "5 below=4")
        assert (uids(page.refs), page.position) == ([6, 7, 8, 9], "5 below=4 gap=5-5-1-1-0")


async def test_mail_that_is_expunged_while_it_is_listed_leaves_no_gap(tmp_path: Path) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        del server.script["FETCH"]
        first = server.fetch_answer(1, arguments) + server.fetch_answer(2, arguments)
        del server.messages[1]
        return first + b"* 1 EXPUNGE\r\n" + server.fetch_answer(3, arguments) + b"%T OK\r\n"

    async with (
        ScriptedImap({"FETCH": fetch}, messages=numbered(1, 3)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        with capture_logs() as logs:
            _, position = await listed(session, await session.open("INBOX"))
        assert (position, logs) == ("4 below=2", [])


async def test_an_odd_group_in_a_line_is_passed_over(tmp_path: Path) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        answer = b'* 1 FETCH (UID 1 (ENVELOPE ("date" NIL (NIL))) RFC822.SIZE 77)\r\n'
        return answer + server.fetch_answer(2, arguments) + b"%T OK\r\n"

    async with (
        ScriptedImap({"FETCH": fetch}, messages=numbered(1, 2)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, position = await listed(session, await session.open("INBOX"))
        assert ([(ref.uid, ref.size) for ref in refs], position) == ([("1", 77), ("2", 14)], "3 below=2")
        assert not server.asked("SEARCH")


async def test_the_number_of_messages_below_falls_with_what_leaves(tmp_path: Path) -> None:
    async with (
        ScriptedImap(messages=numbered(1, 5)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        position = (await pages(session, None))[-1].position
        assert position == "6 below=5"
        server.script["NOOP"] = b"* 1 EXPUNGE\r\n* 1 EXPUNGE\r\n%T OK\r\n"
        asked = len(server.asked("UID"))
        (page,) = await pages(session, position)
        assert page.position == "6 below=3"
        server.script["NOOP"] = b"%T OK\r\n"
        (page,) = await pages(session, page.position)
        assert (page.position, len(server.asked("UID"))) == ("6 below=3", asked)
