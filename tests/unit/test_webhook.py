"""The queue ``webhook``: what is a receipt, whose trouble is what, and what a consumer gets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import socket
import sqlite3
import subprocess
import sys
from datetime import UTC, timedelta
from email.parser import BytesParser
from email.policy import HTTP
from email.utils import format_datetime
from pathlib import Path
from time import monotonic
from urllib.parse import unquote

import jwt
import pytest
from hook import OTHER, SECRET, queue_to, service
from sink_runtime import HandClock

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.core.spool import Octets
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.queues import Queue
from mailpoller.sinks.webhook.sink import WebhookQueue
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from mailpoller.wire.cloudevents import attributes_of, written
from servers.certificates import Authority, make_certificate
from servers.ports import free_port
from servers.web import Asked, Reply, Web, script

ROOT = Path(__file__).parents[2]


def order(uid: int = 1, octets: bytes | Octets = b"Subject: x\r\n\r\nx\r\n", **more: object) -> Delivery:
    return make_delivery(uid, octets, **{"place": "inside", **more})  # type: ignore[arg-type]


async def kinds(queue: WebhookQueue, *batch: Delivery) -> str:
    """What each is answered with: ``+`` a receipt, ``!`` refused for good, ``m`` and ``q`` put off and who is to
    blame."""
    return "".join(
        "+" if isinstance(one, Receipt) else "!" if one.permanent else one.blame[0]
        for one in await queue.deliver(batch)
    )


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_a_receipt(tmp_path: Path, status: int) -> None:
    async with service(tmp_path, Reply(status)) as (_, queue):
        (answer,) = await queue.deliver([order()])
    assert isinstance(answer, Receipt)
    assert answer.reference == f"127.0.0.1: HTTP {status}"


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_what_speaks_of_the_content_refuses_the_message_alone(tmp_path: Path, status: int) -> None:
    said = Reply(status, {"error": "no_subject", "message": "we want a subject"})
    async with service(tmp_path, Reply(204), said, Reply(204), connections=1) as (_, queue):
        answers = await queue.deliver([order(1), order(2), order(3)])
    assert [isinstance(one, Receipt) for one in answers] == [True, False, True]
    assert answers[1] == Refusal(
        order(2).delivery_id, f"127.0.0.1: HTTP {status} no_subject: we want a subject", permanent=True
    )


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304, 401, 402, 403, 404, 405, 407, 411, 418, 429, 451])
async def test_all_else_is_the_queues_trouble(tmp_path: Path, status: int) -> None:
    async with service(tmp_path, Reply(status)) as (web, queue):
        for _ in range(3):
            with pytest.raises(TransientError, match=f"127.0.0.1: HTTP {status}"):
                await queue.deliver([order(1), order(2), order(3)])
        assert len(web.asked) <= 3 * 4, "it ends the batch"


async def test_receipts_before_the_trouble_are_told(tmp_path: Path) -> None:
    async with service(tmp_path, Reply(204), Reply(404), connections=1) as (web, queue):
        assert await kinds(queue, order(1), order(2), order(3)) == "+qq"
        assert len(web.asked) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(tmp_path: Path, status: int) -> None:
    async with Web(script(Reply(204))) as elsewhere:
        away = Reply(status, headers={"location": f"{elsewhere.url}/there"})
        async with service(tmp_path, away, username="me", password="secret-word") as (_, queue):
            with pytest.raises(TransientError, match="a redirect is never followed"):
                await queue.deliver([order()])
        assert elsewhere.asked == []
        assert elsewhere.connections == 0


async def test_410_is_asked_no_more_until_there_is_another_configuration(tmp_path: Path) -> None:
    async with service(tmp_path, Reply(410), Reply(204)) as (web, queue):
        for _ in range(3):
            with pytest.raises(TransientError, match=r"HTTP 410.*configuration"):
                await queue.deliver([order()])
            with pytest.raises(TransientError, match="HTTP 410"):
                await queue.check()
        assert len(web.asked) == 1
        another = queue_to(f"{web.url}/hook", tmp_path)
        assert await kinds(another, order()) == "+"
        await another.close()


@pytest.mark.parametrize("status", [429, 503, 500])
@pytest.mark.parametrize("dated", [False, True], ids=["seconds", "date"])
async def test_retry_after_is_heeded(tmp_path: Path, status: int, dated: bool) -> None:
    clock = HandClock()
    clock.instant = clock.instant.replace(microsecond=0)
    at = format_datetime((clock.instant + timedelta(seconds=120)).astimezone(UTC), usegmt=True)
    busy = Reply(status, headers={"retry-after": at if dated else "120"})
    async with service(tmp_path, busy, Reply(204), clock=clock) as (web, queue):
        with pytest.raises(TransientError) as caught:
            await queue.deliver([order()])
        assert caught.value.retry_after == timedelta(seconds=120)
        clock.advance(timedelta(seconds=100))
        for call in (queue.deliver([order(2)]), queue.check()):
            with pytest.raises(TransientError, match="left alone for 20 s more") as caught:
                await call
            assert caught.value.retry_after == timedelta(seconds=20)
        assert len(web.asked) == 1
        clock.advance(timedelta(seconds=20))
        await queue.check()
        assert await kinds(queue, order()) == "+"


@pytest.mark.parametrize(
    "broken",
    [
        Reply(500),
        Reply(502, b"<html>"),
        Reply(408),
        Reply(409),
        Reply(pause=9),
        Reply(cut=0),
        Reply(cut=9),
        Reply(200, b"held", cut=-2),
        Reply(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe", cut=9999),
        Reply(raw=b"220 smtp.example.com ESMTP\r\n"),
        Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe"),
    ],
    ids=["500", "502", "408", "409", "silence", "hang-up", "in-status", "in-body", "in-chunk", "no-HTTP", "stalls"],
)  # fmt: skip
async def test_no_complete_answer_is_no_receipt_and_comes_again(tmp_path: Path, broken: Reply) -> None:
    async with service(tmp_path, broken, Reply(204), timeout="500ms") as (web, queue):
        with pytest.raises(TransientError):
            await queue.deliver([order()])
        assert await kinds(queue, order()) == "+"
        first, second = web.asked
        assert first.headers["webhook-id"] == second.headers["webhook-id"] == order().delivery_id


async def test_an_answer_that_drips_is_not_waited_for(tmp_path: Path) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    queue = queue_to(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", tmp_path, timeout="500ms")
    began = monotonic()
    with pytest.raises(TransientError, match=r"no complete answer within 1\S* s"):
        await queue.deliver([order()])
    assert monotonic() - began < 4
    await queue.close()
    server.close()


async def test_a_long_answer_is_a_receipt_by_its_status_and_its_rest_is_not_read(tmp_path: Path) -> None:
    endless = Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + bytes(1_000_000))
    async with service(tmp_path, endless, timeout="5s") as (web, queue):
        assert await kinds(queue, order(1), order(2)) == "++"
        assert web.connections == 2, "nothing more is asked on it"


async def test_a_receipt_before_all_was_sent_is_none(tmp_path: Path) -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    server = await asyncio.start_server(hasty, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    queue = queue_to(url, tmp_path, mode="raw", timeout="1s")
    with pytest.raises(TransientError):
        await queue.deliver([order(octets=bytes(30_000_000))])
    await queue.close()
    server.close()


async def test_an_idle_connection_that_was_closed_costs_nothing(tmp_path: Path) -> None:
    async with service(tmp_path) as (web, queue):
        assert await kinds(queue, order(1)) == "+"
        web.answering = script(Reply(cut=0), Reply(204))  # as if it had been closed just now
        assert await kinds(queue, order(2)) == "+"
        assert web.connections == 2


async def test_nobody_there_is_the_queues_trouble(tmp_path: Path) -> None:
    queue = queue_to(f"http://127.0.0.1:{free_port()}/", tmp_path)
    for call in (queue.check(), queue.deliver([order(1), order(2)])):
        with pytest.raises(TransientError, match="Connection refused"):
            await call


# --- whose trouble it is -----------------------------------------------------------------------------------------


async def test_a_message_that_always_fails_is_put_off_alone_once_others_are_taken(tmp_path: Path) -> None:
    poison = order(2).delivery_id
    async with service(tmp_path) as (web, queue):
        web.answering = lambda asked: Reply(500 if asked.headers["webhook-id"] == poison else 204)
        assert await kinds(queue, order(1), order(2), order(3)) == "+m+"
        with_others = await kinds(queue, order(2), order(4))
        assert with_others in ("m+", "q+")
        assert await kinds(queue, order(2)) == "m"
        assert await kinds(queue, order(2)) == "m", "and it stays so while no other mail comes"


async def test_failures_with_others_taken_between_are_no_outage(tmp_path: Path) -> None:
    replies = [Reply(500), Reply(204), Reply(502), Reply(204), Reply(503), Reply(204)]
    async with service(tmp_path, *replies, connections=1) as (_, queue):
        assert await kinds(queue, *(order(uid) for uid in range(6))) == "m+m+m+"


async def test_a_service_that_fails_with_everything_is_down_and_no_message_is_blamed(tmp_path: Path) -> None:
    async with service(tmp_path, Reply(500), connections=1) as (web, queue):
        with pytest.raises(TransientError, match="HTTP 500"):
            await queue.deliver([order(uid) for uid in range(20)])
        assert len(web.asked) == 2, "two in a row are enough"
        for _ in range(5):
            with pytest.raises(TransientError, match="HTTP 500"):
                await queue.deliver([order(0), order(1)])
        assert await kinds(queue, order(0)) == "q"


async def test_a_repeat_is_not_sent_again_by_the_same_process(tmp_path: Path) -> None:
    async with service(tmp_path) as (web, queue):
        first, second = [(await queue.deliver([order()]))[0] for _ in range(2)]
        assert isinstance(first, Receipt) and isinstance(second, Receipt)
        assert (first.repeated, second.repeated) == (False, True)
        assert len(web.asked) == 1


async def test_what_is_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with service(tmp_path, max_size="10KB") as (web, queue):
        answers = await queue.deliver([order(1, text="x" * 20_000), order(2)])
        assert isinstance(answers[0], Refusal) and answers[0].permanent
        assert "larger than max_size, 10,000" in answers[0].reason
        assert isinstance(answers[1], Receipt)
        assert len(web.asked) == 1


async def test_cancelled_deliveries_leave_room_for_later_ones(tmp_path: Path) -> None:
    async with service(tmp_path, Reply(204, pause=0.02), connections=2) as (_, queue):
        for number in range(20):
            task = asyncio.create_task(queue.deliver([order(uid) for uid in range(5)]))
            await asyncio.sleep(0.002 * (number % 7))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(3):
            assert await kinds(queue, *(order(uid) for uid in range(5))) == "+++++"


# --- what is sent ------------------------------------------------------------------------------------------------


def verified(asked: Asked, secret: str) -> bool:
    """By the words of the Standard Webhooks specification, and by no code of ours."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = b".".join((asked.headers["webhook-id"].encode(), asked.headers["webhook-timestamp"].encode(), asked.body))
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return expected in [one.removeprefix("v1,") for one in asked.headers["webhook-signature"].split(" ")]


