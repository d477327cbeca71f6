"""A web service that fails at certain messages, and one that fails at all: real daemon, real requests."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from scenarios.outage import said, stopped, until
from servers.scripted import ScriptedImap
from servers.web import Asked, Reply, Web


class Service:
    """Takes events but for those whose subject has a word; ``way`` is what becomes of these."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.taken: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()

    def __call__(self, asked: Asked) -> Reply:
        subject = json.loads(asked.body)["data"]["subject"]
        self.tried[subject] += 1
        if self.way == "mends":
            self.taken[subject] += 1
            return Reply(204)
        if "bad" not in subject:
            self.taken[subject] += 1
            return Reply(204)
        return Reply(204, pause=30) if self.way == "hangs" else Reply(422)


def hooked(site: Site, web: Web, port: int, **more: object) -> None:
    site.settings["queues"]["support"] = {"type": "webhook", "url": web.url, "retry_interval": "1s", **more}
    site.imap("support", port, "alice", poll_interval="300ms", reconnect_interval="1s")


async def test_three_messages_that_a_service_cannot_stomach_hold_up_no_other(site: Site) -> None:
    pytest.importorskip("httpcore", reason="the extra webhook is not installed")
    subjects = ["bad 1", "bad 2", "bad 3", *(f"good {number}" for number in range(4, 30))]
    server = ScriptedImap(messages={uid: plain(subject=word) for uid, word in enumerate(subjects, 1)})
    service = Service("hangs")
    async with server, Web(service) as web:
        hooked(site, web, server.port, timeout="1s")
        with site.run() as daemon:
            good = {word for word in subjects if "good" in word}
            await until(daemon, lambda: set(service.taken) == good)
            await until(daemon, lambda: all(service.tried[f"bad {number}"] > 1 for number in (1, 2, 3)))
            server.messages[99] = plain(subject="good new")
            for conversation in server.conversations:
                if conversation.idle_tag and not conversation.writer.is_closing():
                    conversation.say(b"* 30 EXISTS\r\n")
            await until(daemon, lambda: "good new" in service.taken)
            assert max(service.taken.values()) == 1
            assert await stopped(daemon) == 0


async def test_a_service_that_refuses_everything_is_down_and_its_mail_waits(site: Site) -> None:
    pytest.importorskip("httpcore", reason="the extra webhook is not installed")
    server = ScriptedImap(messages={uid: plain(subject=f"bad {uid}") for uid in range(1, 31)})
    service = Service("422")
    async with server, Web(service) as web:
        hooked(site, web, server.port)
        with site.run() as daemon:
            await said(daemon, "queue.failed", queue="support")
            await asyncio.sleep(3)  # in which it is tried again
            quarantined = daemon.count("delivery.refused")
            assert quarantined < 10
            service.way = "mends"
            await until(daemon, lambda: len(service.taken) == 30 - quarantined)
            assert max(service.taken.values()) == 1
            assert await stopped(daemon) == 0
