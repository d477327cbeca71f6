"""A session against a scripted server: what a well-behaved one never does, and what is asked for in which words."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import TransientError
from mailpoller.core.message import Gone, MessageRef, Position, RawMessage
from mailpoller.core.ports import Start, Wake
from mailpoller.sources.imap.bookmark import Bookmark
from servers.mailboxes import claims_of, fetched, imap_source, listed, session_of, settled
from servers.scripted import Conversation, ScriptedImap

MAIL = b"Subject: hello\r\n\r\nbody\r\n"
SEEN = Disposition(seen=True)


def numbered(count: int) -> dict[int, bytes]:
    return {uid: b"Subject: %d\r\n\r\n" % uid for uid in range(1, count + 1)}


def uids(refs: list[MessageRef]) -> list[int]:
    return [int(ref.uid) for ref in refs]


# --- positions -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "bookmark",
    [
        Bookmark(12),
        Bookmark(12, 90, Start("unseen")),
        Bookmark(12, 90, Start("now")),
        Bookmark(12, 90, Start("since", datetime(2026, 1, 1, tzinfo=UTC))),
    ],
)
def test_a_position_is_read_as_it_was_written(bookmark: Bookmark) -> None:
    assert Bookmark.read(bookmark.write()) == bookmark


def test_a_position_forgets_start_once_the_old_messages_are_listed() -> None:
    assert Bookmark(90, 90, Start("unseen")).write() == "90"


@pytest.mark.parametrize("position", ["", "x", "1 2", "1 2 3", "1 2 since yesterday", None])
def test_a_position_that_cannot_be_read_lists_everything_anew(position: Position | None) -> None:
    assert Bookmark.read(position) is None


# --- listing ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("capabilities", ["IMAP4rev1", "IMAP4rev1 ESEARCH", "IMAP4rev2"])
@pytest.mark.parametrize("tells_uidnext", [True, False])
async def test_a_mailbox_is_listed_rightly_whatever_the_server_tells(
    tmp_path: Path, capabilities: str, tells_uidnext: bool
) -> None:
    async with ScriptedImap(messages=numbered(1200), capabilities=capabilities) as server:
        server.tells_uidnext = tells_uidnext
        async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
            refs, position = await listed(session, await session.open("INBOX"))
            assert uids(refs) == list(range(1, 1201))
            assert {ref.size for ref in refs} == {len(octets) for octets in server.messages.values()}
            _, now = await listed(session, await session.open("INBOX"), None, Start("now"))
        server.messages[1201] = MAIL
        for since in (position, now):
            async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
                folder = await session.open("INBOX")
                refs, after = await listed(session, folder, since)
                assert uids(refs) == [1201]
                assert await listed(session, folder, after) == ([], after)


async def test_mail_that_is_announced_right_behind_the_selection_is_not_missed(tmp_path: Path) -> None:
    def select(conversation: Conversation, tag: str, arguments: str) -> bytes:
        answer = server._select(conversation, tag, arguments)
        assert answer is not None
        server.messages[2] = MAIL
        return answer + b"* 2 EXISTS\r\n"

    async with (
        ScriptedImap({"SELECT": select}, messages={1: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"), Position("2"))
        assert uids(refs) == [2]


async def test_a_listing_that_the_server_refuses_is_a_passing_error(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"SEARCH": b"%T NO [LIMIT] too much\r\n"}, messages=numbered(600)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        with pytest.raises(TransientError, match="too much"):
            await listed(session, folder)
        assert await session.open("INBOX") == folder


async def test_a_server_without_uidvalidity_is_not_polled(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"SELECT": b"* 1 EXISTS\r\n%T OK\r\n"}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        with pytest.raises(TransientError, match="no UIDVALIDITY"):
            await session.open("INBOX")


async def test_a_uidvalidity_that_changes_under_us_is_noticed(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"NOOP": b"* OK [UIDVALIDITY 8] changed\r\n%T OK\r\n"}, messages={1: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        before = await session.open("INBOX")
        server.uidvalidity = 8
        after = await session.open("INBOX")
        assert (before.epoch[-1], after.epoch[-1]) == ("7", "8")


async def test_a_folder_that_is_open_for_long_is_selected_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        ScriptedImap() as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        for _ in range(3):
            await session.open("INBOX")
        assert len(server.asked("SELECT")) == 1
        monkeypatch.setattr("mailpoller.sources.imap.session.RESELECT", 0.0)
        await session.open("INBOX")
        assert len(server.asked("SELECT")) == 2


# --- fetching --------------------------------------------------------------------------------------------------------
async def test_a_set_that_is_refused_is_tried_one_by_one(tmp_path: Path) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        chosen = server._chosen(arguments.split(" ")[0])
        if "BODY" in arguments and 2 in chosen:
            some = server.fetch_answer(chosen[0], arguments) if len(chosen) > 1 else b""
            return some + b"%T NO [SERVERBUG] message 2 is broken\r\n"
        return server._fetch(conversation, tag, arguments)

    async with (
        ScriptedImap({"FETCH": fetch}, messages=numbered(4)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        answers = []
        with pytest.raises(TransientError, match="message 2 is broken"):
            async for answer in session.fetch(claims_of(refs), 1000):
                answers.append(answer)  # noqa: PERF401 what came before the error counts
        assert sorted(answer.claim.ref.uid for answer in answers) == ["1", "3", "4"]


async def test_a_body_that_is_nil_once_is_asked_for_again_and_then_left_for_later(tmp_path: Path) -> None:
    empty = {2: 1, 3: 9}

    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        answer = b""
        for uid in server._chosen(arguments.split(" ")[0]):
            if "BODY" in arguments and empty.get(uid, 0) > 0:
                empty[uid] -= 1
                answer += b"* %d FETCH (UID %d FLAGS () BODY[] NIL)\r\n" % (uid, uid)
            else:
                answer += server.fetch_answer(uid, arguments)
        return answer + b"%T OK\r\n"

    async with (
        ScriptedImap({"FETCH": fetch}, messages=numbered(3)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        answers = []
        with pytest.raises(TransientError, match="shows no body"):
            async for answer in session.fetch(claims_of(refs), 1000):
                answers.append(answer)  # noqa: PERF401 what came before the error counts
        assert sorted(answer.claim.ref.uid for answer in answers) == ["1", "2"]
        assert not any(isinstance(answer, Gone) for answer in answers)


async def test_a_message_that_is_listed_but_left_out_is_not_called_gone(tmp_path: Path) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if "BODY" in arguments:
            return server.fetch_answer(1, arguments) + b"%T OK\r\n"  # as Exchange does with what it cannot convert
        return server._fetch(conversation, tag, arguments)

    async with (
        ScriptedImap({"FETCH": fetch}, messages=numbered(2)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        gone = MessageRef(refs[0].folder, "99", 10)
        answers = []
        with pytest.raises(TransientError, match="does not give its body"):
            async for answer in session.fetch(claims_of([*refs, gone]), 1000):
                answers.append(answer)  # noqa: PERF401 what came before the error counts
        assert {answer.claim.ref.uid: type(answer) for answer in answers} == {"1": RawMessage, "99": Gone}


async def test_flags_are_never_touched_by_fetching_and_sequence_numbers_never_used(tmp_path: Path) -> None:
    async with (
        ScriptedImap(messages=numbered(700)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        await fetched(session, claims_of(refs), 1000)
        await session.settle(settled(refs[:3], SEEN))
    for line in server.lines:
        assert line.split(" ")[0] not in ("FETCH", "STORE", "SEARCH", "COPY", "MOVE", "EXPUNGE")
        assert "BODY[" not in line
        assert "RFC822" not in line.replace("RFC822.SIZE", "")


# --- settling --------------------------------------------------------------------------------------------------------
async def test_like_dispositions_go_in_one_command(tmp_path: Path) -> None:
    async with (
        ScriptedImap(messages=numbered(300)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        await session.settle(settled(refs, SEEN))
        assert server.asked("STORE") == [r"UID STORE 1:300 +FLAGS.SILENT (\Seen)"]


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (b"NO [NOPERM] not yours", "failed", "not yours"),
        (b"NO [OVERQUOTA] full", "failed", "full"),
        (b"BAD what", "failed", "what"),
        (b"NO [UNAVAILABLE] later", "pending", "later"),
        (b"NO [INUSE] locked", "pending", "locked"),
        (b"NO please try again", "pending", "try again"),
    ],
)
async def test_a_refused_disposition_is_told_with_the_servers_words(
    tmp_path: Path, answer: bytes, state: str, words: str
) -> None:
    async with (
        ScriptedImap({"STORE": b"%T " + answer + b"\r\n"}, messages=numbered(3)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        done = await session.settle(settled(refs, SEEN))
        assert {one.state for one in done} == {state}
        assert all(words in one.reason for one in done)


async def test_one_message_that_is_refused_does_not_stop_the_others(tmp_path: Path) -> None:
    def store(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if 2 in server._chosen(arguments.split(" ")[0]):
            return b"%T NO broken\r\n"
        answer = server._store(conversation, tag, arguments)
        assert answer is not None
        return answer

    async with (
        ScriptedImap({"STORE": store}, messages=numbered(3)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        assert [one.state for one in await session.settle(settled(refs, SEEN))] == ["applied", "failed", "applied"]


async def test_a_refusal_about_a_message_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"MOVE": b"%T NO no such message\r\n"}, messages=numbered(1)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        del server.messages[1]
        (done,) = await session.settle(settled(refs, Disposition(move="Done")))
        assert done.state == "applied"


@pytest.mark.parametrize(
    ("disposition", "flag"),
    [(Disposition(flags=("$Keyword",)), "$Keyword"), (Disposition(delete=True), "\\Deleted")],
)
async def test_a_flag_that_the_folder_does_not_keep_is_a_failure_and_nothing_is_sent(
    tmp_path: Path, disposition: Disposition, flag: str
) -> None:
    select = (
        b"* 1 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [PERMANENTFLAGS (\\Seen)] x\r\n%T OK [READ-WRITE] x\r\n"
    )  # fmt: skip
    async with (
        ScriptedImap({"SELECT": select}, messages=numbered(1)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        (done,) = await session.settle(settled(refs, disposition))
        assert (done.state, flag in done.reason) == ("failed", True)
        assert not server.asked("STORE")


async def test_a_folder_that_is_opened_read_only_fails_every_disposition(tmp_path: Path) -> None:
    select = b"* 1 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n%T OK [READ-ONLY] x\r\n"
    async with (
        ScriptedImap({"SELECT": select}, messages=numbered(1)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        (done,) = await session.settle(settled(refs, SEEN))
        assert (done.state, "read-only" in done.reason) == ("failed", True)


async def test_no_bare_expunge_is_ever_sent(tmp_path: Path) -> None:
    for capabilities in ("IMAP4rev1", "IMAP4rev1 UIDPLUS", "IMAP4rev1 UIDPLUS MOVE"):
        async with (
            ScriptedImap(messages=numbered(2), capabilities=capabilities) as server,
            session_of(imap_source(tmp_path, server.port, "joe")) as session,
        ):
            refs, _ = await listed(session, await session.open("INBOX"))
            await session.settle([
                *settled(refs[:1], Disposition(delete=True)), *settled(refs[1:], Disposition(move="Done"))
            ])  # fmt: skip
        assert all(line.startswith("UID EXPUNGE ") for line in server.asked("EXPUNGE"))
        assert "CLOSE" not in server.lines  # which expunges too (RFC 3501 section 6.4.2)


async def test_shadow_mode_sends_nothing_that_changes_anything(tmp_path: Path) -> None:
    async with (
        ScriptedImap(messages=numbered(2)) as server,
        session_of(imap_source(tmp_path, server.port, "joe", mode="shadow")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        await fetched(session, claims_of(refs))
        for way in (SEEN, Disposition(delete=True), Disposition(move="Done")):
            assert {one.state for one in await session.settle(settled(refs, way))} == {"applied"}
        assert await session.wait(timedelta(seconds=0.1)) is Wake.LIMIT
    words = {line.removeprefix("UID ").split(" ")[0] for line in server.lines}
    assert words <= {"CAPABILITY", "LOGIN", "EXAMINE", "FETCH", "SEARCH", "IDLE", "DONE", "", "LOGOUT", "NOOP"}


# --- waiting and the end ---------------------------------------------------------------------------------------------
async def test_a_server_that_refuses_idle_is_not_asked_again(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"IDLE": b"%T BAD no\r\n"}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        await session.open("INBOX")
        for _ in range(2):
            assert await session.wait(timedelta(seconds=0.1)) is Wake.LIMIT
        assert len(server.asked("IDLE")) == 1


async def test_a_server_that_ends_idle_at_once_is_not_asked_all_the_time(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"IDLE": b"+ idling\r\n%T OK over\r\n"}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        await session.open("INBOX")
        assert await session.wait(timedelta(seconds=0.3)) is Wake.LIMIT
        assert len(server.asked("IDLE")) <= 3


async def test_idle_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailpoller.sources.imap.session.RENEW_IDLE", 1.05)

    def idle(conversation: Conversation, tag: str, arguments: str) -> bytes:
        conversation.idle_tag = tag
        return b"+ idling\r\n" + (b"* 1 EXISTS\r\n" if len(server.asked("IDLE")) == 3 else b"")

    async with (
        ScriptedImap({"IDLE": idle, "DONE": b"%T OK done\r\n"}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        await session.open("INBOX")
        began = time.monotonic()
        assert await session.wait(timedelta(minutes=5)) is Wake.NEWS
        assert time.monotonic() - began >= 2 * 1.05


async def test_a_server_without_idle_is_shown_that_we_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailpoller.sources.imap.session.NOOP_INTERVAL", 0.1)

    def noop(conversation: Conversation, tag: str, arguments: str) -> bytes:
        return b"* 1 EXISTS\r\n%T OK\r\n" if len(server.asked("NOOP")) > 2 else b"%T OK\r\n"

    async with (
        ScriptedImap({"NOOP": noop}, capabilities="IMAP4rev1") as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        await session.open("INBOX")
        assert await session.wait(timedelta(minutes=5)) is Wake.NEWS


async def test_closing_never_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailpoller.sources.imap.session.GOODBYE", 0.2)
    async with ScriptedImap({"LOGOUT": lambda conversation, tag, arguments: None}) as server:
        session = await imap_source(tmp_path, server.port, "joe").connect()
        began = time.monotonic()
        await session.close()
        assert time.monotonic() - began < 30
        assert "LOGOUT" in server.lines


async def test_capabilities_are_read_anew_after_logging_in(tmp_path: Path) -> None:
    def capability(conversation: Conversation, tag: str, arguments: str) -> bytes:
        return b"* CAPABILITY IMAP4rev1 IDLE\r\n%T OK\r\n"

    async with (
        ScriptedImap({"CAPABILITY": capability}, capabilities="IMAP4rev1") as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        await session.open("INBOX")
        await session.wait(timedelta(seconds=0.1))
        assert server.asked("IDLE")
