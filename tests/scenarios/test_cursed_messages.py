"""One message that cannot be fetched, and its neighbours."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from typing import Any, ClassVar

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Daemon, Site
from scenarios.outage import fill, said, stopped, until
from servers import scripted_pop3 as pop3
from servers.command import mailpoller
from servers.dovecot import Dovecot
from servers.proxy import FaultProxy
from servers.scripted import Conversation, ScriptedImap
from servers.scripted_pop3 import ScriptedPop3

CURSE = b"X-Curse: yes"


class CursedProxy(FaultProxy):
    """Cuts the connection whenever the cursed message comes by. ``struck`` counts that."""

    struck = 0

    async def _pump(
        self, link: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Any
    ) -> None:
        if direction == "up":
            return await super()._pump(link, reader, writer, direction)
        tail = b""
        while data := await reader.read(1 << 16):
            if CURSE in tail + data:
                self.struck += 1
                link.reset()
                raise ConnectionResetError("cursed")
            tail = data[-len(CURSE) :]
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        return None


def put_off(site: Site) -> list[tuple[str, float]]:
    """(uid, seconds until it is due) of every message that waits."""
    with sqlite3.connect(f"file:{site.directory / 'ledger.db'}?mode=ro", uri=True, timeout=10) as database:
        rows = database.execute(
            "SELECT uid, due_at / 1e6 - unixepoch('now') FROM message WHERE state = 'deferred'"
        ).fetchall()
    return [(str(uid), float(seconds)) for uid, seconds in rows]


async def test_a_message_that_takes_the_connection_with_it_is_put_off_and_the_others_are_delivered(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    expected = fill(dovecot, user, "message", 20)
    dovecot.deliver(user, plain(subject="cursed", headers={"X-Curse": "yes"}))
    expected += fill(dovecot, user, "message", 20, start=20)
    async with CursedProxy(dovecot.imap_port) as proxy:
        site.settings["mailboxes"]["support"] |= {"port": proxy.port, "reconnect_interval": "50ms"}
        with site.run() as daemon:
            await until(daemon, lambda: site.subjects() == expected)
            await said(daemon, "message.unfetched", uid="21")
            struck = proxy.struck
            expected += fill(dovecot, user, "late", 5)
            await until(daemon, lambda: site.subjects() == expected)
            assert proxy.struck <= struck + 2, "it is not asked for again and again"
            assert await stopped(daemon) == 0
    ((uid, seconds),) = put_off(site)
    assert uid == "21"
    assert seconds > 0
    assert await asyncio.to_thread(site.once) == 75, "it is still put off"
    assert site.subjects() == expected


async def test_a_message_that_the_server_will_not_give_is_put_off_and_the_others_are_delivered(site: Site) -> None:
    messages = {uid: plain(subject=f"message {uid}") for uid in range(1, 11)}

    def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes | None:
        chosen, _, items = arguments.partition(" ")
        uids = server._chosen(chosen)
        if "BODY" in items and 4 in uids:
            return b"%T NO [SERVERBUG] conversion failed\r\n"
        return b"".join(server.fetch_answer(uid, items) for uid in uids) + b"%T OK done\r\n"

    async with ScriptedImap({"FETCH": fetch}, messages=messages) as server:
        site.settings["mailboxes"]["support"]["port"] = server.port
        with site.run() as daemon:
            await said(daemon, "message.unfetched", uid="4")
            expected = Counter(f"message {uid}" for uid in messages if uid != 4)
            await until(daemon, lambda: site.subjects() == expected)
            assert daemon.count("message.unfetched") == 1
            assert await stopped(daemon) == 0
    ((uid, seconds),) = put_off(site)
    assert (uid, seconds > 0) == ("4", True)


class NeverGiven:
    """A server that lists three messages and, while ``keeps``, has not a word for who asks for the second one."""

    keeps = True
    mails: ClassVar[dict[int, bytes]] = {uid: plain(subject=f"message {uid}") for uid in (1, 2, 3)}

    def imap(self) -> ScriptedImap:
        def fetch(conversation: Conversation, tag: str, arguments: str) -> bytes | None:
            chosen, _, items = arguments.partition(" ")
            uids = server._chosen(chosen)
            if "BODY" in items and self.keeps:
                uids = [uid for uid in uids if uid != 2]
            return b"".join(server.fetch_answer(uid, items) for uid in uids) + b"%T OK FETCH completed.\r\n"

        server = ScriptedImap({"FETCH": fetch}, messages=self.mails)
        return server

    def pop3(self) -> ScriptedPop3:
        def retrieve(conversation: pop3.Conversation, arguments: str) -> bytes | None:
            kept = self.keeps and arguments.split(" ")[0] == "2"
            return b"-ERR [SYS/TEMP] not now\r\n" if kept else server._retr(conversation, arguments)

        server = ScriptedPop3({"RETR": retrieve}, mails=[(f"{uid}", octets) for uid, octets in self.mails.items()])
        return server


@pytest.mark.parametrize("kind", ["imap", "pop3"])
async def test_a_message_that_is_listed_and_never_given_is_told_until_it_is_given(site: Site, kind: str) -> None:
    """By the real command, from cron and as a daemon. The alarm is raised in the process of the second hour, and ends
    in the last one."""
    cursed = NeverGiven()
    others = Counter({"message 1": 1, "message 3": 1})
    subject = "support, uid 2 of INBOX"

    def ask(*words: str) -> str:
        return mailpoller(*words, "--config", str(site.config)).out

    def once() -> tuple[int, Daemon]:
        with site.run("--once", by="scenarios.later") as daemon:
            return daemon.wait(), daemon

    async with cursed.imap() if kind == "imap" else cursed.pop3() as server:
        site.settings["mailboxes"]["support"] |= {"type": kind, "port": server.port}
        code, daemon = await asyncio.to_thread(once)
        assert (code, site.subjects()) == (75, others)
        assert daemon.count("message.unfetched", uid="2") == 1
        site.pass_time(15 * 60)
        code, daemon = await asyncio.to_thread(once)
        assert (code, site.subjects()) == (75, others)
        assert daemon.count("message.overdue", uid="2", what="fetch") == 1
        assert daemon.count("alarm.raised", kind="mail-stuck") == 0
        site.pass_time(3600)
        with site.run(by="scenarios.later") as daemon:
            await said(daemon, "alarm.raised", kind="mail-stuck", subject=subject)
            shown = await asyncio.to_thread(ask, "status")
            assert "uid 2 of INBOX" in shown
            assert f"{len(cursed.mails[2])} octets" in shown
            assert await stopped(daemon) == 0
        assert "uid 2 of INBOX" in await asyncio.to_thread(ask, "errors")
        assert site.subjects() == others
        cursed.keeps = False
        site.pass_time(8 * 3600)
        code, daemon = await asyncio.to_thread(once)
        assert (code, site.subjects()) == (0, others + Counter({"message 2": 1}))
        assert daemon.count("alarm.ended", kind="mail-stuck", subject=subject) == 1