async def test_an_event_is_structured_and_known_by_its_delivery_id(tmp_path: Path) -> None:
    async with service(tmp_path, path="/hook?key=s3cret") as (web, queue):
        await queue.deliver([order(text="Grüße 日本 \0")])
    (asked,) = web.asked
    assert asked.method == "POST"
    assert asked.target == "/hook?key=s3cret"
    assert asked.body == order(text="Grüße 日本 \0").event.structured()
    assert asked.headers["content-type"] == "application/cloudevents+json; charset=UTF-8"
    assert asked.headers["webhook-id"] == asked.headers["idempotency-key"] == order().delivery_id
    assert asked.headers["host"] == f"127.0.0.1:{web.port}"
    assert "webhook-signature" not in asked.headers
    assert "authorization" not in asked.headers


@pytest.mark.parametrize("mode", ["structured", "binary", "raw"])
async def test_signatures_are_verified_by_either_secret_and_no_other(tmp_path: Path, mode: str) -> None:
    async with service(tmp_path, mode=mode, signing_secrets=[SECRET, OTHER]) as (web, queue):
        await queue.deliver([order(octets=HOSTILE * 1000)])
    (asked,) = web.asked
    assert verified(asked, SECRET)
    assert verified(asked, OTHER)
    assert not verified(asked, "whsec_" + base64.b64encode(bytes(24)).decode())
    assert len(asked.headers["webhook-signature"].split(" ")) == 2


