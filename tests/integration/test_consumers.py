"""Programs that others wrote take what we deliver: Action Mailbox, Redmine, Mailman as Debian has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.smtp.lmtp import LmtpQueueConfig
from mailpoller.sinks.webhook import WebhookQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from servers import mailman, rails

pytestmark = pytest.mark.takes_minutes
MAIL = (
    "From: Ann <ann@customer.example>\r\nTo: support@example.com\r\nSubject: =?utf-8?q?Gr=C3=B6=C3=9Fe?=\r\n"
    "Message-ID: <{}@customer.example>\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\nDrucker größer\r\n"
)


def mail(number: int) -> bytes:
    return MAIL.format(number).encode()


def hook(directory: Path, url: str, **more: Any) -> Any:
    block = WebhookQueueConfig.model_validate({"type": "webhook", "url": url, **more})
    return block.build("desk", Runtime(SystemClock(), Spool(directory / "spool"), directory))


def of(*octets: bytes) -> list[Any]:
    return [make_delivery(uid, one, place="beside") for uid, one in enumerate(octets)]


@pytest.mark.skipif(bool(rails.lacks("puma")), reason=rails.lacks("puma"))
@pytest.mark.parametrize("name", ["rails", "postmark", "sendgrid"])
async def test_action_mailbox_takes_each_message_as_it_came(tmp_path: Path, name: str) -> None:
    ingress = "relay" if name == "rails" else name
    path = "" if name == "rails" else f"/rails/action_mailbox/{name}/inbound_emails"
    # Postmark's shape is text, and Rails before 7 takes no other text than UTF-8 in SendGrid's.
    octets = [mail(1), HOSTILE if name == "rails" else mail(2)]
    with rails.ActionMailbox(tmp_path, ingress, "s3cret") as desk:
        sink = hook(tmp_path, desk.url + path, preset=name, password="wrong")
        with pytest.raises(TransientError, match="401"):
            await sink.deliver(of(*octets))
        await sink.close()
        sink = hook(tmp_path, desk.url + path, preset=name, password="s3cret")
        answers = await sink.deliver(of(*octets))
        await sink.close()
        assert [one for one in answers if not isinstance(one, Receipt)] == []
        assert sorted(await asyncio.to_thread(desk.taken, 2)) == sorted(octets)


@pytest.fixture(scope="module")
def redmine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rails.Redmine]:
    with rails.Redmine(tmp_path_factory.mktemp("redmine")) as started:
        yield started


@pytest.mark.skipif(bool(rails.lacks("puma", "bundle")), reason=rails.lacks("puma", "bundle"))
async def test_redmine_makes_an_issue_of_each_message_and_refuses_a_stranger_s(
    tmp_path: Path, redmine: rails.Redmine
) -> None:
    welcome = "/mail_handler?issue[project]=support&unknown_user=accept&no_permission_check=1"
    for query, token, answer in (
        (welcome, "wrong", TransientError),
        ("/mail_handler?issue[project]=support", "s3cret", Refusal),
        (welcome, "s3cret", Receipt),
    ):
        sink = hook(tmp_path, redmine.url + query, preset="redmine", token=token)
        try:
            (found,) = await sink.deliver(of(mail(1)))
        except TransientError as error:
            found = error
        await sink.close()
        assert isinstance(found, answer), found
        assert not isinstance(found, Refusal) or found.permanent
    assert redmine.issues() == [("Größe", "Drucker größer")]


@pytest.mark.skipif(bool(mailman.missing), reason=mailman.missing)
async def test_mailman_has_the_message_and_a_list_that_is_missing_is_a_queue_that_is_down(tmp_path: Path) -> None:
    with mailman.Mailman(tmp_path) as server:
        runtime = Runtime(SystemClock(), Spool(tmp_path / "spool"), tmp_path)
        for to, found in ((mailman.LIST, Receipt), ("nobody@lists.example.com", None)):
            block = LmtpQueueConfig.model_validate({"type": "lmtp", "host": "localhost", "port": server.port, "to": to})
            sink: Any = block.build("list", runtime)
            if found is None:
                with pytest.raises(TransientError, match="550"):
                    await sink.deliver(of(mail(1)))
            else:
                (answer,) = await sink.deliver(of(mail(1)))
                assert isinstance(answer, found)
            await sink.close()
        (taken,) = server.taken()
    assert "Message-ID: <1@customer.example>" in taken
    assert "announce.lists.example.com" in taken
