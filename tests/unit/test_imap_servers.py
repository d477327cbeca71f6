"""What servers in the field do at the edges of the protocol, and beyond: mail is polled all the same, or an error
comes in words and in time; never a wrong message, never one that is lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Gone, Position, RawMessage
from mailpoller.core.ports import Session, Start, Wake
from servers.dovecot import self_signed
from servers.mailboxes import claims_of, fetched, imap_source, listed, session_of, settled
from servers.scripted import Conversation, ScriptedImap
from waiting import until

MAIL = b"Subject: hello\r\n\r\nbody\r\n"
SEEN = Disposition(seen=True)
SOON = 15.0
"""Seconds: less than anything that was not shortened for a test would take, on a machine that does other things too."""


def numbered(count: int) -> dict[int, bytes]:
    return {uid: b"Subject: %d\r\n\r\n" % uid for uid in range(1, count + 1)}


def texts(answers: list[RawMessage | Gone]) -> list[bytes]:
    return [bytes(one.octets.view()) for one in answers if isinstance(one, RawMessage)]


async def had(session: Session, claims: list[Claim]) -> tuple[list[bytes], str]:
    """What could be fetched, and what was said of the rest."""
    answers: list[RawMessage | Gone] = []
    try:
        async for answer in session.fetch(claims, 1000):
            answers.append(answer)  # noqa: PERF401 what came before the error counts
    except SessionLost:
        raise
    except TransientError as error:
        return texts(answers), str(error)
    return texts(answers), ""


@contextlib.contextmanager
def over_soon() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON


async def chatter(conversation: Conversation, tag: str, arguments: str) -> None:
    """Never an answer, never silence."""
    for _ in range(200):
        conversation.say(b"* OK Still here\r\n")
        await asyncio.sleep(0.05)


# --- bodies ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "shape",
    [
        b"BODY[]<0.1001> {24}\r\n%b",  # what was asked for, and not only where it begins
        b"body[]<0> {24}\r\n%b",
        b"BODY[] ~{24}\r\n%b",  # literal8 (RFC 3516)
        b'X-ODD {3}\r\n("{ BODY[] {24}\r\n%b',
        b'X-ODD "BODY[] {3}" BODY[] {24}\r\n%b',
        b"FLAGS () BODY[] {24}\r\n%b FLAGS (\\Seen)",
    ],
)
async def test_a_body_is_known_in_whatever_shape_it_comes(tmp_path: Path, shape: bytes) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if "BODY" not in arguments:
            return server._fetch(conversation, tag, arguments)
        return b"* 1 FETCH (UID 1 " + shape % MAIL + b")\r\n%T OK\r\n"

    async with (
        ScriptedImap({"FETCH": fetch}, messages={1: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        assert await had(session, claims_of(refs)) == ([MAIL], "")


@pytest.mark.parametrize(
    "answer",
    [
        b"* 1 FETCH (FLAGS () BODY[] {24}\r\n%b)\r\n",  # whose is it?
        b"* 1 FETCH (UID 1 FLAGS () BODY[]<100> {24}\r\n%b)\r\n",  # not from its beginning
        b"* 1 FETCH (UID 1 FLAGS () BODY[TEXT] {24}\r\n%b)\r\n",
        b"* 1 FETCH (UID 1 X {abc BODY[] {24}\r\n%b)\r\n",
        b"* 1 FETCH (UID " + b"9" * 5000 + b" BODY[] {24}\r\n%b)\r\n",
        b"* 1 FETCH (UID 77 BODY[] {24}\r\n%b)\r\n",
    ],
)
async def test_what_may_be_another_body_is_not_taken_and_the_message_waits(tmp_path: Path, answer: bytes) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if "BODY" not in arguments:
            return server._fetch(conversation, tag, arguments)
        return answer % MAIL + server.fetch_answer(2, arguments) + b"%T OK\r\n"

    async with (
        ScriptedImap({"FETCH": fetch}, messages={1: MAIL, 2: b"second"}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        bodies, said = await had(session, claims_of(refs))
        assert bodies == [b"second"]
        assert "does not give its body" in said


@pytest.mark.parametrize("empty", [b'""', b"{0}\r\n"])
async def test_an_empty_body_of_a_message_that_has_a_size_is_no_message(tmp_path: Path, empty: bytes) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if "BODY" not in arguments:
            return server._fetch(conversation, tag, arguments)
        return b"* 1 FETCH (UID 1 FLAGS () BODY[] " + empty + b")\r\n%T OK\r\n"

    async with (
        ScriptedImap({"FETCH": fetch}, messages={1: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        bodies, said = await had(session, claims_of(refs))
        assert bodies == []
        assert "shows no body" in said


@pytest.mark.parametrize("removed", [True, False])
async def test_what_courier_shows_in_place_of_a_removed_message_is_no_mail(tmp_path: Path, removed: bool) -> None:
    stand_in = (
        b"From: System Administrator <root@localhost>\r\nSubject: message unavailable\r\n\r\n"
        b"This message is no longer available on the server.\r\n"
    )

    def noop(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if removed:
            del server.messages[2]
        return b"* 2 EXPUNGE\r\n%T OK\r\n"

    async with (
        ScriptedImap({"NOOP": noop}, messages=numbered(3) | {2: stand_in}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        answers = {one.claim.ref.uid: one for one in await fetched(session, claims_of(refs))}
    assert sorted(answers) == ["1", "2", "3"]
    assert isinstance(answers["2"], Gone) == removed  # and a mail that really is just this one is had
    assert texts(list(answers.values())).count(stand_in) == (not removed)


@pytest.mark.parametrize(
    "line",
    [
        b"* 1 FETCH (UID 1 FLAGS (\\Seen))",
        b"* 1 FETCH (UID " + b"9" * 5000 + b")",
        b"* 1 FETCH (UID 1 RFC822.SIZE " + b"9" * 5000 + b")",
        b"* 1 FETCH (UID 1 X {" + b"9" * 5000 + b"} )",
        b'* 1 FETCH (UID 1 FLAGS () INTERNALDATE "99-Xyz-0000 99:99:99 +9999")',
        b"* 1 FETCH (UID 1 INTERNALDATE NIL FLAGS NIL RFC822.SIZE NIL)",
        b"* 1 FETCH (UID 1 FLAGS (" + b"flag " * 100_000 + b"))",
        b"* 1 FETCH (UID 1 BODY[] {3}\r\nabc)",
        b"* 1 FETCH",
        b"* SEARCH",
        b"* LIST",
        b"* FLAGS",
        b"* 5",
        b"* ",
        b"* VANISHED 7:9",
        b"* OK [",
        b"* OK []",
        b"* OK [UIDNEXT " + b"9" * 5000 + b"]",
        b"* NO",
        b"* BAD",
        b"* PREAUTH hi",
        b"+",
        b"+ and now?",
    ],
)
async def test_odd_lines_between_are_passed_over(tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        ScriptedImap({"NOOP": line + b"\r\n%T OK\r\n"}, messages={1: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        await session.open("INBOX")
        refs, _ = await listed(session, await session.open("INBOX"))
        assert await had(session, claims_of(refs)) == ([MAIL], "")
        assert "" not in server.lines  # nothing was said to a server that asks for it out of the blue
    assert not caplog.text


async def test_bare_line_feeds_are_line_ends_too(tmp_path: Path) -> None:
    def bare(name: str) -> Callable[[Conversation, str, str], bytes]:
        def answer(conversation: Conversation, tag: str, arguments: str) -> bytes:
            polite = getattr(server, f"_{name}", lambda *_: b"%T OK done\r\n")(conversation, tag, arguments)
            return polite.replace(b"\r\n", b" \n")

        return answer

    names = ("capability", "login", "select", "fetch", "noop")
    async with ScriptedImap(messages={1: b"abc"}, greeting=b"* OK hello\n", capabilities="IMAP4rev1") as server:
        server.script |= {name.upper(): bare(name) for name in names}
        server.script["FETCH"] = lambda conversation, tag, arguments: (
            b"* 1 FETCH (UID 1 BODY[] {3}\nabc FLAGS ())\n%T OK\n"
            if "BODY" in arguments
            else b"* 1 FETCH (UID 1 RFC822.SIZE 3) \n%T OK\n"
        )
        async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
            refs, _ = await listed(session, await session.open("INBOX"))
            assert await had(session, claims_of(refs)) == ([b"abc"], "")


async def test_signs_of_life_inside_a_download_are_none_of_its_data(tmp_path: Path) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        alive = b"* OK Still here\r\n* 9 RECENT\r\n* 2 FETCH (FLAGS (\\Seen))\r\n"
        answers = server._fetch(conversation, tag, arguments)
        return alive + answers.replace(b")\r\n* ", b")\r\n" + alive + b"* ")

    async with (
        ScriptedImap({"FETCH": fetch}, messages=numbered(5)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        assert await had(session, claims_of(refs)) == (list(server.messages.values()), "")


# --- selecting and listing -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "line", [b"* OK [UIDVALIDITY 7 ] x", b"* OK  [UIDVALIDITY 7] x", b"* ok [uidvalidity 7] ", b"* OK [UIDVALIDITY 7]"]
)
async def test_a_uidvalidity_is_read_however_it_is_spaced(tmp_path: Path, line: bytes) -> None:
    async with (
        ScriptedImap({"SELECT": b"* 1 EXISTS \r\n" + line + b"\r\n%T OK done \r\n"}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        assert (await session.open("INBOX")).epoch.endswith("=7")


async def test_nothing_is_done_in_a_folder_whose_numbering_has_changed_under_us(tmp_path: Path) -> None:
    async with (
        ScriptedImap(messages={1: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        refs, _ = await listed(session, folder)
        server.script["STORE"] = b"* OK [UIDVALIDITY 8] changed\r\n%T OK\r\n"
        await session.settle(settled(refs, SEEN))
        with pytest.raises(TransientError, match="not open in this epoch"):
            await fetched(session, claims_of(refs))
        (done,) = await session.settle(settled(refs, Disposition(delete=True)))
        assert done.state == "pending"
        assert not server.asked("EXPUNGE")


async def test_a_uidnext_of_nothing_is_none(tmp_path: Path) -> None:
    def select(conversation: Conversation, tag: str, arguments: str) -> bytes:
        return b"* %d EXISTS\r\n* OK [UIDVALIDITY 7]\r\n* OK [UIDNEXT 0]\r\n%%T OK\r\n" % len(server.messages)

    async with (
        ScriptedImap({"SELECT": select}, messages={4: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe", folders=["INBOX", "Other"])) as session,
    ):
        assert await listed(session, await session.open("INBOX"), None, Start("now")) == ([], "5 below=1")
        await session.open("Other")
        server.messages[5] = MAIL
        assert await session.wait(timedelta(seconds=5)) is Wake.NEWS


@pytest.mark.parametrize("search", [b"* SEARCH\r\n%T OK\r\n", b"%T BAD what is a star?\r\n"])
async def test_the_newest_mail_is_found_without_uidnext_and_without_a_search(tmp_path: Path, search: bytes) -> None:
    async with ScriptedImap({"SEARCH": search}, messages={4: MAIL, 9: MAIL}) as server:  # Courier does not know UID *
        server.tells_uidnext = False
        async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
            assert await listed(session, await session.open("INBOX"), None, Start("now")) == ([], "10 below=2")


async def test_a_server_that_does_not_say_which_mail_is_the_newest_is_not_believed_that_all_is_new(
    tmp_path: Path,
) -> None:
    async with ScriptedImap({"FETCH": b"%T OK\r\n"}, messages={4: MAIL}) as server:
        server.tells_uidnext = False
        async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
            with pytest.raises(TransientError, match="which message is the newest"):
                await listed(session, await session.open("INBOX"), None, Start("now"))


@pytest.mark.parametrize("removed", [b"* VANISHED 1:3\r\n", b""])
async def test_mail_that_takes_the_place_of_mail_that_went_without_a_word_is_news(
    tmp_path: Path, removed: bytes
) -> None:
    def idle(conversation: Conversation, tag: str, arguments: str) -> bytes:
        conversation.idle_tag = tag
        server.messages = {4: MAIL, 5: MAIL, 6: MAIL}
        return b"+ idling\r\n" + removed + b"* 3 EXISTS\r\n"

    async with (
        ScriptedImap({"IDLE": idle}, messages=numbered(5)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        _, position = await listed(session, folder)
        assert await session.wait(timedelta(seconds=5)) is Wake.NEWS
        refs, _ = await listed(session, folder, position)
        assert [ref.uid for ref in refs] == ["6"]


async def test_a_listing_that_is_refused_because_of_one_size_is_made_without_sizes(tmp_path: Path) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if "BODY" in arguments:
            return server._fetch(conversation, tag, arguments)
        return server.fetch_answer(1, arguments) + b"%T NO message 2 cannot be converted\r\n"

    async with (
        ScriptedImap({"FETCH": fetch}, messages=numbered(3)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, position = await listed(session, await session.open("INBOX"))
        assert ([ref.uid for ref in refs], position) == (["1", "2", "3"], "4 below=3")
        assert len(await fetched(session, claims_of(refs))) == 3


@pytest.mark.parametrize("capabilities", ["IMAP4rev1", "IMAP4rev1 ESEARCH"])
@pytest.mark.parametrize("count", [3, 600])
async def test_a_uid_that_can_be_none_ends_no_poll_in_a_crash(tmp_path: Path, capabilities: str, count: int) -> None:
    async with (
        ScriptedImap(messages=numbered(count) | {9_999_999_999: MAIL}, capabilities=capabilities) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        try:
            refs, _ = await listed(session, folder)
        except TransientError:
            refs = []
        assert all(int(ref.uid) < 1 << 32 for ref in refs)


async def test_a_search_may_be_answered_in_several_lines_and_any_order(tmp_path: Path) -> None:
    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes:
        return b"%T NO\r\n" if ":*" in arguments else server._fetch(conversation, tag, arguments)

    answer = b"* SEARCH 600 2 \r\n* SEARCH\r\n* search 1 2 4\r\n%T OK\r\n"
    async with (
        ScriptedImap({"SEARCH": answer, "FETCH": fetch}, messages=dict.fromkeys((1, 2, 4, 600), MAIL)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        assert [ref.uid for ref in refs] == ["1", "2", "4", "600"]


async def test_two_hundred_thousand_uids_in_one_line_are_listed(tmp_path: Path) -> None:
    async with (
        ScriptedImap(messages=dict.fromkeys(range(1, 200_001), b""), capabilities="IMAP4rev1") as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        server.script["FETCH"] = b"%T OK\r\n"  # not a word about sizes
        refs, position = await listed(session, folder)
        assert (len(refs), refs[-1].uid, position) == (200_000, "200000", "200001 below=200000")


# --- folders ---------------------------------------------------------------------------------------------------------
async def test_a_folder_below_inbox_is_found_in_whatever_case_the_server_writes_that(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"LIST": b'* LIST () "/" "INBOX/Orders"\r\n%T OK\r\n'}) as server,
        session_of(imap_source(tmp_path, server.port, "joe", folders=["Inbox/Orders", "Inbox/Other"])) as session,
    ):
        assert await session.folders() == ["Inbox/Orders"]
        assert (await session.open("Inbox/Orders")).name == "Inbox/Orders"
        assert server.asked("SELECT") == ['SELECT "INBOX/Orders"']


async def test_the_delimiter_is_asked_for_where_there_is_no_personal_namespace(tmp_path: Path) -> None:
    def answer(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if arguments == '"" ""':
            return b'* LIST (\\Noselect) "." ""\r\n%T OK\r\n'
        return b'* LIST () "." "Done.2026"\r\n%T OK\r\n' if arguments == '"" "Done.2026"' else b"%T OK\r\n"

    script = {"LIST": answer, "NAMESPACE": b"* NAMESPACE NIL NIL NIL\r\n%T OK\r\n"}
    async with (
        ScriptedImap(script, capabilities="IMAP4rev1 NAMESPACE") as server,
        session_of(imap_source(tmp_path, server.port, "joe", folders=["Done/2026"])) as session,
    ):
        assert await session.folders() == ["Done/2026"]


async def test_names_that_are_no_names_do_not_hide_the_others(tmp_path: Path) -> None:
    names = [
        '"Müller & Söhne - Archiv"'.encode(), b'"&AAA-"', b'"&A-"', b'"&2D0-"', b'"&"', b'"\xff\xfe"', b"NIL", b'""',
        b"{3}\r\na&b", b'"a\\"b\\\\c"', b"Plain",
    ]  # fmt: skip
    listing = b"".join(b'* LIST () "/" ' + name + b"\r\n" for name in names)
    async with (
        ScriptedImap({"LIST": b"* LIST () NIL\r\n" + listing + b"%T OK\r\n"}) as server,
        session_of(imap_source(tmp_path, server.port, "joe", folders=["Plain", 'a"b\\c', "a&b"])) as session,
    ):
        assert await session.folders() == ["Plain", 'a"b\\c', "a&b"]


async def test_the_name_of_a_folder_commands_no_terminal(tmp_path: Path) -> None:
    def everything(conversation: Conversation, tag: str, arguments: str) -> bytes:
        return b'* LIST () "/" "red &ABs-[31m"\r\n%T OK\r\n' if "*" in arguments else b"%T OK\r\n"

    async with ScriptedImap({"LIST": everything}) as server:
        stages = [stage async for stage in imap_source(tmp_path, server.port, "joe", folders=["Work"]).probe([])]
    assert stages[-1].detail == "there is no folder Work; there are: red  [31m"


# --- servers that have had enough ------------------------------------------------------------------------------------
@pytest.mark.parametrize("when", ["LOGIN", "SELECT", "NOOP", "SEARCH", "STORE", "FETCH", "IDLE"])
async def test_a_server_that_says_for_how_long_it_wants_to_be_left_alone_is(tmp_path: Path, when: str) -> None:
    answer = (
        b"%T BAD Request is throttled. Suggested Backoff Time: 89117 milliseconds\r\n* BYE Connection closed. 14\r\n"
    )

    async def poll() -> None:
        async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
            folder = await session.open("INBOX")
            await session.open("INBOX")
            refs, _ = await listed(session, folder)
            await session.settle(settled(refs, SEEN))
            await fetched(session, claims_of(refs))
            await session.wait(timedelta(seconds=5))

    async with ScriptedImap({when: answer}, messages=numbered(600)) as server:
        with over_soon(), pytest.raises(TransientError, match="throttled") as caught:
            await poll()
        assert caught.value.retry_after == timedelta(milliseconds=89117)


@pytest.mark.parametrize(
    "status",
    [
        b"NO [LIMIT] enough",
        b"NO [THROTTLED] slowly",
        b"NO [UNAVAILABLE] backend",
        b"NO Server Unavailable. 15",
        b"NO [OVERQUOTA] Account exceeded command or bandwidth limits.",
    ],
)
async def test_a_server_that_serves_nobody_now_is_not_asked_about_each_message(tmp_path: Path, status: bytes) -> None:
    async with (
        ScriptedImap(messages=numbered(30)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        server.script |= dict.fromkeys(("FETCH", "STORE"), b"%T " + status + b"\r\n")
        bodies, said = await had(session, claims_of(refs))
        assert bodies == []
        assert status.split()[-1].decode() in said
        done = await session.settle(settled(refs, SEEN))
        assert {one.state for one in done} == {"pending"}
        assert (len(server.asked("BODY.PEEK")), len(server.asked("STORE"))) == (1, 1)


@pytest.mark.parametrize("kind", ["NO", "BAD"])
async def test_a_session_that_refuses_even_noop_is_not_taken_for_a_quiet_mailbox(tmp_path: Path, kind: str) -> None:
    refusal = f"%T {kind} User is authenticated but not connected.\r\n".encode()
    async with (
        ScriptedImap({"NOOP": refusal}, messages={1: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        _, position = await listed(session, folder)
        with pytest.raises(TransientError, match="opened anew"):
            await listed(session, folder, position)
        server.script["SELECT"] = refusal
        with pytest.raises(TransientError, match="not connected"):
            await session.open("INBOX")


async def test_what_a_server_wants_a_human_to_read_is_logged_once_a_connection(tmp_path: Path) -> None:
    alert = b"* OK [ALERT] Mailbox is 98% full\r\n"
    flood = b"".join(b"* OK [ALERT] %d\r\n" % number for number in range(100))
    async with ScriptedImap({"SELECT": b"* OK [UIDVALIDITY 7]\r\n" + alert * 3 + b"%T OK [ALERT] \r\n"}) as server:
        with capture_logs() as logs:
            async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
                await session.open("INBOX")
                server.script["NOOP"] = alert + flood + b"%T OK\r\n"
                await session.open("INBOX")
    told = [log for log in logs if log["event"] == "server.alerted"]
    assert told[0] | {"log_level": ""} == {
        "event": "server.alerted", "log_level": "", "mailbox": "box", "reason": "Mailbox is 98% full"
    }  # fmt: skip
    assert len(told) == 10


# --- ends ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("where", ["before", "instead", "behind"])
@pytest.mark.parametrize(
    "when", ["LOGIN", "ID", "NAMESPACE", "LIST", "SELECT", "SEARCH", "FETCH", "STORE", "MOVE", "CREATE", "NOOP", "IDLE"]
)
async def test_a_server_may_say_goodbye_at_any_point(tmp_path: Path, when: str, where: str) -> None:
    bye = b"* BYE Session expired\r\n"

    async def poll() -> None:
        async with session_of(imap_source(tmp_path, server.port, "joe", folders=["INBOX", "Other"])) as session:
            await session.folders()
            refs, _ = await listed(session, await session.open("INBOX"))
            await fetched(session, claims_of(refs))
            await session.settle(settled(refs, Disposition(seen=True, move="Done")))
            await session.open("INBOX")
            await session.wait(timedelta(seconds=5))

    capabilities = "IMAP4rev1 ID NAMESPACE UIDPLUS MOVE IDLE ESEARCH"
    async with ScriptedImap(messages=numbered(600), capabilities=capabilities) as server:

        def parting(conversation: Conversation, tag: str, arguments: str) -> bytes:
            polite = getattr(server, f"_{when.lower()}", lambda *_: b"%T OK\r\n")(conversation, tag, arguments)
            return {"before": bye + polite, "instead": bye, "behind": polite + bye}[where]

        server.script[when] = parting
        with over_soon(), pytest.raises(TransientError, match="Session expired"):
            await poll()


@pytest.mark.parametrize("when", ["IDLE", "DONE"])
async def test_idle_that_does_not_begin_or_end_is_given_up_however_lively_the_server_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr("mailpoller.wire.imap.connection.PATIENCE", 2)
    async with (
        ScriptedImap({when: chatter}) as server,
        session_of(imap_source(tmp_path, server.port, "joe", command_timeout="200ms")) as session,
    ):
        await session.open("INBOX")
        with over_soon(), pytest.raises(SessionLost, match="no end of the answer to IDLE"):
            await session.wait(timedelta(seconds=0.1))


async def test_a_quiet_idle_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailpoller.wire.imap.connection.PATIENCE", 2)
    async with (
        ScriptedImap({"DONE": b"%T OK\r\n"}) as server,
        session_of(imap_source(tmp_path, server.port, "joe", command_timeout="100ms")) as session,
    ):
        await session.open("INBOX")
        assert await session.wait(timedelta(seconds=0.5)) is Wake.LIMIT


async def test_done_is_said_once_even_if_the_server_agrees_to_idle_twice(tmp_path: Path) -> None:
    def done(conversation: Conversation, tag: str, arguments: str) -> bytes:
        return b"+ idling still\r\n%T OK\r\n"

    async with (
        ScriptedImap({"DONE": done}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        await session.open("INBOX")
        waiting = asyncio.create_task(session.wait(timedelta(minutes=5)))
        await until(lambda: "IDLE" in server.lines)
        await session.open("INBOX")  # its NOOP ends IDLE
        waiting.cancel()
        (conversation,) = server.conversations
        assert conversation.lines.count("DONE") == 1


async def test_an_idle_that_ends_in_bad_is_no_end_of_the_session(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"DONE": b"%T BAD what is done?\r\n"}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        for _ in range(2):
            assert await session.wait(timedelta(seconds=0.1)) is Wake.LIMIT
        assert await session.open("INBOX") == folder
        assert len(server.asked("IDLE")) == 1


async def test_a_server_that_stops_reading_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailpoller.wire.imap.connection.PATIENCE", 2)

    async def deaf(conversation: Conversation, tag: str, arguments: str) -> None:
        conversation.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await chatter(conversation, tag, arguments)

    async with (
        ScriptedImap({"STORE": deaf}, messages=numbered(600)) as server,
        session_of(imap_source(tmp_path, server.port, "joe", command_timeout="200ms")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        with over_soon(), pytest.raises(SessionLost, match="no end of the answer to STORE"):
            await session.settle(settled(refs, SEEN))


async def test_a_half_closed_connection_is_lost_at_once(tmp_path: Path) -> None:
    def half(conversation: Conversation, tag: str, arguments: str) -> None:
        conversation.writer.write_eof()

    async with (
        ScriptedImap({"IDLE": half}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        await session.open("INBOX")
        with over_soon(), pytest.raises(SessionLost, match="closed it"):
            await session.wait(timedelta(minutes=5))


@pytest.mark.parametrize("politely", [True, False])
async def test_tls_may_end_before_the_connection_and_the_connection_before_tls(tmp_path: Path, politely: bool) -> None:
    certificate, key = self_signed()
    (tmp_path / "pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        with listener, context.wrap_socket(listener.accept()[0], server_side=True) as line, line.makefile("rb") as said:
            line.sendall(b"* PREAUTH [CAPABILITY IMAP4rev1 IDLE] hello\r\n")
            tag = said.readline().split()[0]
            line.sendall(b"* 0 EXISTS\r\n* OK [UIDVALIDITY 7]\r\n" + tag + b" OK\r\n")
            said.readline()
            line.sendall(b"+ idling\r\n")
            with contextlib.suppress(OSError):
                if politely:
                    line.unwrap()  # close_notify, and the TCP connection stays as it is
                else:
                    socket.socket.shutdown(line, socket.SHUT_WR)
            over.wait(60)

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    source = imap_source(tmp_path, listener.getsockname()[1], "joe", tls="tls", ca_file=tmp_path / "pem")
    async with session_of(source) as session:
        await session.open("INBOX")
        with over_soon(), pytest.raises(SessionLost, match="closed it"):
            await session.wait(timedelta(minutes=5))
    over.set()


# --- words -----------------------------------------------------------------------------------------------------------
async def test_a_tag_that_comes_back_in_small_letters_is_ours(tmp_path: Path) -> None:
    def noop(conversation: Conversation, tag: str, arguments: str) -> bytes:
        return f"{tag.lower()} OK done\r\n".encode()

    async with (
        ScriptedImap({"NOOP": noop}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        assert await session.open("INBOX") == await session.open("INBOX")


@pytest.mark.parametrize(
    "login",
    [
        b"%T OK [CAPABILITY IMAP4rev1 IDLE] in\r\n",
        b"* CAPABILITY imap4rev1 idle \r\n%T OK \r\n",
        b"* OK [CAPABILITY IMAP4rev1] one of two\r\n* CAPABILITY IMAP4rev1 IDLE\r\n%T OK\r\n",
        b"%T OK\r\n",
    ],
)
@pytest.mark.parametrize(
    "greeting",
    [b"* OK hi\r\n", b"* OK\r\n", b"\r\n* OK hi\r\n", b"* OK [CAPABILITY IMAP4rev1 UIDPLUS] hi\r\n* OK [ALERT] hm\r\n"],
)
async def test_what_a_server_can_do_is_what_it_said_last(tmp_path: Path, greeting: bytes, login: bytes) -> None:
    async with (
        ScriptedImap({"LOGIN": login}, greeting=greeting, capabilities="IMAP4rev1 IDLE") as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        await session.open("INBOX")
        await session.wait(timedelta(seconds=0.05))
        assert "IDLE" in server.lines


@pytest.mark.parametrize(
    "greeting",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail ESMTP\r\n", b"+OK POP3 ready\r\n", b"* NO not you\r\n",
        b"\x15\x03\x01\x00\x02\x02\x22\n", b"\x00" * 100_000 + b"\r\n", b"A1 OK hi\r\n", b"* BYE\r\n",
    ],
)  # fmt: skip
async def test_a_port_that_speaks_something_else_is_a_passing_error_in_time(tmp_path: Path, greeting: bytes) -> None:
    async with ScriptedImap(greeting=greeting) as server:
        with over_soon(), pytest.raises(TransientError):
            await imap_source(tmp_path, server.port, "joe", connect_timeout="300ms").connect()


async def test_a_move_that_was_advertised_and_is_refused_leaves_the_mail_where_it_is(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"MOVE": b"%T BAD unknown command\r\n"}, messages=numbered(3)) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"), Position("2"))
        done = await session.settle(settled(refs, Disposition(move="Done")))
        assert {(one.state, "unknown command" in one.reason) for one in done} == {("failed", True)}
        assert not server.asked("STORE") and not server.asked("EXPUNGE")


# --- folders whose names are written otherwise -----------------------------------------------------------------------
LISTING = '* LIST () "/" "Gro&AwgA3w-e"\r\n* LIST () "/" INBOX\r\n* LIST () "/" Done\r\n'


def list_as_a_mac_does(conversation: Conversation, tag: str, arguments: str) -> bytes:
    """LIST compares character by character; a pattern gives all."""
    if arguments == '"" ""':
        return b'* LIST (\\Noselect) "/" ""\r\n%T OK done\r\n'
    wanted = arguments.split(" ")[1].strip('"')
    lines = [line for line in LISTING.splitlines() if wanted == "*" or line.endswith(f'"{wanted}"')]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"%T OK done\r\n"


async def test_a_folder_is_found_whose_name_is_decomposed_at_the_server(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"LIST": list_as_a_mac_does}, messages={1: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe", folders=["Größe"])) as session,
    ):
        assert await session.folders() == ["Größe"]
        folder = await session.open("Größe")
        assert folder.name == "Größe"
        assert server.asked("SELECT") == ['SELECT "Gro&AwgA3w-e"']
        refs, _ = await listed(session, folder)
        assert len(refs) == 1


async def test_mail_is_moved_to_a_folder_whose_name_is_decomposed_and_none_is_made(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"LIST": list_as_a_mac_does}, messages={1: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        (done,) = await session.settle(settled(refs, Disposition(move="Größe")))
        assert done.state == "applied"
        assert not server.asked("CREATE")
        assert server.asked("MOVE") == ['UID MOVE 1 "Gro&AwgA3w-e"']


async def test_a_folder_is_no_target_of_its_own_in_whatever_spelling(tmp_path: Path) -> None:
    async with (
        ScriptedImap({"LIST": list_as_a_mac_does}, messages={1: MAIL}) as server,
        session_of(imap_source(tmp_path, server.port, "joe", folders=["Gro\u0308ße"])) as session,
    ):
        refs, _ = await listed(session, await session.open("Gro\u0308ße"))
        (done,) = await session.settle(settled(refs, Disposition(move="Größe")))
        assert (done.state, "the folder itself" in done.reason) == ("failed", True)


# --- NetEase ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("helps", [True, False])
async def test_a_server_that_calls_the_login_unsafe_is_told_once_more_who_we_are(tmp_path: Path, helps: bool) -> None:
    def select(conversation: Conversation, tag: str, arguments: str) -> bytes:
        named = sum(" ID " in line for line in conversation.lines)
        if named < 2 or not helps:
            return b"%T NO SELECT Unsafe Login. Please contact kefu@188.com for help\r\n"
        answer = server._select(conversation, tag, arguments)
        assert answer is not None
        return answer

    async with (
        ScriptedImap({"SELECT": select}, messages={1: MAIL}, capabilities="IMAP4rev1 ID") as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        if helps:
            assert len((await listed(session, await session.open("INBOX")))[0]) == 1
        else:
            for _ in range(2):
                with pytest.raises(TransientError, match="Unsafe Login"):
                    await session.open("INBOX")
        assert len(server.asked("ID (")) == 2


# --- UTF-8 -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("capabilities", "utf8"),
    [("IMAP4rev1 ENABLE UTF8=ACCEPT", True), ("IMAP4rev1 UTF8=ONLY", True), ("IMAP4rev2", True), ("IMAP4rev1", False)],
)
async def test_mail_with_headers_in_utf_8_is_asked_for_as_it_is(tmp_path: Path, capabilities: str, utf8: bool) -> None:
    def enable(conversation: Conversation, tag: str, arguments: str) -> bytes:
        assert not any("SELECT" in line for line in conversation.lines)  # as RFC 5161 wants
        return f"* ENABLED {arguments}\r\n%T OK done\r\n".encode()

    def names(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if arguments == '"" ""':
            return b'* LIST (\\Noselect) "/" ""\r\n%T OK done\r\n'
        name = "Größe & &AN8-" if utf8 else "Gr&APYA3w-e &- &-AN8-"
        return f'* LIST () "/" "{name}"\r\n%T OK done\r\n'.encode()

    async with (
        ScriptedImap({"ENABLE": enable, "LIST": names}, messages={1: MAIL}, capabilities=capabilities) as server,
        session_of(imap_source(tmp_path, server.port, "joe", folders=["Größe & &AN8-"])) as session,
    ):
        folder = await session.open("Größe & &AN8-")
        assert server.asked("SELECT") == ['SELECT "Größe & &AN8-"' if utf8 else 'SELECT "Gr&APYA3w-e &- &-AN8-"']
        assert bool(server.asked("ENABLE UTF8=ACCEPT")) == ("UTF8" in capabilities)
        assert len((await listed(session, folder))[0]) == 1


async def test_a_server_that_refuses_utf_8_or_changes_mail_for_want_of_it_is_told(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with (
            ScriptedImap(
                {"ENABLE": b"%T NO not now\r\n"}, messages={1: MAIL}, capabilities="IMAP4rev1 UTF8=ONLY"
            ) as server,
            session_of(imap_source(tmp_path, server.port, "joe")) as session,
        ):
            folder = await session.open("INBOX")
            server.script["NOOP"] = b"* OK [DOWNGRADED 1,3] changed\r\n%T OK\r\n"
            await session.open("INBOX")
            assert len((await listed(session, folder))[0]) == 1
    assert [one["event"] for one in logs] == ["unicode.refused", "messages.downgraded"]
    assert logs[1]["numbers"] == "1,3"