async def test_a_repeat_is_signed_anew_at_its_own_time(tmp_path: Path) -> None:
    clock = HandClock()
    async with service(tmp_path, Reply(500), Reply(204), clock=clock, signing_secrets=SECRET) as (web, queue):
        with pytest.raises(TransientError):
            await queue.deliver([order()])
        clock.advance(timedelta(hours=1))
        await queue.deliver([order()])
    first, second = web.asked
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 3600
    assert verified(second, SECRET)


@pytest.mark.parametrize("secret", ["whsec_not base64!", "whsec_c2hvcnQ=", "hunter2hunter2"])
async def test_a_signing_secret_of_no_use_is_said_and_not_shown(tmp_path: Path, secret: str) -> None:
    async with service(tmp_path, signing_secrets=secret) as (web, queue):
        for call in (queue.check(), queue.deliver([order()])):
            with pytest.raises(ConfigError, match="signing_secrets") as caught:
                await call
            assert secret.removeprefix("whsec_") not in str(caught.value)
        assert web.asked == []


async def test_binary_mode_has_the_attributes_beside_the_data(tmp_path: Path) -> None:
    async with service(tmp_path, mode="binary") as (web, queue):
        await queue.deliver([order()])
    (asked,) = web.asked
    assert asked.body == order().event.data()
    assert asked.headers["content-type"] == "application/json"
    context = order().event.context()
    assert {name.removeprefix("ce-"): unquote(said) for name, said in asked.headers.items() if name[:3] == "ce-"} == {
        name: said for name, said in context.items() if name != "datacontenttype"
    }


