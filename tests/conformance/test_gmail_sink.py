"""The queue that is a mailbox at Gmail keeps the promises of the sink's port, against the published contract."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mailpoller.config import ConfigErrors, load
from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Durable, Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.remote.gmail import quota
from mailpoller.sinks.gmail import GmailQueueConfig
from mailpoller.testing.deliveries import make_delivery
from mailpoller.testing.sink_suite import SinkSuite
from mailpoller.wire.oauth import terms_of
from servers.gmail import INSERT, Gmail, Upset

_URL = "MAILPOLLER_TEST_GMAIL_URL"
READONLY = "https://www.googleapis.com/auth/gmail.readonly"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gmail]:
    with Gmail() as started:
        started.scope = f"{INSERT} {READONLY}"
        monkeypatch.setenv(_URL, started.url)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield started
        assert started.violations == []


@pytest.fixture(autouse=True)
def _plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our share of the service is no part of what is tried here."""
    monkeypatch.setattr(quota, "BURST", 1e9)
    monkeypatch.setattr(quota, "RATE", 1e9)


def queue(directory: Path, url: str, **more: Any) -> Any:
    auth = {
        "type": "oauth2", "provider": "google", "grant": "refresh_token", "client_id": "app.example",
        "client_secret": "app-secret", "refresh_token": "refresh-me", "token_url": f"{url}/token",
    }  # fmt: skip
    block = GmailQueueConfig.model_validate({"type": "gmail", "user": Gmail.user, "url": url, "auth": auth, **more})
    ours = directory.with_name(f"{directory.name}.state")  # where tokens are kept, also those of a check
    return block.build("archive", Runtime(SystemClock(), Spool(ours / "spool"), ours))


def message(uid: int, text: bytes = b"x") -> bytes:
    return b"Message-ID: <%d@example.com>\r\nSubject: x\r\n\r\n%s\r\n" % (uid, text)


def ids(server: Gmail) -> list[str]:
    lines = (one.octets.partition(b"\r\n")[0].decode() for one in server.mails.values())
    return [line.removeprefix("X-Mailpoller-Delivery: ") for line in lines]


class TestGmailQueue(SinkSuite):
    """A mailbox a test. A repeat after a restart is looked for by Message-ID and our field."""

    holds_events = False
    holds_octets = False
    fails_with_the_disk = False
    kills = 4
    batch_seconds = 60.0
    server: Gmail

    @pytest.fixture(autouse=True)
    def _server(self, server: Gmail) -> None:
        self.server = server

    def make_sink(self, directory: Path) -> Sink:
        made: Sink = queue(directory, os.environ[_URL])
        return made

    def order(self, sink: Sink, uid: int, octets: bytes = b"", **more: object) -> Delivery:
        return super().order(sink, uid, message(uid, octets), **more)

    def held(self, directory: Path) -> Sequence[str]:
        return ids(self.server)


async def test_octets_are_below_one_field_under_the_labels_and_unread(server: Gmail, tmp_path: Path) -> None:
    octets = b"From: ada@example.com\r\nSubject: \xe4\r\n\r\n.\r\n\xff\0--\r\n" + b"y" * 998
    label = server.add_label("Support/2026")
    sink = queue(tmp_path, server.url, labels=["inbox", "UNREAD", "Support/2026"])
    order = make_delivery(1, octets)
    (answer,) = await sink.deliver([order])
    await sink.close()
    ((uid, mail),) = server.mails.items()
    assert isinstance(answer, Receipt) and answer.reference.endswith(uid)
    assert mail.octets == f"X-Mailpoller-Delivery: {order.delivery_id}\r\n".encode() + octets
    assert mail.labels == {"INBOX", "UNREAD", label}
    assert isinstance(sink, Durable) and sink.durability is not None and sink.durability.finding == "promised"


@pytest.mark.parametrize("how", ["cut", "empty"])
async def test_what_is_there_is_not_put_there_twice_though_the_answer_was_lost(
    server: Gmail, tmp_path: Path, how: str
) -> None:
    sink = queue(tmp_path, server.url, timeout="2s")
    order = make_delivery(1, message(1))
    lost = Upset(cut_after=3) if how == "cut" else Upset(instead=lambda said: b"{}")
    server.upset("POST .*/messages/import", lost)
    with pytest.raises(TransientError):
        await sink.deliver([order])
    assert ids(server) == [order.delivery_id]
    await sink.close()
    again = queue(tmp_path, server.url)
    (answer,) = await again.deliver([order])
    await again.close()
    assert isinstance(answer, Receipt) and answer.repeated
    assert len(server.mails) == 1


