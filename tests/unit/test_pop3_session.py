"""One POP3 session after another: what is remembered, how messages are known, when a connection is held, and when
not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clocks import SkippingClock
from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import TransientError
from mailpoller.core.message import Gone, Page, RawMessage
from mailpoller.core.ports import Session, Source, Start, Wake
from mailpoller.core.spool import Spool
from mailpoller.sources.pop3 import Pop3Config
from mailpoller.sources.pop3.header import fingerprint, received_at
from pace import paced
from servers.mailboxes import ALL, claims_of, fetched, listed, session_of, settled
from servers.pop3_mailboxes import pop3_source
from servers.scripted_pop3 import Conversation, ScriptedPop3, listing
from waiting import until

DELETE = Disposition(delete=True)


def mail(subject: str, body: str = "hello", **fields: str) -> bytes:
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{head}Subject: {subject}\r\n\r\n{body}\r\n".encode()


def some(*names: str) -> list[tuple[str, bytes]]:
    return [(name, mail(name)) for name in names]


@asynccontextmanager
async def opened(source: Source) -> AsyncIterator[Session]:
    """A session with the maildrop open."""
    async with session_of(source) as session:
        await session.open("INBOX")
        yield session


async def shown(session: Session, since: Any = None, start: Start = ALL) -> tuple[list[str], Any]:
    """The uids of a listing by a fresh look, and its position."""
    refs, position = await listed(session, await session.open("INBOX"), since, start)
    return [ref.uid for ref in refs], position


def source_with(clock: SkippingClock, directory: Path, port: int, **settings: Any) -> Source:
    values = {"type": "pop3", "host": "127.0.0.1", "port": port, "tls": "none", "username": "joe", "password": "secret"}
    spool = Spool(directory / "spool")
    spool.prepare()
    return Pop3Config.model_validate(values | settings).build("box", Runtime(clock, spool, directory))


# --- positions -----------------------------------------------------------------------------------------------------
async def test_position_of_this_process_shows_what_is_new_and_one_of_another_shows_everything(tmp_path: Path) -> None:
    async with ScriptedPop3(mails=some("a", "b")) as server:
        source = pop3_source(tmp_path, server.port, "joe")
        async with session_of(source) as session:
            uids, position = await shown(session)
            assert uids == ["a", "b"]
            assert await shown(session) == (uids, position), "nothing new, and no new position"
            server.mails += some("c")
            assert (await shown(session, position))[0] == ["c"]
            assert (await shown(session, position))[0] == ["c"], "a listing that nobody recorded is told again"
            assert (await shown(session))[0] == ["a", "b", "c"], (
                "without a position everything is told: pruning relies on it"
            )
        async with session_of(source) as session:
            uids, later = await shown(session, position)
            assert uids == ["c"]
            assert await shown(session, later) == ([], later)
        async with session_of(pop3_source(tmp_path, server.port, "joe")) as session:
            assert (await shown(session, later))[0] == ["a", "b", "c"]


async def test_message_that_vanishes_and_comes_back_is_shown_again(tmp_path: Path) -> None:
    async with (
        ScriptedPop3(mails=some("a", "b")) as server,
        session_of(pop3_source(tmp_path, server.port, "joe")) as session,
    ):
        _, position = await shown(session)
        server.mails = some("a")
        _, position = await shown(session, position)
        server.mails = some("a", "b")
        assert (await shown(session, position))[0] == ["b"]


async def test_fifty_thousand_messages_that_are_left_cost_one_listing_and_no_refs(tmp_path: Path) -> None:
    mails = [(f"{number:08x}4a5b6c7d", b"") for number in range(50_000)]
    async with ScriptedPop3(mails=mails) as server, session_of(pop3_source(tmp_path, server.port, "joe")) as session:
        uids, position = await shown(session)
        assert len(uids) == 50_000
        before = len(server.lines)
        began = time.process_time()
        assert await shown(session, position) == ([], position)
        # The server is in this process too, and most of it.
        assert time.process_time() - began < paced(1.0)
        assert [line for line in server.lines[before:] if line in ("UIDL", "LIST")] == ["UIDL"]


async def test_pages_hand_the_position_out_with_the_last_one_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.sources.pop3.session.PAGE", 2)
    async with (
        ScriptedPop3(mails=some(*"abcde")) as server,
        session_of(pop3_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        pages = [page async for page in session.pending(folder, None, ALL)]
        assert [[ref.uid for ref in page.refs] for page in pages] == [["a", "b"], ["c", "d"], ["e"]]
        assert [page.position is None for page in pages] == [True, True, False]


# --- what the first run takes --------------------------------------------------------------------------------------
async def first(source: Source, start: Start) -> tuple[list[str], list[str]]:
    """The uids that a first listing wants, and those that it does not."""
    async with session_of(source) as session:
        folder = await session.open("INBOX")
        pages: list[Page] = [page async for page in session.pending(folder, None, start)]
    return [ref.uid for page in pages for ref in page.refs], [ref.uid for page in pages for ref in page.unwanted]


async def test_start_tells_what_it_leaves_out_so_that_the_ledger_remembers(tmp_path: Path) -> None:
    stamp = "from a by b; {}, (a comment)"
    mails = [
        (
            "old",
            mail("x", Received=stamp.format("Mon, 05 Jan 2026 10:00:00 +0000"), Date="Mon, 02 Mar 2026 10:00:00 +0000"),
        ),
        (
            "new",
            mail("x", Received=stamp.format("Mon, 02 Mar 2026 10:00:00 +0000"), Date="Mon, 05 Jan 2026 10:00:00 +0000"),
        ),
        ("untold", mail("x", Date="Mon, 05 Jan 2026 10:00:00 +0000")),
        ("garbled", mail("x", Received="whatever")),
    ]
    async with ScriptedPop3(mails=mails) as server:
        every = ["old", "new", "untold", "garbled"]
        make = lambda: pop3_source(tmp_path, server.port, "joe")  # noqa: E731
        assert await first(make(), ALL) == (every, [])
        assert await first(make(), Start("unseen")) == (every, [])
        assert await first(make(), Start("now")) == ([], every)
        since = Start("since", datetime(2026, 2, 1, tzinfo=UTC))
        assert await first(make(), since) == (["new", "untold", "garbled"], ["old"]), "when in doubt, it is wanted"


def test_only_the_topmost_received_field_says_when_the_server_took_a_message() -> None:
    header = (
        b"Return-Path: <a@b>\r\nReceived: from x by y\r\n\tfor <z>; Tue, 3 Mar 2026\r\n 04:05:06 +0100\r\n"
        b"Received: from v by x; Mon, 2 Mar 2026 04:05:06 +0100\r\nSubject: x\r\n"
    )
    assert received_at(header) == datetime(2026, 3, 3, 3, 5, 6, tzinfo=UTC)
    assert received_at(b"Subject: x\r\n") is None


# --- without UIDL --------------------------------------------------------------------------------------------------
NO_UIDL = {"UIDL": b"-ERR what?\r\n"}


@pytest.mark.parametrize("top", [True, False], ids=["by-top", "by-retr"])
async def test_without_uidl_messages_are_known_by_their_header_over_sessions(tmp_path: Path, top: bool) -> None:
    script = NO_UIDL | ({} if top else {"TOP": b"-ERR what?\r\n"})
    mails = [("", mail("a", Status="O")), ("", mail("b")), ("", mail("c", "x" * 1000))]
    async with ScriptedPop3(script, mails=mails, capabilities=None) as server:
        source = pop3_source(tmp_path, server.port, "joe")
        async with session_of(source) as session:
            folder = await session.open("INBOX")
            assert folder.epoch.endswith(";UIDL=none"), "another way to name messages is another epoch"
            before, position = await shown(session)
        server.mails = [("", mail("new")), ("", mail("c", "x" * 1000)), ("", mail("a", Status="RO", X_UIDL="7"))]
        async with session_of(source) as session:
            assert (await shown(session))[0][1:] == [before[2], before[0]], (
                "what servers write into messages later counts nothing"
            )
            uids, _ = await shown(session, position)
            assert len(uids) == 1
            refs, _ = await listed(session, folder)
            (answer,) = await fetched(session, claims_of([ref for ref in refs if ref.uid == uids[0]]))
            assert isinstance(answer, RawMessage)
            assert bytes(answer.octets.view()) == mail("new")


async def test_without_uidl_two_equal_mails_are_two_and_the_last_one_goes_first(tmp_path: Path) -> None:
    async with ScriptedPop3(NO_UIDL, mails=[("", mail("a"))] * 3 + [("", mail("b"))]) as server:
        server.capabilities = "PIPELINING TOP"
        source = pop3_source(tmp_path, server.port, "joe")
        async with session_of(source) as session:
            refs, _ = await listed(session, await session.open("INBOX"))
            uids = [ref.uid for ref in refs]
            assert uids[1:3] == [f"{uids[0]}#2", f"{uids[0]}#3"]
            assert len(await fetched(session, claims_of(refs))) == 4
            # The first and the third are settled, the second is not: deleting the first would make the second its heir.
            done = await session.settle(settled([refs[0], refs[2]], DELETE))
            assert [one.state for one in done] == ["pending", "pending"]
            assert server.asked("DELE") == ["DELE 3"]
        async with session_of(source) as session:
            refs, _ = await listed(session, await session.open("INBOX"))
            assert [ref.uid for ref in refs] == [uids[0], uids[1], uids[3]]
            await session.settle(settled(refs[:2], DELETE))
            assert server.asked("DELE")[1:] == ["DELE 2", "DELE 1"]
        assert server.mails == [("", mail("b"))]


async def test_repeated_uidl_is_told_apart_by_the_header_and_stays_doubted(tmp_path: Path) -> None:
    mails = [("same", mail("a")), ("own", mail("b")), ("same", mail("c"))]
    async with ScriptedPop3(mails=mails) as server:
        source = pop3_source(tmp_path, server.port, "joe")
        async with session_of(source) as session:
            refs, position = await listed(session, await session.open("INBOX"))
            assert [ref.uid for ref in refs] == [
                "same+sha256:" + fingerprint(b"Subject: a\r\n"),
                "own",
                "same+sha256:" + fingerprint(b"Subject: c\r\n"),
            ]
            answers = await fetched(session, claims_of(refs))
            assert [bytes(one.octets.view()) for one in answers if isinstance(one, RawMessage)] == [
                one for _, one in mails
            ]
        server.mails = mails[1:]
        async with session_of(source) as session:
            assert await shown(session, position) == ([], position), "the one that is left has not become another"


async def test_uidl_that_is_refused_for_the_moment_is_no_reason_to_name_messages_anew(tmp_path: Path) -> None:
    async with (
        ScriptedPop3(NO_UIDL, mails=some("a")) as server,
        session_of(pop3_source(tmp_path, server.port, "joe")) as session,
    ):
        with pytest.raises(TransientError, match="does not list"):
            await session.open("INBOX")
        del server.script["UIDL"]
        assert (await shown(session))[0] == ["a"]


# --- short sessions ------------------------------------------------------------------------------------------------
async def test_while_a_session_waits_the_maildrop_is_free_and_deletions_have_counted(tmp_path: Path) -> None:
    async with (
        ScriptedPop3(mails=some("a", "b")) as server,
        opened(pop3_source(tmp_path, server.port, "joe")) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        (done,) = await session.settle(settled(refs[:1], DELETE))
        assert (done.state, done.reason) == ("pending", "it is deleted when the session ends")
        assert server.mails == some("a", "b")
        waiting = asyncio.create_task(session.wait(timedelta(minutes=5)))
        await until(lambda: all(one.writer.is_closing() for one in server.conversations))
        assert server.mails == some("b")
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})
        await session.open("INBOX")
        (done,) = await session.settle(settled(refs[:1], DELETE))
        assert (done.state, done.reason) == ("applied", "")
        assert server.asked("DELE") == ["DELE 1"]


async def test_wait_longer_than_a_poll_says_that_there_may_be_news(tmp_path: Path) -> None:
    async with ScriptedPop3() as server:
        clock = SkippingClock()
        async with opened(source_with(clock, tmp_path, server.port, poll_interval="1m")) as session:
            assert await session.wait(timedelta(minutes=5)) is Wake.NEWS
            assert await session.wait(timedelta(seconds=30)) is Wake.LIMIT
            assert clock.seconds == 90


async def test_locked_maildrop_is_a_passing_error(tmp_path: Path) -> None:
    async with ScriptedPop3({"PASS": b"-ERR [IN-USE] another session has it\r\n"}) as server:
        with pytest.raises(TransientError, match=r"does not log us in now: .*another session has it"):
            await pop3_source(tmp_path, server.port, "joe").connect()


async def test_one_look_shows_one_maildrop_however_it_changes(tmp_path: Path) -> None:
    async with (
        ScriptedPop3(mails=some("a", "b")) as server,
        session_of(pop3_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        refs, _ = await listed(session, folder)
        server.mails.pop(0)
        answers = await fetched(session, claims_of(refs))
        assert not any(isinstance(one, Gone) for one in answers), "the numbers are those of the connection"
        assert (await shown(session))[0] == ["b"]


# --- LOGIN-DELAY ---------------------------------------------------------------------------------------------------
async def test_server_that_wants_fewer_logins_gets_fewer(tmp_path: Path) -> None:
    async with ScriptedPop3(mails=some("a"), capabilities="PIPELINING;UIDL;TOP;LOGIN-DELAY 300") as server:
        clock = SkippingClock()
        source = source_with(clock, tmp_path, server.port, poll_interval="1m")
        async with opened(source) as session:
            _, position = await shown(session)
            server.mails += some("b")
            assert (await shown(session, position))[0] == [], "no second login, so the listing is the old one"
            assert len(server.conversations) == 1
            await session.wait(timedelta(minutes=1))
            assert clock.seconds == 300, "the wait is as long as the server wants it"
            assert (await shown(session, position))[0] == ["b"]
            assert len(server.conversations) == 2
        with pytest.raises(TransientError, match="next login in 300 s") as caught:
            await source.connect()
        assert caught.value.retry_after == timedelta(seconds=300)
        clock.seconds += 291
        session = await source.connect()
        assert clock.seconds == 600, "a short rest is waited for"
        await session.wait(timedelta(0))
        clock.seconds -= 200  # as if the wait had been ended early
        await session.open("INBOX")
        assert clock.seconds == 900, "a session that is open already waits longer, for to fail would be an alarm"
        await session.close()


async def test_what_would_need_a_login_too_soon_is_put_off_for_as_long_as_the_server_wants(tmp_path: Path) -> None:
    script = {"RETR": b"-ERR cannot read it\r\n"}
    async with ScriptedPop3(script, mails=some("a"), capabilities="PIPELINING;UIDL;TOP;LOGIN-DELAY 300") as server:
        clock = SkippingClock()
        async with opened(source_with(clock, tmp_path, server.port)) as session:
            refs, _ = await listed(session, await session.open("INBOX"))
            with pytest.raises(TransientError, match="next login") as caught:
                await fetched(session, claims_of(refs))
            assert caught.value.retry_after == timedelta(seconds=300)
            assert clock.seconds == 0


async def test_delay_of_one_user_is_asked_for_after_the_login(tmp_path: Path) -> None:
    def capa(conversation: Conversation, arguments: str) -> bytes:
        known = any(line.startswith("PASS") for line in conversation.lines)
        return b"+OK\r\nUIDL\r\nLOGIN-DELAY %s\r\n.\r\n" % (b"900" if known else b"60 USER")

    async with ScriptedPop3({"CAPA": capa}) as server:
        source = source_with(SkippingClock(), tmp_path, server.port)
        await (await source.connect()).close()
        with pytest.raises(TransientError, match="in 900 s"):
            await source.connect()


async def test_login_that_comes_too_soon_waits_as_long_as_the_server_says(tmp_path: Path) -> None:
    script = {"PASS": b"-ERR [LOGIN-DELAY] minimum time between mail checks violation\r\n"}
    for capabilities, seconds in (("UIDL;LOGIN-DELAY 600", 600), ("UIDL", 60)):
        async with ScriptedPop3(script, capabilities=capabilities) as server:
            with pytest.raises(TransientError, match="fewer logins") as caught:
                await pop3_source(tmp_path, server.port, "joe").connect()
            assert caught.value.retry_after == timedelta(seconds=seconds)


def test_listing_helper_is_a_multi_line_answer() -> None:
    assert listing(["1 a"]) == b"+OK\r\n1 a\r\n.\r\n"