def test_attributes_are_percent_encoded_where_the_binding_asks() -> None:
    # The example of CloudEvents' HTTP binding, section 3.1.3.2, and what it leaves alone.
    assert written('Euro € 😀 "100%" ok;=,') == "Euro%20%E2%82%AC%20%F0%9F%98%80%20%22100%25%22%20ok;=,"
    assert written("urn:x") == "urn:x"
    assert written("") == ""
    context = {"dataschema": "urn:x", "datacontenttype": "application/json", "topic": ""}
    assert attributes_of(context, raw=False) == {"dataschema": "urn:x", "topic": ""}
    assert attributes_of(context, raw=True) == {"topic": ""}


@pytest.mark.parametrize("octets", [b"", b"x", HOSTILE, HOSTILE * 3000], ids=["empty", "one", "hostile", "large"])
async def test_raw_mode_sends_the_message_bit_for_bit(tmp_path: Path, octets: bytes) -> None:
    async with service(tmp_path, mode="raw", signing_secrets=SECRET) as (web, queue):
        assert queue.octets_place == "beside"
        assert await kinds(queue, order(octets=octets, place="beside")) == "+"
    (asked,) = web.asked
    assert asked.body == octets
    assert asked.headers["content-type"] == "message/rfc822"
    assert asked.headers["ce-id"] == order().mid
    assert verified(asked, SECRET)


async def test_a_batch_is_one_request_with_one_answer_for_all(tmp_path: Path) -> None:
    async with service(tmp_path, batch=3, signing_secrets=SECRET) as (web, queue):
        assert await kinds(queue, *(order(uid) for uid in range(7))) == "+" * 7
    assert sorted(len(json.loads(asked.body)) for asked in web.asked) == [1, 3, 3]
    sent = [event["deliveryid"] for asked in web.asked for event in json.loads(asked.body)]
    assert sorted(sent) == sorted(order(uid).delivery_id for uid in range(7))
    for asked in web.asked:
        assert asked.headers["content-type"] == "application/cloudevents-batch+json; charset=UTF-8"
        assert verified(asked, SECRET)
    assert len({asked.headers["webhook-id"] for asked in web.asked}) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_batch_that_is_refused_is_halved_until_it_is_known_who_is_meant(tmp_path: Path, status: int) -> None:
    def answering(asked: Asked) -> Reply:
        return Reply(status if order(5).delivery_id.encode() in asked.body else 204)

    async with service(tmp_path, batch=8) as (web, queue):
        web.answering = answering
        assert await kinds(queue, *(order(uid) for uid in range(8))) == "+++++!++"


async def test_one_that_makes_a_batch_fail_is_sent_alone_the_next_time(tmp_path: Path) -> None:
    def answering(asked: Asked) -> Reply:
        return Reply(500 if order(2).delivery_id.encode() in asked.body else 204)

    batch = [order(uid) for uid in range(4)]
    async with service(tmp_path, batch=4, connections=1) as (web, queue):
        web.answering = answering
        with pytest.raises(TransientError, match="HTTP 500"):
            await queue.deliver(batch)
        assert await kinds(queue, *batch) in ("++m+", "++q+")
        assert await kinds(queue, order(2), order(9)) in ("m+", "q+")


