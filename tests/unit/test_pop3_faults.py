"""What POP3 servers do that they should not, played by a scripted one: clear errors, no message lost, nothing
endless."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import MailpollerError, SessionLost, TransientError
from mailpoller.core.message import Folder, Gone, RawMessage
from mailpoller.core.ports import Progressing, Session
from servers.mailboxes import claims_of, fetched, listed, session_of, settled
from servers.pop3_mailboxes import pop3_source
from servers.scripted_pop3 import Conversation, Reply, ScriptedPop3, listing, stuffed

DELETE = Disposition(delete=True)


def mail(number: int, size: int = 0) -> bytes:
    return f"Subject: mail {number}\r\n\r\n".encode() + b"a line of text, and no more\r\n" * (1 + size // 29)


MAILS = [(f"uid{number}", mail(number)) for number in range(1, 6)]


@asynccontextmanager
async def opened(
    directory: Path, script: dict[str, Reply], *, settings: dict[str, Any] | None = None, **server: Any
) -> AsyncIterator[tuple[ScriptedPop3, Session, Folder]]:
    """A server that follows the script, and a session with its maildrop open."""
    server.setdefault("mails", MAILS)
    async with ScriptedPop3(script, **server) as scripted:
        source = pop3_source(directory, scripted.port, "joe", **{"command_timeout": "1s", **(settings or {})})
        session = await source.connect()
        try:
            yield scripted, session, await session.open("INBOX")
        finally:
            try:
                await session.close()
            except MailpollerError:
                pass


async def bodies(session: Session, folder: Folder, limit: int = 50_000_000) -> dict[str, bytes | None]:
    """uid -> octets of all that is listed; None for those that are gone."""
    refs, _ = await listed(session, folder)
    found: dict[str, bytes | None] = {}
    async for answer in session.fetch(claims_of(refs), limit):
        uid = answer.claim.ref.uid
        assert uid not in found
        found[uid] = None if isinstance(answer, Gone) else bytes(answer.octets.view())
        if isinstance(answer, RawMessage):
            answer.octets.close()
    return found


# --- before the login ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"-ERR too many connections\r\n", "too many connections"),
        (b"* OK IMAP4rev1 here\r\n", "this is no answer to the greeting"),
        (b"+OK " + b"x" * 100_000 + b"\r\n", "a line is longer than"),
        (b"x" * 100_000, "a line is longer than"),
        (b"", "no greeting within"),
        (
            b"+OK welcome\r\n+OK and again\r\n",
            "it speaks without having been asked|no answer to CAPA|this is no answer",
        ),
    ],
    ids=["refusal", "imap", "huge", "endless", "silence", "double"],
)
async def test_greeting_that_is_none_is_transient_and_says_why(tmp_path: Path, greeting: bytes, words: str) -> None:
    async with ScriptedPop3({"CAPA": None}, greeting=greeting) as server:
        source = pop3_source(tmp_path, server.port, "joe", connect_timeout="1s", command_timeout="1s")
        began = time.monotonic()
        with pytest.raises(TransientError, match=words) as caught:
            await source.connect()
        assert not isinstance(caught.value, SessionLost)
        assert time.monotonic() - began < 30


async def test_server_that_hangs_up_at_once_is_transient(tmp_path: Path) -> None:
    def hang_up(conversation: Conversation, arguments: str) -> None:
        conversation.hang_up()

    async with ScriptedPop3({"CAPA": hang_up}) as server:
        with pytest.raises(TransientError, match="the server closed it"):
            await pop3_source(tmp_path, server.port, "joe").connect()


async def test_capabilities_without_end_are_given_up(tmp_path: Path) -> None:
    async with ScriptedPop3({"CAPA": b"+OK\r\n" + b"NONSENSE\r\n" * 20_000}) as server:
        with pytest.raises(TransientError, match="larger than"):
            await pop3_source(tmp_path, server.port, "joe").connect()


async def test_server_older_than_capa_is_spoken_to_one_command_at_a_time(tmp_path: Path) -> None:
    under_way = most = 0

    async def retr(conversation: Conversation, arguments: str) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return b"+OK\r\n" + stuffed(conversation.mails[int(arguments)][1])

    async with opened(tmp_path, {"RETR": retr}, capabilities=None) as (server, session, folder):
        before = len(server.lines)
        assert await bodies(session, folder) == dict(MAILS)
        assert server.lines[before:] == [*(f"RETR {number}" for number in range(1, 6)), "STAT"]
        assert most == 1


# --- listing -------------------------------------------------------------------------------------------------------
async def test_only_the_second_field_of_a_uidl_line_is_the_uid(tmp_path: Path) -> None:
    answer = b"+OK\r\n1 abc 1234 junk\r\n 2  def\t\r\n3 \xe4\xf6!\r\nnonsense\r\n4\r\n5 e\r\n.\r\n"
    async with opened(tmp_path, {"UIDL": answer}) as (_, session, folder):
        refs, _ = await listed(session, folder)
        assert [ref.uid for ref in refs][:3] == ["abc", "def", "äö!"]
        assert refs[3].uid.startswith("sha256:"), "a message without a uid is known by its header"
        assert refs[4].uid == "e"
        assert [ref.size for ref in refs] == [len(octets) for _, octets in MAILS]


async def test_listing_that_is_refused_is_transient_with_the_servers_words_and_no_empty_maildrop(
    tmp_path: Path,
) -> None:
    for script in ({"LIST": b"-ERR [SYS/TEMP] disk trouble\r\n"}, {"UIDL": b"-ERR [SYS/TEMP] disk trouble\r\n"}):
        async with (
            ScriptedPop3(script, mails=MAILS) as server,
            session_of(pop3_source(tmp_path, server.port, "joe")) as session,
        ):
            with pytest.raises(TransientError, match="disk trouble"):
                await session.open("INBOX")


@pytest.mark.parametrize(
    "answer", [b"+OK\r\n1 a\r\n2 b\r\n", b"+OK\r\n1 a\r\n2 b", b"+OK"], ids=["dot", "line", "status"]
)
async def test_listing_that_never_ends_loses_the_session_in_time(tmp_path: Path, answer: bytes) -> None:
    async with ScriptedPop3({"UIDL": answer}, mails=MAILS) as server:
        session = await pop3_source(tmp_path, server.port, "joe", command_timeout="1s").connect()
        with pytest.raises(SessionLost, match="no answer to UIDL for"):
            await session.open("INBOX")
        with pytest.raises(SessionLost):
            await session.open("INBOX")


async def test_listing_that_is_cut_in_the_middle_is_no_listing(tmp_path: Path) -> None:
    def cut(conversation: Conversation, arguments: str) -> None:
        conversation.say(b"+OK\r\n1 uid1\r\n2 ui")
        conversation.hang_up()

    async with ScriptedPop3({"UIDL": cut}, mails=MAILS) as server:
        session = await pop3_source(tmp_path, server.port, "joe").connect()
        with pytest.raises(SessionLost, match="the server closed it"):
            await session.open("INBOX")


async def test_listing_of_millions_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailpoller.sources.pop3.listing.MAX_MESSAGES", 1000)
    async with ScriptedPop3({"LIST": listing(f"{n} 1" for n in range(1, 1500))}) as server:
        session = await pop3_source(tmp_path, server.port, "joe").connect()
        with pytest.raises(SessionLost, match="more than 1000 messages"):
            await session.open("INBOX")


# --- downloading ---------------------------------------------------------------------------------------------------
async def test_server_that_sends_more_than_it_announced_is_cut_off_at_the_limit_and_the_others_come(
    tmp_path: Path,
) -> None:
    sent = 0

    async def retr(conversation: Conversation, arguments: str) -> bytes | None:
        nonlocal sent
        if arguments != "3":
            return b"+OK\r\n" + stuffed(conversation.mails[int(arguments)][1])
        conversation.say(b"+OK\r\n")
        for _ in range(10_000):
            conversation.say(b"x" * 998 + b"\r\n")
            sent += 1000
            await conversation.writer.drain()
        return None

    async with opened(tmp_path, {"RETR": retr}) as (server, session, folder):
        found = await bodies(session, folder, limit=20_000)
        assert found.pop("uid3") == (b"x" * 998 + b"\r\n") * 20
        assert found == {uid: octets for uid, octets in MAILS if uid != "uid3"}
        assert len(server.conversations) == 2, "cut once, and the rest by another connection"
        assert sent < 10_000_000


async def test_message_announced_as_larger_is_begun_by_top_and_nothing_is_cut(tmp_path: Path) -> None:
    mails = [("small", mail(1)), ("large", mail(2, 100_000)), ("other", mail(3, 90_000))]
    async with opened(tmp_path, {}, mails=mails) as (server, session, folder):
        found = await bodies(session, folder, limit=10_000)
        assert found == {"small": mails[0][1], "large": mails[1][1][:10_000], "other": mails[2][1][:10_000]}
        assert server.asked("RETR") == ["RETR 1"]
        assert len(server.conversations) == 1


@pytest.mark.parametrize("capabilities", ["PIPELINING UIDL", None], ids=["without-top", "without-capa"])
async def test_without_top_a_larger_message_is_cut_at_the_limit_to_the_octet(
    tmp_path: Path, capabilities: str | None
) -> None:
    mails = [("large", mail(1, 300_000)), ("small", mail(2)), ("other", mail(3, 400_000))]
    script: dict[str, Reply] = {"TOP": b"-ERR what?\r\n"}
    async with opened(tmp_path, script, mails=mails, capabilities=capabilities) as (server, session, folder):
        answers = await fetched(session, claims_of((await listed(session, folder))[0]), 10_000)
        assert [one.claim.ref.uid for one in answers] == ["small", "large", "other"], (
            "what costs a connection comes last"
        )
        assert all(isinstance(one, RawMessage) and one.truncated is (one.claim.ref.uid != "small") for one in answers)
        found = {one.claim.ref.uid: bytes(one.octets.view()) for one in answers if isinstance(one, RawMessage)}
        assert found == {"large": mails[0][1][:10_000], "small": mails[1][1], "other": mails[2][1][:10_000]}
        assert len(server.conversations) >= 2


async def test_deletions_are_counted_before_a_connection_is_cut(tmp_path: Path) -> None:
    mails = [("small", mail(1)), ("large", mail(2, 300_000))]
    async with opened(tmp_path, {}, mails=mails, capabilities="PIPELINING UIDL") as (server, session, folder):
        refs, _ = await listed(session, folder)
        (done,) = await session.settle(settled(refs[:1], DELETE))
        assert done.state == "pending"
        (answer,) = await fetched(session, claims_of(refs[1:]), 10_000)
        assert isinstance(answer, RawMessage)
        assert server.mails == mails[1:]


async def test_sizes_that_are_wrong_change_nothing_about_the_octets(tmp_path: Path) -> None:
    answer = b"+OK\r\n1 1\r\n2 99999999999\r\n3 0\r\n4 xyz\r\n5 20\r\n.\r\n"
    async with opened(tmp_path, {"LIST": answer}) as (_, session, folder):
        assert await bodies(session, folder, limit=100_000) == dict(MAILS)


async def test_message_without_its_final_dot_loses_the_session_and_is_not_taken_for_whole(tmp_path: Path) -> None:
    def retr(conversation: Conversation, arguments: str) -> bytes:
        whole = b"+OK\r\n" + stuffed(conversation.mails[int(arguments)][1])
        return whole if arguments != "4" else whole[:-3]

    script: dict[str, Reply] = {"RETR": lambda c, a: retr(c, a) if a != "5" else None}
    async with opened(tmp_path, script) as (_, session, folder):
        refs, _ = await listed(session, folder)
        found = []
        with pytest.raises(SessionLost, match="no answer to RETR for"):
            async for one in session.fetch(claims_of(refs), 1_000_000):
                found.append(one.claim.ref.uid)  # noqa: PERF401
        assert found == ["uid1", "uid2", "uid3"]


async def test_message_that_is_refused_and_gone_is_gone_and_one_that_is_still_there_is_put_off(tmp_path: Path) -> None:
    def retr(conversation: Conversation, arguments: str) -> bytes:
        uid, octets = conversation.mails[int(arguments)]
        if uid == "uid2":
            server.mails = [one for one in server.mails if one[0] != "uid2"]
            return b"-ERR message is gone\r\n"
        return b"-ERR cannot read it\r\n" if uid == "uid4" else b"+OK\r\n" + stuffed(octets)

    async with opened(tmp_path, {"RETR": retr}) as (server, session, folder):
        refs, _ = await listed(session, folder)
        found: dict[str, type] = {}
        with pytest.raises(
            TransientError, match="1 of the messages could not be downloaded: the server says cannot read it"
        ) as caught:
            async for one in session.fetch(claims_of(refs), 1_000_000):
                found[one.claim.ref.uid] = type(one)
        assert not isinstance(caught.value, SessionLost)
        assert found == dict.fromkeys(["uid1", "uid3", "uid5"], RawMessage) | {"uid2": Gone}


async def test_spool_that_cannot_be_written_puts_the_message_off_and_the_others_come(tmp_path: Path) -> None:
    mails = [("a", mail(1)), ("b", mail(2, 3_000_000)), ("c", mail(3))]
    async with opened(tmp_path, {}, mails=mails) as (_, session, folder):
        refs, _ = await listed(session, folder)
        (tmp_path / "spool").rename(tmp_path / "away")
        found = []
        with pytest.raises(TransientError, match="the spool cannot be written"):
            async for one in session.fetch(claims_of(refs), 10_000_000):
                found.append(one.claim.ref.uid)  # noqa: PERF401
        assert found == ["a", "c"]


async def test_answers_to_what_nobody_asked_end_the_session_with_its_words(tmp_path: Path) -> None:
    async with opened(tmp_path, {"DELE": b"+OK\r\n-ERR going down for maintenance\r\n"}) as (_, session, folder):
        refs, _ = await listed(session, folder)
        await session.settle(settled(refs[:1], DELETE))
        await asyncio.sleep(0.05)
        with pytest.raises(SessionLost, match="maintenance"):
            await session.open("INBOX")


# --- deleting ------------------------------------------------------------------------------------------------------
async def test_refused_deletion_has_failed_with_the_servers_words_and_a_passing_one_is_pending(tmp_path: Path) -> None:
    answers = {"1": b"-ERR [SYS/TEMP] later\r\n", "2": b"-ERR read-only\r\n", "3": b"+OK\r\n"}
    async with opened(tmp_path, {"DELE": lambda conversation, arguments: answers[arguments]}) as (_, session, folder):
        refs, _ = await listed(session, folder)
        done = await session.settle(settled(refs[:3], DELETE))
        assert [one.state for one in done] == ["pending", "failed", "pending"]
        assert "read-only" in done[1].reason
        again = await session.settle(settled(refs[2:3], DELETE))
        assert [one.state for one in again] == ["pending"]


@pytest.mark.parametrize("answer", [b"-ERR some messages were not deleted\r\n", None], ids=["refused", "silent"])
async def test_quit_that_fails_after_deletions_loses_the_session(tmp_path: Path, answer: bytes | None) -> None:
    async with opened(tmp_path, {"QUIT": answer}) as (server, session, folder):
        refs, _ = await listed(session, folder)
        await session.settle(settled(refs, DELETE))
        with pytest.raises(SessionLost, match="it is not known whether 5 messages were deleted"):
            await session.wait(timedelta(seconds=1))
        assert len(server.mails) == 5


async def test_server_that_hangs_up_instead_of_answering_quit_is_forgiven_where_nothing_was_deleted(
    tmp_path: Path,
) -> None:
    def hang_up(conversation: Conversation, arguments: str) -> None:
        conversation.hang_up()

    async with opened(tmp_path, {"QUIT": hang_up}) as (_, session, folder):
        await listed(session, folder)
        assert await session.open("INBOX") == folder
        refs, _ = await listed(session, folder)
        await session.settle(settled(refs, DELETE))
        with pytest.raises(SessionLost, match="not known"):
            await session.close()


async def test_closing_is_quick_while_a_server_sends_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.sources.pop3.session.GOODBYE", 0.2)

    async def retr(conversation: Conversation, arguments: str) -> None:
        conversation.say(b"+OK\r\n")
        while not conversation.writer.is_closing():
            conversation.say(b"slowly\r\n")
            await asyncio.sleep(0.05)

    async with opened(tmp_path, {"RETR": retr}, settings={"command_timeout": "60s"}) as (_, session, folder):
        refs, _ = await listed(session, folder)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await fetched(session, claims_of(refs))
        async with asyncio.timeout(30):
            await session.close()


@pytest.mark.parametrize(("piece", "goes_on"), [(300, True), (20, False)])
async def test_a_body_over_a_thin_line_may_take_as_long_as_it_takes_if_a_kilobyte_comes_a_second(
    piece: int, goes_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.sources.pop3.download.PATIENCE_BODY", 4)
    large = mail(1, 60 * piece)

    async def slow(conversation: Conversation, arguments: str) -> bytes:
        conversation.say(b"+OK\r\n")
        answer = stuffed(large)
        for start in range(0, len(answer), piece):
            conversation.say(answer[start : start + piece])
            await asyncio.sleep(0.05)  # three seconds, of which a patience of 0.8 allows no more
        return b""

    async with opened(tmp_path, {"RETR": slow}, settings={"command_timeout": "200ms"}, mails=[("uid1", large)]) as (
        _,
        session,
        folder,
    ):
        if goes_on:
            assert await bodies(session, folder) == {"uid1": large}
            assert isinstance(session, Progressing)
            assert session.octets_in > len(large)
        else:
            with pytest.raises(SessionLost, match="no end of the answer"):
                await bodies(session, folder)
