"""The real command, whose intake is a stream that a reload has brought: killed around its commit, it sends once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scenarios.test_outbox import ENTRY, ask, desk, ids, until
from servers.redis import RedisServer, missing
from servers.smtp import relay_in_a_thread

redis = pytest.importorskip("redis", reason="the extra redis is not installed")
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_the_commit_an_entry_of_a_stream_is_accepted_once(tmp_path: Path, when: Any) -> None:
    with relay_in_a_thread() as relay, RedisServer() as server, redis.Redis(port=server.port) as client:
        site = desk(tmp_path, relay.port)
        with site.run(kill=(when, "outbox.outbox_accept", 1)) as daemon:
            daemon.until_said("service.started")
            where = {"host": "127.0.0.1", "port": server.port, "tls": "none"}
            site.settings["intakes"]["shop"] = {"type": "redis", "departments": ["root"], **where}
            assert ask(site, "reload").code == 0
            id = client.xadd("{mailpoller:shop}", {"body": json.dumps(ENTRY)}).decode()
            daemon.wait()
        assert client.xpending("{mailpoller:shop}", "mailpoller")["pending"] == 1
        assert not client.hgetall(f"{{mailpoller:shop}}:answer:{id}")
        with site.run() as daemon:
            daemon.until_said("service.started")
            until(lambda: client.hgetall(f"{{mailpoller:shop}}:answer:{id}").get(b"state") == b"accepted")
            until(lambda: relay.received)
            until(lambda: ask(site, "outbox", "list", "--json").json == [])
        assert len(set(ids(relay))) == 1
        assert client.xlen("{mailpoller:shop}") == 0