async def test_a_batch_is_not_larger_than_is_good_for_memory(tmp_path: Path) -> None:
    async with service(tmp_path, batch=100, connections=1) as (web, queue):
        await queue.deliver([order(uid, text="x" * 1_500_000) for uid in range(4)])
    assert [len(json.loads(asked.body)) for asked in web.asked] == [2, 2]


# --- logins and presets ------------------------------------------------------------------------------------------


async def test_logs_in_by_basic_or_bearer_and_shows_neither(tmp_path: Path) -> None:
    pair = base64.b64encode(b"ada@xy:correct horse").decode()
    said = Reply(401, {"error": "denied", "message": f"who is Basic {pair} with correct horse and k=s3cr"})
    async with service(tmp_path, said, path="/x?k=s3cr", username="ada@xy", password="correct horse") as (web, queue):
        with pytest.raises(TransientError, match="HTTP 401 denied") as caught:
            await queue.deliver([order()])
        assert web.asked[0].headers["authorization"] == f"Basic {pair}"
    for secret in (pair, "horse", "s3cr"):
        assert secret not in str(caught.value)
    async with service(tmp_path, token="t0ken") as (web, queue):
        await queue.deliver([order()])
        assert web.asked[0].bearer == "t0ken"
    async with service(tmp_path, token="two\nlines") as (web, queue):
        with pytest.raises(ConfigError, match="token"):
            await queue.deliver([order()])


async def test_logs_in_with_a_token_of_its_own_and_asks_for_another_once_it_is_refused(tmp_path: Path) -> None:
    granted = iter(("first", "second", "third"))

    def grant(asked: Asked) -> Reply:
        assert (asked.form["grant_type"], asked.form["scope"]) == ("client_credentials", "hooks")
        return Reply(200, {"access_token": next(granted), "token_type": "Bearer", "expires_in": 3600})

    async with Web(grant) as provider:
        auth = {
            "type": "oauth2",
            "grant": "client_credentials",
            "token_url": f"{provider.url}/token",
            "client_id": "mailpoller",
            "client_secret": "client-secret",
            "scopes": ["hooks"],
        }
        async with service(tmp_path, auth=auth) as (web, queue):
            await queue.check()
            assert await kinds(queue, order(1)) == "+"
            web.answering = lambda asked: Reply(401 if asked.bearer == "first" else 204)  # revoked
            assert await kinds(queue, order(2)) == "+"
            assert [asked.bearer for asked in web.asked] == ["first", "first", "second"]
            web.answering = script(Reply(401))
            with pytest.raises(TransientError, match="HTTP 401"):
                await queue.deliver([order(3)])


async def test_a_client_certificate_is_shown_and_a_pin_is_checked_before_anything_is_sent(tmp_path: Path) -> None:
    own, authority = make_certificate(tmp_path), Authority(tmp_path)
    us = authority.issue("mailpoller")
    context = own.context()
    context.load_verify_locations(authority.path)
    context.verify_mode = 2  # type: ignore[assignment]
    async with Web(script(Reply(204)), tls=context) as web:
        url = f"https://localhost:{web.port}/hook"
        good = {"ca_file": own.path, "client_certificate": us.path, "client_key": us.key}
        queue = queue_to(url, tmp_path, **good)
        await queue.check()
        assert await kinds(queue, order()) == "+"
        await queue.close()
        for keys, words in (
            ({**good, "ca_file": None}, "not trusted"),
            ({**good, "ca_file": None, "pin": "0" * 64}, "pinned"),
            ({"ca_file": own.path}, "127.0.0.1|localhost"),
        ):
            queue = queue_to(url, tmp_path, timeout="2s", **keys)
            with pytest.raises(TransientError, match=words):
                await queue.deliver([order()])
            await queue.close()
        assert len(web.asked) == 1


async def preset(tmp_path: Path, octets: bytes, **keys: object) -> Asked:
    async with service(tmp_path, path="", **keys) as (web, queue):
        assert await kinds(queue, order(octets=octets, place="beside")) == "+"
    (asked,) = web.asked
    return asked


async def test_rails_gets_what_its_relay_ingress_wants(tmp_path: Path) -> None:
    asked = await preset(tmp_path, HOSTILE, preset="rails", password="ingress")
    assert (asked.target, asked.body) == ("/rails/action_mailbox/relay/inbound_emails", HOSTILE)
    assert asked.headers["content-type"] == "message/rfc822"
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(b"actionmailbox:ingress").decode()


