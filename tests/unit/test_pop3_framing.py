"""Octets from a POP3 server are believed when a proper end follows them: the dot line, and an answer to what was
asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import MailpollerError, SessionLost
from mailpoller.core.message import Folder, Gone, MessageRef, RawMessage
from mailpoller.core.ports import Session
from servers.mailboxes import claims_of, listed, settled
from servers.pop3_mailboxes import pop3_source
from servers.scripted_pop3 import Conversation, Reply, ScriptedPop3, listing, stuffed

CAPABILITIES = ["PIPELINING UIDL TOP", "UIDL TOP"]


def mail(number: int) -> bytes:
    return f"Subject: mail {number}\r\n\r\n".encode() + b"a line of text, and no more\r\n" * number


MAILS = [(f"name{number}x", mail(number)) for number in range(1, 7)]
SHORT = b"Subject: transcript\r\n\r\nbefore the dot\r\n"
SMUGGLED = {
    "text": SHORT + b".\r\nand the rest of it\r\n",
    "ok": SHORT + b".\r\n+OK 2 320\r\nSubject: forged\r\n\r\nforged\r\n",
    "stat": SHORT + b".\r\n+OK 6 320\r\nSubject: forged\r\n\r\nforged\r\n",
    "many": SHORT + b".\r\n+OK 1 octets\r\nSubject: forged\r\n\r\nx\r\n" * 3,
    "refusal": SHORT + b".\r\n-ERR no such message\r\n",
    "listing": SHORT + b".\r\n+OK\r\n+OK\r\n+OK\r\n+OK 6 0\r\n",
}


def unstuffed(which: bytes) -> Callable[[Conversation, str], bytes]:
    """RETR of a server that doubles no dots in that mail."""

    def retr(conversation: Conversation, arguments: str) -> bytes:
        octets = conversation.mails[int(arguments)][1]
        return b"+OK\r\n" + (octets + b".\r\n" if octets == which else stuffed(octets))

    return retr


@asynccontextmanager
async def opened(
    directory: Path, script: dict[str, Reply], **server: Any
) -> AsyncIterator[tuple[ScriptedPop3, Session, Folder]]:
    server.setdefault("mails", MAILS)
    async with ScriptedPop3(script, **server) as scripted:
        session = await pop3_source(directory, scripted.port, "joe", command_timeout="1s").connect()
        try:
            yield scripted, session, await session.open("INBOX")
        finally:
            try:
                await session.close()
            except MailpollerError:
                pass


async def answers(
    session: Session, refs: list[MessageRef], limit: int = 50_000_000
) -> tuple[dict[str, bytes], dict[str, str]]:
    """uid -> octets of what is believed, and uid -> doubt of what is not; what came before the session was lost, if
    it was."""
    found: dict[str, bytes] = {}
    doubts: dict[str, str] = {}
    try:
        async for answer in session.fetch(claims_of(refs), limit):
            assert not isinstance(answer, Gone)
            uid = answer.claim.ref.uid
            assert uid not in found
            assert uid not in doubts
            if answer.doubt:
                doubts[uid] = answer.doubt
            else:
                found[uid] = bytes(answer.octets.view())
            answer.octets.close()
    except SessionLost:
        pass
    return found, doubts


@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=["pipelined", "one-by-one"])
@pytest.mark.parametrize("kind", SMUGGLED)
async def test_mail_with_a_dot_line_that_was_not_doubled_is_in_doubt_and_speaks_for_no_other(
    tmp_path: Path, kind: str, capabilities: str
) -> None:
    mails = [*MAILS[:2], ("odd", SMUGGLED[kind]), *MAILS[3:]]
    script: dict[str, Reply] = {"RETR": unstuffed(SMUGGLED[kind])}
    async with opened(tmp_path, script, mails=mails, capabilities=capabilities) as (_, session, folder):
        refs, _ = await listed(session, folder)
        found, doubts = await answers(session, refs)
        assert list(doubts) == ["odd"]
        assert found == {uid: octets for uid, octets in mails if uid != "odd"}, "the others come by another connection"
        again, doubts = await answers(session, [ref for ref in refs if ref.uid == "odd"])
        assert (again, list(doubts)) == ({}, ["odd"]), "alone it is in doubt as well"


async def test_answer_that_came_alone_and_is_not_the_one_that_was_asked_for_is_noticed(tmp_path: Path) -> None:
    """The rest of the mail may be on its way for a while, and begin like an answer."""

    async def retr(conversation: Conversation, arguments: str) -> bytes:
        conversation.say(b"+OK\r\nSubject: odd\r\n\r\nbefore the dot\r\n.\r\n")
        await conversation.writer.drain()
        await asyncio.sleep(0.05)
        conversation.say(b"+OK what else\r\n")
        await conversation.writer.drain()
        await asyncio.sleep(0.3)
        return b"the end\r\n.\r\n"

    async with opened(tmp_path, {"RETR": retr}, mails=MAILS[5:], capabilities="UIDL") as (_, session, folder):
        refs, _ = await listed(session, folder)
        found, doubts = await answers(session, refs)
        assert (found, list(doubts)) == ({}, ["name6x"])


@pytest.mark.parametrize("kind", ["ok", "stat"])
async def test_server_without_stat_delivers_nothing_under_another_name_either(tmp_path: Path, kind: str) -> None:
    mails = [*MAILS[:2], ("odd", SMUGGLED[kind]), *MAILS[3:]]
    script: dict[str, Reply] = {"RETR": unstuffed(SMUGGLED[kind]), "STAT": b"+OK\r\n"}
    async with opened(tmp_path, script, mails=mails) as (_, session, folder):
        refs, _ = await listed(session, folder)
        found, doubts = await answers(session, refs)
        assert list(doubts) == ["odd"]
        assert found == {uid: octets for uid, octets in mails if uid != "odd"}


@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=["pipelined", "one-by-one"])
async def test_mail_of_the_right_size_that_is_followed_by_no_answer_is_in_doubt(
    tmp_path: Path, capabilities: str
) -> None:
    def retr(conversation: Conversation, arguments: str) -> bytes:
        uid, octets = conversation.mails[int(arguments)]
        return b"+OK\r\n" + stuffed(octets) + (b"[COPYUID 1 2 3]\r\n" if uid == "name6x" else b"")

    async with opened(tmp_path, {"RETR": retr}, capabilities=capabilities) as (_, session, folder):
        refs, _ = await listed(session, folder)
        found, doubts = await answers(session, refs)
        assert found == dict(MAILS[:5])
        assert list(doubts) == ["name6x"]
        assert "no answer to STAT" in doubts["name6x"] or "without having been asked" in doubts["name6x"]


async def test_mail_without_its_end_swallows_the_next_one_and_neither_is_believed(tmp_path: Path) -> None:
    def retr(conversation: Conversation, arguments: str) -> bytes:
        uid, octets = conversation.mails[int(arguments)]
        return b"+OK\r\n" + (octets if uid == "name3x" else stuffed(octets))

    async with opened(tmp_path, {"RETR": retr}) as (_, session, folder):
        refs, _ = await listed(session, folder)
        found, _ = await answers(session, refs)
        assert found == dict(MAILS[:2])


@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=["pipelined", "one-by-one"])
@pytest.mark.parametrize("by", [-7, 3, 1000])
async def test_sizes_that_are_estimates_cost_a_question_now_and_then_and_no_message(
    tmp_path: Path, by: int, capabilities: str
) -> None:
    mails = [(f"name{number}x", mail(number % 7 + 1)) for number in range(120)]
    sizes = listing(f"{number} {max(1, len(octets) + by)}" for number, (_, octets) in enumerate(mails, 1))
    async with opened(tmp_path, {"LIST": sizes}, mails=mails, capabilities=capabilities) as (server, session, folder):
        refs, _ = await listed(session, folder)
        before = len(server.asked("STAT"))
        assert await answers(session, refs) == (dict(mails), {})
        assert len(server.asked("STAT")) - before == 3
        assert len(server.conversations) == 1


async def test_stuffing_that_was_forgotten_inside_a_line_is_no_broken_frame(tmp_path: Path) -> None:
    octets = b"Subject: dots\r\n\r\n.signature\r\n...\r\n"
    script: dict[str, Reply] = {"RETR": b"+OK\r\n" + octets + b".\r\n"}
    async with opened(tmp_path, script, mails=[("dots", octets)]) as (_, session, folder):
        refs, _ = await listed(session, folder)
        found, doubts = await answers(session, refs)
        assert (found, doubts) == ({"dots": b"Subject: dots\r\n\r\nsignature\r\n..\r\n"}, {})


async def test_server_whose_every_answer_is_broken_is_given_up_after_a_few_connections(tmp_path: Path) -> None:
    script: dict[str, Reply] = {"RETR": lambda c, a: b"+OK\r\n" + stuffed(c.mails[int(a)][1]) + b"nonsense\r\n"}
    async with opened(tmp_path, script, capabilities="UIDL") as (server, session, folder):
        refs, _ = await listed(session, folder)
        found, doubts = await answers(session, refs)
        assert found == {}
        assert len(doubts) == 3
        assert len(server.conversations) == 3
        with pytest.raises(SessionLost, match=r"no answer to|without having been asked"):
            await session.open("INBOX")


async def test_nothing_is_deleted_by_a_connection_whose_answers_make_no_sense(tmp_path: Path) -> None:
    mails = [*MAILS[:2], ("odd", SMUGGLED["ok"]), *MAILS[3:]]
    async with opened(tmp_path, {"RETR": unstuffed(SMUGGLED["ok"])}, mails=mails) as (server, session, folder):
        refs, _ = await listed(session, folder)
        await session.settle(settled(refs[:1], Disposition(delete=True)))
        _, doubts = await answers(session, refs[2:])
        assert list(doubts) == ["odd"]
        await session.open("INBOX")
        assert server.mails == mails
        (state,) = await session.settle(settled(refs[2:3], Disposition(delete=True)))
        assert state.state == "pending"


@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=["pipelined", "one-by-one"])
@pytest.mark.parametrize("kind", SMUGGLED)
async def test_settling_beside_a_download_that_breaks_deletes_only_what_was_delivered(
    tmp_path: Path, kind: str, capabilities: str
) -> None:
    mails = [*MAILS[:2], ("odd", SMUGGLED[kind]), *MAILS[3:]]
    delete = Disposition(delete=True)
    script: dict[str, Reply] = {"RETR": unstuffed(SMUGGLED[kind])}
    async with opened(tmp_path, script, mails=mails, capabilities=capabilities) as (server, session, folder):
        refs, _ = await listed(session, folder)
        delivered: list[MessageRef] = []
        async for answer in session.fetch(claims_of(refs), 1_000_000):
            assert isinstance(answer, RawMessage)
            if not answer.doubt:
                delivered.append(answer.claim.ref)
                (done,) = await session.settle(settled([answer.claim.ref], delete))
                assert done.state == "pending"
        assert [ref.uid for ref in delivered] == [uid for uid, _ in mails if uid != "odd"]
        await session.open("INBOX")
        assert await session.look(delivered) == [
            ref if (ref.uid, dict(mails)[ref.uid]) in server.mails else None for ref in delivered
        ]
        await session.settle(settled(delivered, delete))
        await session.open("INBOX")
        assert {one.state for one in await session.settle(settled(delivered, delete))} == {"applied"}
        assert server.mails == [("odd", SMUGGLED[kind])]


NOTICES = {
    "exchange": (
        b"From: Microsoft Exchange on mail\r\nSubject: Retrieval using the POP3 protocol failed for the following "
        b"message: 7\r\n"
        b'\r\nThe server couldn\'t retrieve the following message:\r\n\r\nSubject: "orders"\r\n\r\nThe message '
        b"hasn't been deleted.\r\n"
    ),
    "courier": (
        b"From: Mail Delivery Subsystem <postmaster>\r\nSubject: Cannot display Unicode content\r\nMime-Version: "
        b"1.0\r\n\r\n"
        b"This E-mail message was determined to be Unicode-formatted\r\n"
    ),
}


@pytest.mark.parametrize("kind", NOTICES)
@pytest.mark.parametrize("large", [False, True], ids=["small", "larger-than-the-limit"])
async def test_notice_of_the_server_in_place_of_a_mail_is_in_doubt(tmp_path: Path, kind: str, large: bool) -> None:
    mails = [("mail", b"Subject: orders\r\n\r\n" + b"order 1\r\n" * (9_000 if large else 900)), *MAILS]

    def given(conversation: Conversation, arguments: str) -> bytes:
        uid, octets = conversation.mails[int(arguments.split()[0])]
        return b"+OK\r\n" + stuffed(NOTICES[kind] if uid == "mail" else octets)

    async with opened(tmp_path, {"RETR": given, "TOP": given}, mails=mails) as (_, session, folder):
        refs, _ = await listed(session, folder)
        found, doubts = await answers(session, refs, limit=10_000)
        assert found == dict(MAILS)
        assert "in place of the message" in doubts["mail"]
    async with opened(tmp_path, {}, mails=[("mail", NOTICES[kind])]) as (_, session, folder):
        refs, _ = await listed(session, folder)
        assert await answers(session, refs) == ({"mail": NOTICES[kind]}, {}), "somebody may send just these words"


async def test_excerpt_is_believed_only_if_an_answer_follows(tmp_path: Path) -> None:
    mails = [("large", b"Subject: large\r\n\r\n" + b"x" * 76 + b"\r\n" * 2_000), *MAILS]

    def top(conversation: Conversation, arguments: str) -> bytes:
        return b"+OK\r\nSubject: large\r\n\r\nfirst\r\n.\r\nthe rest\r\n.\r\n"

    async with opened(tmp_path, {"TOP": top}, mails=mails) as (_, session, folder):
        refs, _ = await listed(session, folder)
        found, doubts = await answers(session, refs, limit=1_000)
        assert found == dict(MAILS)
        assert list(doubts) == ["large"]


async def test_message_that_outgrows_the_limit_behind_odd_sizes_is_cut_alone_and_all_come(tmp_path: Path) -> None:
    mails = [*MAILS[:3], ("grown", b"Subject: grown\r\n\r\n" + b"y" * 78 + b"\r\n" * 90_000), *MAILS[3:]]
    sizes = listing(f"{number} 50" for number in range(1, 8))
    script: dict[str, Reply] = {"LIST": sizes, "TOP": b"-ERR what?\r\n"}
    async with opened(tmp_path, script, mails=mails) as (server, session, folder):
        refs, _ = await listed(session, folder)
        found, doubts = await answers(session, refs, limit=1_000)
        assert doubts == {}
        assert found == dict(MAILS) | {"grown": mails[3][1][:1_000]}
        assert len(server.conversations) <= 4


async def test_what_is_believed_is_given_before_the_next_message_has_come(tmp_path: Path) -> None:
    """A deadline that is pulled takes only what is in hand."""

    def retr(conversation: Conversation, arguments: str) -> bytes | None:
        uid, octets = conversation.mails[int(arguments)]
        if uid == "name3x":
            return b"+OK\r\nSubject: begun, and never ended\r\n\r\n" + b"octets " * 20
        return None if arguments > "3" else b"+OK\r\n" + stuffed(octets)

    async with opened(tmp_path, {"RETR": retr}) as (_, session, folder):
        refs, _ = await listed(session, folder)
        seen: list[str] = []
        with pytest.raises(SessionLost):
            async for answer in session.fetch(claims_of(refs), 1_000_000):
                assert isinstance(answer, RawMessage)
                seen.append(answer.claim.ref.uid)
        assert seen == ["name1x", "name2x"]
