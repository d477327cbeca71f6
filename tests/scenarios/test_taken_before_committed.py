"""A consumer that takes and acknowledges between a queue's write and the ledger's commit, and a daemon that dies
there: nothing is lost, and nothing comes a second time where a repeat can be told."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mailpoller.sinks.postgres.schema import rights, schema
from mailpoller.sinks.sqlite.consumer import open_queue
from scenarios.harness import Site
from servers import postgres as postgres_server
from servers import redis as redis_server
from servers.dovecot import Dovecot

COUNT = 7
Consumer = Callable[[], list[str]]
"""Takes and acknowledges all that is there: the delivery ids."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A mailbox that is a Maildir with some messages."""
    made = Site(tmp_path)
    for folder in ("new", "cur", "tmp"):
        (tmp_path / "box" / folder).mkdir(parents=True)
    for number in range(COUNT):
        text = f"From: a@customer.example\r\nSubject: {number}\r\nMessage-ID: <{number}@x>\r\n\r\ntext\r\n"
        (tmp_path / "box" / "new" / f"{number}.x.host").write_bytes(text.encode())
    made.settings["mailboxes"]["support"] = {
        "type": "maildir", "path": str(tmp_path / "box"), "start": "all", "default_queue": "support",
    }  # fmt: skip
    return made


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def consumer(request: pytest.FixtureRequest, site: Site) -> Iterator[Consumer]:
    yield from {"sqlite": of_sqlite, "postgres": of_postgres, "redis": of_redis}[request.param](site)


def of_sqlite(site: Site) -> Iterator[Consumer]:
    def take() -> list[str]:
        with open_queue(site.queue_path) as queue:
            taken = queue.take(100)
            ids = [one.entry.delivery_id for one in taken.messages]
            queue.ack(ids, taken.token)
            return ids

    yield take


def of_postgres(site: Site) -> Iterator[Consumer]:
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    if postgres_server.missing:
        pytest.skip(postgres_server.missing)
    with postgres_server.PostgresServer(access=("host all mailer 127.0.0.1/32 trust",)) as server:
        server.ask("CREATE ROLE mailer LOGIN")
        server.ask(schema("mailpoller_support") + rights("mailpoller_support", "mailer"))
        place = {"host": "127.0.0.1", "port": server.port, "database": "postgres", "username": "mailer"}
        site.settings["queues"]["support"] = {"type": "postgres", "tls": "none", **place}
        yield lambda: [row[0] for row in server.ask("DELETE FROM mailpoller_support RETURNING delivery_id")]


def of_redis(site: Site) -> Iterator[Consumer]:
    redis = pytest.importorskip("redis", reason="the extra redis is not installed")
    if redis_server.missing:
        pytest.skip(redis_server.missing)
    with redis_server.RedisServer() as server:
        place = {"host": "127.0.0.1", "port": server.port}
        site.settings["queues"]["support"] = {"type": "redis", "tls": "none", **place}

        def take() -> list[str]:
            with redis.Redis(port=server.port) as client:
                entries: list[Any] = client.xrange("{mailpoller:support}")
                for number, _ in entries:
                    client.xdel("{mailpoller:support}", number)
            return [fields[b"deliveryid"].decode() for _, fields in entries]

        yield take


@pytest.mark.parametrize(("when", "step"), [("after", "sink.deliver"), ("before", "ledger.settle")])
def test_what_was_taken_before_the_ledger_knew_does_not_come_again(
    site: Site, consumer: Consumer, when: str, step: str
) -> None:
    assert site.once(kill=(when, step, 1)) == -signal.SIGKILL
    taken = consumer()
    assert len(taken) == COUNT, "it was held before the ledger was told"
    assert site.ledger_counts("support")["settled"] == 0
    assert site.once() == 0
    assert consumer() == [], "its ids are known, though no message of them is there"
    assert site.ledger_counts("support")["settled"] == COUNT
    assert len(set(taken)) == COUNT


@pytest.mark.parametrize(
    ("when", "step", "number"),
    [("before", "sink.deliver", 1), ("after", "sink.deliver", 1), ("before", "ledger.settle", 1)],
)
async def test_killed_at_any_step_each_message_is_put_into_another_mailbox_once(
    site: Site, dovecot: Dovecot, user: str, when: str, step: str, number: int
) -> None:
    site.settings["queues"]["support"] = {
        "type": "imap", "host": "127.0.0.1", "port": dovecot.imap_port, "tls": "none", "username": user,
        "password": "secret",
    }  # fmt: skip
    assert await asyncio.to_thread(site.once, kill=(when, step, number)) == -signal.SIGKILL
    assert await asyncio.to_thread(site.once) == 0
    found = (re.search(rb"Subject: (\d+)", octets) for octets in dovecot.octets(user).values())
    assert Counter(int(one[1]) for one in found if one) == Counter(range(COUNT))
    assert site.ledger_counts("support")["settled"] == COUNT