async def test_gitlab_gets_what_mail_room_sends(tmp_path: Path) -> None:
    key = bytes(range(32))
    asked = await preset(tmp_path, HOSTILE, preset="gitlab", token=base64.b64encode(key).decode())
    assert (asked.target, asked.body) == ("/api/v4/internal/mail_room/incoming_email", HOSTILE)
    assert asked.headers["content-type"] == "text/plain"
    claims = jwt.decode(asked.headers["gitlab-mailroom-api-request"], key, ["HS256"], issuer="gitlab-mailroom")
    assert abs(claims["iat"] - HandClock().instant.timestamp()) < 60
    assert "authorization" not in asked.headers


async def test_discourse_gets_what_its_mail_receiver_sends(tmp_path: Path) -> None:
    asked = await preset(tmp_path, HOSTILE, preset="discourse", token="k" * 64)
    assert asked.target == "/admin/email/handle_mail"
    assert base64.b64decode(asked.form["email_encoded"], validate=True) == HOSTILE
    assert (asked.headers["api-key"], asked.headers["api-username"]) == ("k" * 64, "system")


async def test_redmine_and_osticket_get_what_they_want(tmp_path: Path) -> None:
    asked = await preset(tmp_path, b"Subject: x=1&y\r\n\r\nx", preset="redmine", token="s3cret")
    assert asked.target == "/mail_handler"
    assert asked.form == {"key": "s3cret", "email": "Subject: x=1&y\r\n\r\nx"}
    asked = await preset(tmp_path, HOSTILE, preset="osticket", token="s3cret")
    assert (asked.target, asked.body, asked.headers["x-api-key"]) == ("/api/tickets.email", HOSTILE, "s3cret")


async def test_mailgun_s_shape_is_signed_and_bears_one_token_for_one_delivery(tmp_path: Path) -> None:
    octets = b"Subject: x=1&y\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
    forms = [
        (await preset(tmp_path, octets, preset="mailgun", token="s3cret", clock=clock)).form for clock in _clocks()
    ]
    for form in forms:
        assert form["body-mime"].encode() == octets
        signed = (form["timestamp"] + form["token"]).encode()
        assert form["signature"] == hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    assert forms[0]["token"] == forms[1]["token"]
    assert forms[0]["timestamp"] != forms[1]["timestamp"]


async def test_sendgrid_s_form_holds_the_message_as_it_came_behind_a_boundary_that_nobody_guesses(
    tmp_path: Path,
) -> None:
    first, second = [
        await preset(tmp_path, HOSTILE, preset="sendgrid", password=word) for word in ("s3cret", "an0ther")
    ]
    boundary = first.headers["content-type"].removeprefix("multipart/form-data; boundary=")
    assert boundary not in second.headers["content-type"]
    form = BytesParser(policy=HTTP).parsebytes(
        f"content-type: {first.headers['content-type']}\r\n\r\n".encode() + first.body
    )
    (part,) = form.iter_parts()
    assert part.get_param("name", header="content-disposition") == "email"
    assert first.body.split(b"\r\n\r\n", 1)[1].removesuffix(f"\r\n--{boundary}--\r\n".encode()) == HOSTILE
    assert base64.b64decode(first.headers["authorization"].removeprefix("Basic ")) == b"actionmailbox:s3cret"


async def test_postmark_s_json_holds_the_message_as_text_and_the_delivery_s_id(tmp_path: Path) -> None:
    octets = 'Subject: "x"\r\n\r\nGrüße\0\t\r\n.\r\n'.encode()
    asked = await preset(tmp_path, octets, preset="postmark", password="ingress")
    event = json.loads(asked.body)
    assert event["RawEmail"].encode() == octets
    assert event["MessageID"] == asked.headers["webhook-id"]
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(b"actionmailbox:ingress").decode()


async def test_postmark_s_shape_refuses_alone_what_is_no_text(tmp_path: Path) -> None:
    async with service(tmp_path, Reply(204), preset="postmark", password="ingress") as (web, queue):
        batch = [order(1, octets=b"Subject: x\r\n\r\n\xe4", place="beside"), order(2, place="beside")]
        refused, held = await queue.deliver(batch)
        assert isinstance(refused, Refusal) and refused.permanent and "no UTF-8" in refused.reason
        assert isinstance(held, Receipt)
        assert len(web.asked) == 1


