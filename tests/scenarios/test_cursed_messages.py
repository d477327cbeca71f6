"""One message that cannot be fetched, and its neighbours."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from typing import Any

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from scenarios.outage import fill, said, stopped, until
from servers.dovecot import Dovecot
from servers.proxy import FaultProxy
from servers.scripted import Conversation, ScriptedImap

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
