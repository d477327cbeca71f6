"""A server that ends the session whenever certain messages are fetched, as damaged messages in a store make it do: the
rest is delivered, and new mail does not wait."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from scenarios.outage import said, stopped, until
from servers.scripted import Answer, Conversation, ScriptedImap

CURSED = {2, 5, 7}
AT_ONCE_S = 4.0
"""What new mail may wait for on a busy machine; it is 0.15 s on one that does little else, and 0.8 s where the server
says nothing more."""


class Cursed(ScriptedImap):
    """``way``: how a session ends when a cursed message is asked for. ``shows``: what comes before it arrives first."""

    def __init__(self, way: str, *, shows: bool) -> None:
        super().__init__(
            {"FETCH": self._cursed}, messages={uid: plain(subject=f"message {uid}") for uid in range(1, 9)}
        )
        self.way = way
        self.shows = shows
        self.asked_for: list[list[int]] = []
        self.told: dict[Conversation, int] = {}
        """How many messages each connection knows of."""
        self.slow_s = 0.0
        """In the way of that name: what a cursed one takes, once the first has cost a session."""

    def arrive(self, uid: int, octets: bytes) -> None:
        """New mail, of which whoever listens is told; who does not, when he does (RFC 9051 section 7.4.1)."""
        self.messages[uid] = octets
        for conversation in self.conversations:
            if conversation.idle_tag and not conversation.writer.is_closing():
                conversation.say(self._exists(conversation))

    def _exists(self, conversation: Conversation) -> bytes:
        self.told[conversation] = len(self.messages)
        return f"* {len(self.messages)} EXISTS\r\n".encode()

    def _select(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        self.told[conversation] = len(self.messages)
        return super()._select(conversation, tag, arguments)

    def _idle(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        grown = self.told.get(conversation) != len(self.messages)
        begun = super()._idle(conversation, tag, arguments) or b""
        return begun + self._exists(conversation) if grown else begun

    async def _cursed(self, conversation: Conversation, tag: str, arguments: str) -> bytes | None:
        chosen, _, items = arguments.partition(" ")
        uids = self._chosen(chosen)
        if "BODY" not in items:
            return b"".join(self.fetch_answer(uid, items) for uid in uids) + b"%T OK done\r\n"
        self.asked_for.append(uids)
        told = b""
        for uid in uids:
            if uid in CURSED:
                conversation.say(told if self.shows else b"")
                if self.way == "bye":
                    conversation.say(b"* BYE internal error\r\n")
                    conversation.hang_up()
                elif self.way == "reset":
                    conversation.writer.transport.abort()
                elif self.way == "slow" and len(self.asked_for) > 1:
                    await asyncio.sleep(self.slow_s)
                    told = self.fetch_answer(uid, items)
                    continue
                else:
                    await asyncio.sleep(3600)
                return None
            told += self.fetch_answer(uid, items)
        return told + b"%T OK done\r\n"


def waiting(site: Site) -> list[str]:
    with sqlite3.connect(f"file:{site.directory / 'ledger.db'}?mode=ro", uri=True, timeout=10) as database:
        return [
            str(uid) for (uid,) in database.execute("SELECT uid FROM message WHERE state = 'deferred' ORDER BY uid")
        ]


@pytest.mark.parametrize(
    ("way", "shows"), [("bye", True), ("bye", False), ("reset", True), ("stall", True)],
    ids=["bye", "bye-before-all", "reset", "stall"],
)  # fmt: skip
async def test_several_messages_that_take_the_session_with_them_starve_no_other(
    site: Site, way: str, shows: bool
) -> None:
    async with Cursed(way, shows=shows) as server:
        site.settings["mailboxes"]["support"] |= {
            "port": server.port,
            "reconnect_interval": "1s",
            "poll_interval": "100ms",
            "command_timeout": "2s",
        }
        expected = Counter(f"message {uid}" for uid in server.messages if uid not in CURSED)
        began = time.monotonic()
        with site.run(by="scenarios.hasty") as daemon:
            await until(daemon, lambda: site.subjects() == expected)
            took = time.monotonic() - began
            await until(daemon, lambda: waiting(site) == ["2", "5", "7"])
            assert took < 15  # two seconds on a quiet machine, six where the server says nothing more
            server.asked_for.clear()
            slowest = 0.0
            for number in range(12):  # while those are tried again and again
                uid = 100 + number
                server.arrive(uid, plain(subject=f"new {number}"))
                expected[f"new {number}"] += 1
                began = time.monotonic()
                await until(daemon, lambda: site.subjects() == expected)
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.25)
            assert slowest < AT_ONCE_S
            retried = [uids for uids in server.asked_for if CURSED & set(uids)]
            assert retried and all(len(uids) == 1 for uids in retried), "alone"
            assert daemon.count("mailbox.failed") <= 3, "sessions are not lost by surprise"
            await said(daemon, "session.sacrificed")
            print(
                f"{way}: innocents after {took:.2f} s, new mail after {slowest:.2f} s at most; {len(retried)} retries"
            )
            assert await stopped(daemon) == 0


async def test_a_message_that_is_only_slow_comes_in_the_end_and_new_mail_does_not_wait_for_it(site: Site) -> None:
    async with Cursed("slow", shows=True) as server:
        server.slow_s = 1.5  # longer than what is in doubt is waited for, shorter than the server's silence
        server.messages = {uid: octets for uid, octets in server.messages.items() if uid <= 2}
        site.settings["mailboxes"]["support"] |= {
            "port": server.port,
            "reconnect_interval": "1s",
            "poll_interval": "100ms",
            "command_timeout": "2s",
            "disposition": {"delete": True},
        }
        expected = Counter(["message 1"])
        with site.run(by="scenarios.hasty") as daemon:
            await until(daemon, lambda: site.subjects() == expected)
            slowest, uid = 0.0, 100
            while "message 2" not in site.subjects():
                server.arrive(uid, plain(subject=f"new {uid}"))
                expected[f"new {uid}"] += 1
                began = time.monotonic()
                await until(daemon, lambda: site.subjects() >= expected)
                slowest = max(slowest, time.monotonic() - began)
                uid += 1
                await asyncio.sleep(0.25)
            assert slowest < AT_ONCE_S
            await said(daemon, "session.beside")
            await until(daemon, lambda: not server.messages)  # deleted: after a look in the mailbox's own session
            assert site.subjects() == expected + Counter(["message 2"])
            assert await stopped(daemon) == 0
        print(f"slow: new mail after {slowest:.2f} s at most, {uid - 100} of them")