async def test_lines_are_events_of_a_batch_one_by_one(tmp_path: Path) -> None:
    async with service(tmp_path, Reply(204), batch=10, lines=True) as (web, queue):
        batch = [order(uid) for uid in range(3)]
        assert await kinds(queue, *batch) == "+++"
        (asked,) = web.asked
        assert asked.headers["content-type"] == "application/x-ndjson"
        assert [json.loads(line)["deliveryid"] for line in asked.body.splitlines()] == [
            one.delivery_id for one in batch
        ]
        assert asked.body.endswith(b"\n")


@pytest.mark.parametrize(("status", "refused"), [(400, False), (401, False), (406, True), (413, True)])
async def test_a_preset_has_its_own_table_of_answers(tmp_path: Path, status: int, refused: bool) -> None:
    async with service(tmp_path, Reply(status), preset="mailgun", token="s3cret") as (_, queue):
        if refused:
            assert await kinds(queue, order()) == "!"
        else:
            with pytest.raises(TransientError, match=f"HTTP {status}"):
                await queue.deliver([order()])


def _clocks() -> list[HandClock]:
    first, second = HandClock(), HandClock()
    second.advance(timedelta(seconds=9))
    return [first, second]


async def test_a_preset_goes_where_the_url_says_if_it_says_it(tmp_path: Path) -> None:
    async with service(tmp_path, path="/sub/mail_handler?project=x", preset="redmine", token="s") as (web, queue):
        await queue.deliver([order()])
    assert web.asked[0].target == "/sub/mail_handler?project=x"


# --- a consumer --------------------------------------------------------------------------------------------------


async def test_the_example_consumer_takes_what_is_delivered_once_and_nothing_forged(tmp_path: Path) -> None:
    port, seen = free_port(), tmp_path / "seen.db"
    command = [sys.executable, str(ROOT / "examples" / "consumers" / "webhook.py"), str(port), str(seen)]
    with subprocess.Popen(command, env={**os.environ, "WEBHOOK_SECRET": SECRET}, stderr=subprocess.DEVNULL) as process:
        try:
            await _listening(port)
            batch = [order(uid) for uid in range(5)]
            for secrets in ([SECRET], [OTHER, SECRET]):  # a restart, amid a rotation
                queue = queue_to(f"http://127.0.0.1:{port}/", tmp_path, signing_secrets=secrets)
                assert await kinds(queue, *batch) == "+++++"
                await queue.close()
            forged = queue_to(f"http://127.0.0.1:{port}/", tmp_path, signing_secrets=OTHER)
            with pytest.raises(TransientError, match="HTTP 401"):
                await forged.deliver([order(9)])
            await forged.close()
        finally:
            process.kill()
    found = sqlite3.connect(seen).execute("SELECT deliveryid FROM ticket").fetchall()
    assert sorted(found) == sorted((one.delivery_id,) for one in batch)


async def _listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                await asyncio.sleep(0.05)


# --- as the engine sees it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [401, 404, 301, 503, 429])
async def test_a_service_in_trouble_is_one_alarm_and_its_mail_waits_until_it_is_mended(
    tmp_path: Path, trouble: int
) -> None:
    edges: list[bool] = []
    poison = order(1).delivery_id

    async def listener(queue: Queue, up: bool, reason: str) -> None:
        edges.append(up)

    async with service(tmp_path, Reply(trouble), connections=1) as (web, sink):
        queue = Queue(
            "hook",
            sink,
            payload="parsed",
            octets_wanted=False,
            retry_interval=timedelta(seconds=0.02),
            clock=SystemClock(),
            listener=listener,
        )
        tending = asyncio.create_task(queue.tend())
        batch = [order(uid) for uid in range(4)]
        try:
            for _ in range(4):
                with pytest.raises(TransientError):
                    await queue.deliver(batch)
                await asyncio.sleep(0.03)
            assert edges == [False]
            web.answering = lambda asked: Reply(500 if asked.headers["webhook-id"] == poison else 204)
            held: set[str] = set()
            async with asyncio.timeout(10):
                while len(held) < 3:
                    await asyncio.sleep(0.02)
                    if queue.takes_mail:
                        left = [one for one in batch if one.delivery_id not in held]
                        with contextlib.suppress(TransientError):
                            answers = await queue.deliver(left)
                            held |= {one.delivery_id for one in answers if isinstance(one, Receipt)}
            assert poison not in held
            assert edges[:2] == [False, True]
            assert [asked.headers["webhook-id"] for asked in web.asked].count(batch[3].delivery_id) >= 1
        finally:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