async def test_a_message_that_begins_with_the_rest_of_a_field_is_known_again(server: Gmail, tmp_path: Path) -> None:
    order = make_delivery(1, b" of nobody's\r\n" + message(1))
    for repeated in (False, True):
        sink = queue(tmp_path, server.url)
        (answer,) = await sink.deliver([order])
        await sink.close()
        assert isinstance(answer, Receipt) and answer.repeated is repeated
    assert len(server.mails) == 1


async def test_another_message_with_the_same_message_id_is_no_repeat(server: Gmail, tmp_path: Path) -> None:
    server.deliver(message(1), "SPAM")
    order = make_delivery(1, message(1))
    for _ in range(2):
        server.upset("POST .*/messages/import", Upset.refusal(500, "backendError", "Backend Error"))
        sink = queue(tmp_path, server.url)
        with pytest.raises(TransientError):
            await sink.deliver([order])
        await sink.close()
    sink = queue(tmp_path, server.url)
    (answer,) = await sink.deliver([order])
    await sink.close()
    assert isinstance(answer, Receipt) and not answer.repeated
    assert len(server.mails) == 2


async def test_a_label_that_is_missing_is_the_queues_trouble_and_is_not_made(server: Gmail, tmp_path: Path) -> None:
    sink = queue(tmp_path, server.url, labels=["Nowhere"])
    for call in (sink.check(), sink.deliver([make_delivery(1)])):
        with pytest.raises(TransientError, match="there is no label Nowhere"):
            await call
    await sink.close()
    assert "Nowhere" not in server.label_ids


async def test_a_token_without_the_scope_is_the_queues_trouble(server: Gmail, tmp_path: Path) -> None:
    server.scope = READONLY
    sink = queue(tmp_path, server.url)
    await sink.check()
    with pytest.raises(TransientError, match=r"gmail\.insert") as caught:
        await sink.deliver([make_delivery(1)])
    assert caught.value.retry_after is not None
    await sink.close()


async def test_what_is_too_large_is_refused_alone_before_it_is_sent(server: Gmail, tmp_path: Path) -> None:
    sink = queue(tmp_path, server.url, max_size="1KB")
    refused, held = await sink.deliver([make_delivery(1, message(1, b"x" * 1000)), make_delivery(2, message(2))])
    await sink.close()
    assert isinstance(refused, Refusal) and refused.permanent and "max_size is 1,000" in refused.reason
    assert isinstance(held, Receipt)
    assert server.count("POST .*import") == 1


async def test_a_service_that_wants_to_be_left_alone_is_left_alone_and_loses_nothing(
    server: Gmail, tmp_path: Path
) -> None:
    sink = queue(tmp_path, server.url)
    server.upset("POST .*/messages/import", Upset.throttled(after="300"))
    with pytest.raises(TransientError):
        await sink.deliver([make_delivery(1, message(1))])
    await sink.close()
    assert server.mails == {}


def test_check_refuses_a_label_that_a_mailbox_polls_here(tmp_path: Path) -> None:
    auth = "{type: oauth2, provider: google, grant: service_account, service_account: /key.json}"
    (tmp_path / "c.yaml").write_text(f"""
queues:
  desk: {{type: sqlite, path: /q/desk.db}}
  copy: {{type: gmail, user: a@example.com, labels: [UNREAD, Support], auth: {auth}}}
mailboxes:
  m: {{type: gmail, user: A@example.com, folders: [Support], auth: {auth}, default_queue: desk}}
""")
    with pytest.raises(ConfigErrors, match="polls the folder that this queue puts mail into"):
        load(tmp_path / "c.yaml")


def test_the_least_scopes_are_asked_for() -> None:
    auth = {"type": "oauth2", "provider": "google", "grant": "authorization_code", "client_id": "a"}
    terms = terms_of(GmailQueueConfig.model_validate({"type": "gmail", "auth": auth}))
    assert terms is not None
    assert set(terms.scopes) == {INSERT, READONLY}
