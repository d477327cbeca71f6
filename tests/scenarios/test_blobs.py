"""Octets that events refer to, with the real daemon: whatever is killed when, an event names what lies there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from scenarios.outage import stopped, until
from servers import s3
from servers.scripted import ScriptedImap
from servers.web import Asked, Reply, Web

LARGE = {uid: plain(subject=f"large {uid}", text=f"{uid} " * 5000) for uid in range(1, 6)}
SMALL = {6: plain(subject="small")}


def with_blobs(site: Site, **settings: object) -> None:
    site.settings["blobs"] = {"type": "filesystem", "path": str(site.directory / "blobs")}
    site.settings["queues"]["support"].update({"blobs_above": "4KB", **settings})


def octets_of(event: dict[str, dict[str, object]]) -> bytes:
    named = event["data"]["raw_blob"]
    assert isinstance(named, dict)
    octets = Path(urlsplit(named["href"]).path).read_bytes()
    assert (hashlib.sha256(octets).hexdigest(), len(octets)) == (named["sha256"], named["size"])
    return octets


@pytest.mark.parametrize(
    ("when", "step"), [("before", "sink.deliver"), ("after", "sink.deliver"), ("before", "ledger.settle")]
)
async def test_killed_anywhere_every_event_names_octets_that_are_there(site: Site, when: str, step: str) -> None:
    with_blobs(site)
    async with ScriptedImap(messages={**LARGE, **SMALL}) as server:
        site.imap("support", server.port, "alice")
        assert await asyncio.to_thread(site.once, kill=(when, step, 1)) == -signal.SIGKILL
        assert all(octets_of(event) in LARGE.values() for event in site.events() if "raw_blob" in event["data"])
        assert await asyncio.to_thread(site.once) == 0
    events = site.events()
    assert sorted(octets_of(event) for event in events if "raw_blob" in event["data"]) == sorted(LARGE.values())
    assert [event["data"]["subject"] for event in events if "raw_blob" not in event["data"]] == ["small"]
    assert len(list((site.directory / "blobs").glob("[0-9a-f]" * 64))) == len(LARGE)


async def test_a_service_finds_the_octets_when_it_is_told_of_them_and_a_full_store_holds_up_no_other_queue(
    site: Site,
) -> None:
    pytest.importorskip("httpcore", reason="the extra webhook is not installed")
    found: list[bytes] = []

    def take(asked: Asked) -> Reply:
        found.append(octets_of(json.loads(asked.body)))
        return Reply(204)

    async with ScriptedImap(messages=LARGE) as server, Web(take) as web:
        site.imap("support", server.port, "alice", rules=["both"])
        site.settings["queues"]["hook"] = {"type": "webhook", "url": web.url, "raw": True, "retry_interval": "1s"}
        site.settings["queues"]["hook"]["blobs_above"] = "4KB"
        both = {"name": "both", "when": {"subject": {"contains": "large"}}, "then": {"queue": ["hook", "support"]}}
        site.settings["rules"] = [both]
        site.settings["blobs"] = {"type": "filesystem", "path": str(site.directory / "blobs"), "min_free": "1000000GB"}
        with site.run() as daemon:
            await until(daemon, lambda: len(site.events()) == len(LARGE))
            assert daemon.count("queue.failed") >= 1
            assert found == []
            assert await stopped(daemon) == 0
        site.settings["blobs"]["min_free"] = "1KB"
        with site.run() as daemon:
            await until(daemon, lambda: len(found) == len(LARGE))
            assert await stopped(daemon) == 0
    assert sorted(found) == sorted(LARGE.values())
    assert len(site.events()) == len(LARGE)
    assert site.quarantined() == []


@pytest.mark.skipif(bool(s3.missing), reason=s3.missing)
async def test_killed_in_between_every_event_names_octets_that_are_in_the_bucket(site: Site) -> None:
    pytest.importorskip("aiobotocore", reason="the extra aws is not installed")
    site.settings["queues"]["support"]["blobs_above"] = "4KB"
    with s3.S3Server() as store:
        s3.make_bucket(store.port, "mail")
        where = {"type": "s3", "bucket": "mail", "prefix": "blobs/", "region": "us-east-1", "endpoint": store.url}
        login = {"access_key_id": s3.KEY, "secret_access_key": s3.SECRET, "durability": "declared"}
        site.settings["blobs"] = {**where, **login}
        async with ScriptedImap(messages={**LARGE, **SMALL}) as server:
            site.imap("support", server.port, "alice")
            assert await asyncio.to_thread(site.once, kill=("after", "sink.deliver", 1)) == -signal.SIGKILL
            assert await asyncio.to_thread(site.once) == 0
        named = [event["data"]["raw_blob"] for event in site.events() if "raw_blob" in event["data"]]
        assert len(named) == len(LARGE)
        for one in named:
            assert one["href"] == f"s3://mail/blobs/{one['sha256']}"
            octets = await asyncio.to_thread(s3.object_of, store.port, "mail", f"blobs/{one['sha256']}")
            assert octets in LARGE.values()
            assert hashlib.sha256(octets).hexdigest() == one["sha256"]
