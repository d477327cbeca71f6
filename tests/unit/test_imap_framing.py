"""Octets are believed only when the answer that brings them ends as it should."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Gone, RawMessage
from servers.mailboxes import claims_of, fetched, imap_source, listed, session_of
from servers.scripted import Conversation, ScriptedImap

MAIL = b"Subject: hello\r\n\r\nbody\r\n"
MAILS = {1: b"Subject: first\r\n\r\none\r\n", 2: MAIL, 3: b"Subject: last\r\n\r\nthree\r\n"}
HEAD = b"* 2 FETCH (UID 2 FLAGS () BODY[] {%d}\r\n"


async def had(
    tmp_path: Path, answer: bytes, *, times: int = 1, limit: int = 50_000_000
) -> tuple[dict[str, tuple[bytes, str]], Exception | None, list[object]]:
    """What comes of message 2 and its neighbours when the server gives ``answer`` for it: uid -> octets and doubt;
    the error in the end; what was logged."""
    given = [answer] * times

    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if "BODY" not in arguments:
            return server._fetch(conversation, tag, arguments)
        return b"".join(
            given.pop() if uid == 2 and given else server.fetch_answer(uid, arguments)
            for uid in server._chosen(arguments.split(" ")[0])
        ) + b"%T OK\r\n"  # fmt: skip

    found: dict[str, tuple[bytes, str]] = {}
    failure: Exception | None = None
    async with (
        ScriptedImap({"FETCH": fetch}, messages=MAILS) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        with capture_logs() as logs:
            try:
                async for one in session.fetch(claims_of(refs), limit):
                    assert isinstance(one, RawMessage)
                    found[one.claim.ref.uid] = bytes(one.octets.view()), one.doubt
            except (SessionLost, TransientError) as error:
                failure = error
    return found, failure, list(logs)


# --- ends that are proper --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "end",
    [
        b")",
        b" FLAGS (\\Seen))",
        b' INTERNALDATE " 1-Feb-2026 03:04:05 +0100" RFC822.SIZE 24 MODSEQ (7))',
        b' X-GM-MSGID 12 X-GM-LABELS ("a b"))',
        b" (ODD (group)) FLAGS ())",
        b' BODY[HEADER] {5}\r\nab\r\nc ENVELOPE ("x" NIL))',
        b") ",
    ],
)
async def test_a_body_counts_where_the_rest_of_its_list_follows(tmp_path: Path, end: bytes) -> None:
    found, failure, _ = await had(tmp_path, HEAD % len(MAIL) + MAIL + end + b"\r\n")
    assert (found["2"], failure, len(found)) == ((MAIL, ""), None, 3)


# --- and those that are not ------------------------------------------------------------------------------------------
async def test_a_list_that_is_not_closed_is_a_doubt_and_the_others_go_on(tmp_path: Path) -> None:
    for end in (b"\r\n", b" FLAGS (\\Seen)\r\n", b" FLAGS (\r\n"):
        found, failure, _ = await had(tmp_path, HEAD % len(MAIL) + MAIL + end)
        assert (failure, found["1"][1], found["3"][1]) == (None, "", "")
        assert (found["2"][0], "before its list is closed" in found["2"][1]) == (MAIL, True)


@pytest.mark.parametrize(
    "rest",
    [
        b"dy\r\n)\r\n",  # the length is too small: what follows is the mail's own
        b"dy)\r\n",
        b"lorem ipsum)\r\n)\r\n",
        b" lorem ipsum)\r\n",  # and by chance all that follows is as it should be
        b") more\r\n",
        b"))\r\n",
        b" FLAGS (\\Seen) lorem)\r\n",
    ],
)
async def test_a_length_that_is_too_small_is_a_doubt_and_ends_the_session(tmp_path: Path, rest: bytes) -> None:
    found, failure, _ = await had(tmp_path, HEAD % (len(MAIL) - 4) + MAIL[:-4] + rest)
    assert isinstance(failure, SessionLost)
    assert found["1"][1] == ""
    assert (found["2"][0], bool(found["2"][1])) == (MAIL[:-4], True)
    assert "3" not in found


@pytest.mark.parametrize(
    "line", [b"a line of the mail", b"* a list in it", b"* 12 monkeys", b"A9 is no tag", b"+ plus"]
)
async def test_a_line_that_answers_nothing_right_behind_a_message_is_a_broken_frame(
    tmp_path: Path, line: bytes
) -> None:
    # The mail has a line ")" of its own, and the length ends just before it.
    found, failure, logs = await had(tmp_path, HEAD % len(MAIL) + MAIL + b")\r\n" + line + b"\r\n)\r\n")
    assert isinstance(failure, SessionLost)
    assert (found["2"][0], "behind its end" in found["2"][1]) == (MAIL, True)
    assert not [one for one in logs if one["event"] == "response.ignored"]  # type: ignore[index]


async def test_a_length_that_is_too_large_swallows_no_other_message(tmp_path: Path) -> None:
    answer = HEAD % (len(MAIL) + 30) + MAIL + b")\r\n"
    found, failure, _ = await had(tmp_path, answer)
    assert found["1"] == (MAILS[1], "")
    assert found["2"][1]
    assert "3" not in found or found["3"] == (MAILS[3], "")
    assert failure is not None


async def test_a_body_in_the_middle_of_which_another_one_begins_is_a_doubt(tmp_path: Path) -> None:
    answer = HEAD % len(MAIL) + MAIL + b" UID 3 BODY[] {3}\r\nabc)\r\n"
    found, failure, _ = await had(tmp_path, answer)
    assert isinstance(failure, SessionLost)
    assert (found["2"][0], found["2"][1]) == (MAIL, "the server's answer has no end")


async def test_the_size_alone_proves_nothing(tmp_path: Path) -> None:
    short = b"Subject: as Exchange estimates\r\n\r\n"
    found, failure, _ = await had(tmp_path, HEAD % len(short) + short + b")\r\n")
    assert (found["2"], failure) == ((short, ""), None)


async def test_a_connection_that_ends_behind_a_whole_message_loses_only_the_others(tmp_path: Path) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes | None:
        if "BODY" not in arguments:
            return server._fetch(conversation, tag, arguments)
        conversation.say(server.fetch_answer(1, arguments))
        conversation.hang_up()
        return None

    async with (
        ScriptedImap({"FETCH": fetch}, messages=MAILS) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        found: list[RawMessage | Gone] = []
        with pytest.raises(SessionLost):
            async for one in session.fetch(claims_of(refs), 1000):
                found.append(one)  # noqa: PERF401 what came before the error counts
    assert [(one.claim.ref.uid, one.doubt) for one in found if isinstance(one, RawMessage)] == [("1", "")]


# --- stand-ins -------------------------------------------------------------------------------------------------------
NOTICE = (
    b"From: Microsoft Exchange Server 2010\r\n"
    b"Subject: Retrieval using the IMAP4 protocol failed for the following message: 2\r\n\r\n"
    b"The server couldn't retrieve the following message:\r\n"
)


async def test_a_notice_in_place_of_a_message_is_asked_for_again_and_then_a_doubt(tmp_path: Path) -> None:
    answer = HEAD % len(NOTICE) + NOTICE + b")\r\n"
    found, failure, _ = await had(tmp_path, answer, times=2)
    assert (found["2"][0], "in place of the message" in found["2"][1], failure) == (NOTICE, True, None)
    found, failure, _ = await had(tmp_path, answer, times=1)
    assert (found["2"], failure) == ((MAIL, ""), None)


async def test_a_mail_with_the_words_of_a_notice_is_had(tmp_path: Path) -> None:
    async with (
        ScriptedImap(messages={2: NOTICE}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        (one,) = await fetched(session, claims_of(refs))
        assert isinstance(one, RawMessage)
        assert (bytes(one.octets.view()), one.doubt) == (NOTICE, "")


# --- gone ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("search", "gone"), [(b"* SEARCH 2\r\n%T OK\r\n", False), (b"* SEARCH\r\n%T OK\r\n", True)])
async def test_a_message_is_gone_only_if_search_does_not_show_it_either(
    tmp_path: Path, search: bytes, gone: bool
) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if "SIZE" in arguments:
            return server._fetch(conversation, tag, arguments)
        return b"".join(server.fetch_answer(uid, arguments) for uid in (1, 3)) + b"%T OK\r\n"

    async with (
        ScriptedImap({"FETCH": fetch, "SEARCH": search}, messages=MAILS) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        found: list[object] = []
        try:
            async for one in session.fetch(claims_of(refs), 1000):
                found.append(type(one))  # noqa: PERF401 what came before the error counts
        except TransientError as error:
            assert "does not give its body" in str(error)
    assert found.count(Gone) == gone


async def test_a_message_that_is_listed_and_never_given_stops_no_other_and_is_not_gone(tmp_path: Path) -> None:
    found, failure, _ = await had(tmp_path, b"", times=9)
    assert sorted(found) == ["1", "3"]
    assert "does not give its body" in str(failure)


# --- lines that answer nothing ---------------------------------------------------------------------------------------
def ignored(logs: Sequence[object]) -> list[str]:
    return [one["text"] for one in logs if one["event"] == "response.ignored"]  # type: ignore[index]


async def test_a_line_that_answers_nothing_is_passed_over_and_told(tmp_path: Path) -> None:
    odd = b"[COPYUID 5 1:3 11:13] and a long rest that nobody needs to read in a log, whatever it is\r\n"
    async with (
        ScriptedImap({"NOOP": odd + b"%T OK\r\n"}, messages=MAILS) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        with capture_logs() as logs:
            for _ in range(30):
                await session.open("INBOX")
        assert ignored(logs) == ["[COPYUID 5 1:3 11:13] and a long rest that nobody needs to re"[:60]] * 10
        assert all(one["mailbox"] == "box" for one in logs)
        refs, _ = await listed(session, await session.open("INBOX"))
        assert len(await fetched(session, claims_of(refs))) == 3


async def test_a_server_that_talks_nonsense_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.wire.imap.protocol.MAX_ODD_LINES", 20)
    async with (
        ScriptedImap({"NOOP": b"blah\r\n" * 21 + b"%T OK\r\n"}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        await session.open("INBOX")
        with pytest.raises(SessionLost, match="nothing that was asked"):
            await session.open("INBOX")
