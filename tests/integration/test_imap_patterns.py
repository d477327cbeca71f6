"""Folders that are named by patterns, on a real Dovecot; and what deletion is at Gmail."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Wake
from mailpoller.sources.imap import patterns as patterns_module
from mailpoller.sources.imap.settling import NO_TRASH
from servers.dovecot import Dovecot
from servers.mailboxes import imap_source, listed, session_of, settled
from servers.scripted import Conversation, ScriptedImap

DELETE = Disposition(delete=True)


async def test_a_pattern_finds_what_is_there_now_and_what_comes_later(
    dovecot: Dovecot, user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns_module, "MATCHED_FOR", 0.0)
    for name in ("Orders", "Orders/2026", "Orders/2026/March", "Größe", "Done"):
        dovecot.create(user, name)
    settings = {"disposition": {"move": "Done"}, "folders": ["INBOX", "*"]}
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user, **settings)) as session:
        found = list(await session.folders())
        assert found[0] == "INBOX"
        assert sorted(found[1:]) == ["Größe", "Orders", "Orders/2026", "Orders/2026/March"]
        dovecot.deliver(user, b"Subject: deep\r\n\r\n", folder="Orders/2026/March")
        refs, _ = await listed(session, await session.open("Orders/2026/March"))
        assert len(refs) == 1
        dovecot.create(user, "Later")
        assert "Later" in await session.folders()
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user, folders=["Orders/%"])) as session:
        assert await session.folders() == ["Orders/2026"]
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user, folders=["Nothing/*"])) as session:
        with pytest.raises(TransientError, match="none of the mailbox's folders exists"):
            await session.folders()


async def test_levels_are_parted_by_a_slash_whatever_the_server_has_and_no_folder_is_polled_twice(
    tmp_path: Path,
) -> None:
    with Dovecot(prefix="INBOX.", separator=".") as server:
        for name in ("INBOX.Orders", "INBOX.Orders.2026", "INBOX.Done"):
            server.create("joe", name)
        settings = {"folders": ["INBOX", "INBOX/Orders", "INBOX/*"], "disposition": {"move": "Done"}}
        async with session_of(imap_source(tmp_path, server.imap_port, "joe", **settings)) as session:
            assert await session.folders() == ["INBOX", "INBOX/Orders", "INBOX/Orders/2026"]
            assert (await session.open("INBOX/Orders/2026")).name == "INBOX/Orders/2026"


async def test_of_more_folders_than_can_be_meant_some_are_polled_and_the_rest_is_told_of(
    dovecot: Dovecot, user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns_module, "MOST", 2)
    for name in ("Alpha", "Beta"):
        dovecot.create(user, name)
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user, folders=["*"])) as session:
        assert await session.folders() == ["INBOX", "Alpha", "*"]
        with pytest.raises(TransientError, match="matches 3 folders, of which 2 are polled"):
            await session.open("*")
        await session.open("Alpha")
        monkeypatch.setattr(patterns_module, "MOST", 3)
        monkeypatch.setattr(patterns_module, "MATCHED_FOR", 0.0)
        assert await session.folders() == ["INBOX", "Alpha", "Beta"], "told of no more"


@pytest.mark.parametrize(("folders", "which"), [(["*"], "INBOX"), (["Alpha", "*"], "Alpha"), (["Alph%"], "Alpha")])
async def test_news_of_inbox_are_waited_for_where_a_pattern_finds_it(
    dovecot: Dovecot, user: str, tmp_path: Path, folders: list[str], which: str
) -> None:
    dovecot.create(user, "Alpha")
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user, folders=folders)) as session:
        for name in await session.folders():
            await listed(session, await session.open(name))
        waiting = asyncio.create_task(session.wait(timedelta(seconds=30)))
        await asyncio.sleep(0.3)
        dovecot.deliver(user, b"Subject: now\r\n\r\n", folder=which)
        begun = time.monotonic()
        assert await waiting is Wake.NEWS
        assert time.monotonic() - begun < 10


async def test_a_pattern_never_takes_the_mail_of_other_people_unless_it_names_them(tmp_path: Path) -> None:
    async with ScriptedImap() as server:
        server.script["LIST"] = (
            b'* LIST () "/" "INBOX"\r\n* LIST () "/" "Orders"\r\n* LIST () "/" "Old/Orders"\r\n'
            b'* LIST () "/" "Other Users/ada/INBOX"\r\n* LIST () "/" "Shared/Sales"\r\n%T OK done\r\n'
        )
        server.script["NAMESPACE"] = (
            b'* NAMESPACE (("" "/")("Old/" "/")) (("Other Users/" "/")) (("Shared/" "/"))\r\n%T OK done\r\n'
        )
        server.capabilities += " NAMESPACE"
        server.greeting = f"* OK [CAPABILITY {server.capabilities}] ready\r\n".encode()
        async with session_of(imap_source(tmp_path, server.port, "joe", folders=["*"])) as session:
            assert await session.folders() == ["INBOX", "Old/Orders", "Orders"]
        async with session_of(imap_source(tmp_path, server.port, "joe", folders=["Shared/*"])) as session:
            found = await session.folders()
            assert "Shared/Sales" in found
            assert "Other Users/ada/INBOX" not in found


# --- Gmail ----------------------------------------------------------------------------------------------------------
FOLDERS = (
    b'* LIST (\\HasNoChildren) "/" "INBOX"\r\n'
    b'* LIST (\\HasChildren \\Noselect) "/" "[Gmail]"\r\n'
    b'* LIST (\\All \\HasNoChildren) "/" "[Gmail]/Alle Nachrichten"\r\n'
    b'* LIST (\\HasNoChildren) "/" "Support"\r\n'
)
TRASH = b'* LIST (\\HasNoChildren \\Trash) "/" "[Gmail]/Papierkorb"\r\n'


def gmail(server: ScriptedImap, *, trash: bool) -> None:
    def answer(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if arguments.startswith('"" "[Gmail]/Papierkorb"'):
            return (TRASH if trash else b"") + b"%T OK done\r\n"
        return FOLDERS + (TRASH if trash else b"") + b"%T OK done\r\n"

    server.script["LIST"] = answer
    server.capabilities += " X-GM-EXT-1"
    server.greeting = f"* OK [CAPABILITY {server.capabilities}] ready\r\n".encode()


async def test_gmail_deletes_by_its_trash_whatever_that_is_called(tmp_path: Path) -> None:
    async with ScriptedImap(messages={1: b"Subject: one\r\n\r\n", 2: b"Subject: two\r\n\r\n"}) as server:
        gmail(server, trash=True)
        async with session_of(imap_source(tmp_path, server.port, "joe", folders=["INBOX", "*"])) as session:
            assert await session.folders() == ["INBOX", "Support"]
            refs, _ = await listed(session, await session.open("INBOX"))
            done = await session.settle(settled(refs[:1], DELETE))
        assert [one.state for one in done] == ["applied"]
        assert list(server.messages) == [2]
        assert list(server.elsewhere) == ["[Gmail]/Papierkorb"]
        assert not server.asked("EXPUNGE")


async def test_gmail_without_a_trash_deletes_nothing_and_says_why(tmp_path: Path) -> None:
    async with ScriptedImap(messages={1: b"Subject: one\r\n\r\n"}) as server:
        gmail(server, trash=False)
        source = imap_source(tmp_path, server.port, "joe")
        async with session_of(source) as session:
            refs, _ = await listed(session, await session.open("INBOX"))
            (done,) = await session.settle(settled(refs, DELETE))
        assert (done.state, done.reason) == ("failed", NO_TRASH)
        assert list(server.messages) == [1]
        stages = [stage async for stage in source.probe([DELETE])]
        assert (stages[-1].ok, stages[-1].detail) == (False, NO_TRASH)
