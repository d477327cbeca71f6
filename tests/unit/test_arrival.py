"""Where a message came to, and whose word on its sender is taken: what a stranger can write is evidence of nothing."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mailpoller.core.authentication import EXCHANGE_ONLINE, GMAIL, Authentication, Trust
from mailpoller.core.message import Message
from mailpoller.core.source_config import AuthenticationConfig
from mailpoller.core.verdict import Deliver
from mailpoller.engine.pipeline import Pipeline
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.understand.arrival import Arrival
from mailpoller.mail.understand.authentication import read_results
from mailpoller.sources.ews import EwsConfig
from mailpoller.sources.gmail import GmailConfig
from mailpoller.sources.imap import ImapConfig
from mailpoller.sources.pop3 import Pop3Config
from odd_mail.reading import NOW, read
from pace import paced

OURS = Trust(frozenset(("mx.example.com",)))
STORED = "Received: from mx.example.com (mx.example.com [192.0.2.25]) by imap.example.com (Postfix) with LMTP id 1"
LOCAL = "Received: from localhost (localhost [127.0.0.1]) by imap.example.com (Postfix) with ESMTP id 3"
RECEIVED = "Received: from out.example.net (out.example.net [198.51.100.7])\r\n by mx.example.com (Postfix) id 2"
STRANGE = "Received: from laptop (dsl.example.net [203.0.113.9]) by mx.example.com (Postfix) with ESMTPSA id 9"
PASS = "Authentication-Results: mx.example.com; spf=pass smtp.mailfrom=a@example.net; dkim=pass; dmarc=pass"
PASSED = Authentication("pass", "pass", "pass", None, "mx.example.com")


def mail(*lines: str) -> Message:
    return read("\r\n".join((*lines, "Subject: x", "", "hi")).encode())


def authentication(*lines: str, trust: Trust | None = OURS) -> Authentication | None:
    message = mail(*lines)
    Arrival((), trust=trust).note(message)
    return message.authentication


def delivered_to(*lines: str, own: tuple[str, ...] = ("support@example.com", "info@example.com")) -> str | None:
    message = mail(*lines)
    Arrival(own).note(message)
    return message.delivered_to


# --- whose word is taken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        (PASS, STORED, RECEIVED, STRANGE),
        (STORED, PASS, RECEIVED, STRANGE),
        (STORED, RECEIVED, PASS, STRANGE),
        (LOCAL, STORED, PASS, RECEIVED, STRANGE),
        (RECEIVED, PASS),
        ("Received: by imap.example.com with LMTP id 7", RECEIVED, PASS, STRANGE),
        (STORED, RECEIVED, PASS, PASS.replace("pass", "fail"), STRANGE),
    ],
)
def test_trusted_server_is_believed_where_it_writes(lines: tuple[str, ...]) -> None:
    assert authentication(*lines) == PASSED


@pytest.mark.parametrize(
    "lines",
    [
        (STORED, RECEIVED, STRANGE, PASS),
        (RECEIVED, STRANGE, PASS),
        (PASS,),  # no server says that it received this
        # What the peer calls itself, and what it sends along:
        (RECEIVED.replace("from out.example.net (out", "from mx.example.com (out"), STORED, PASS, STRANGE),
        ("Received: from [10.0.0.1] (unknown [198.51.100.7]) by mx.example.com", STORED, PASS, STRANGE),
        (
            "Received: from x ([198.51.100.7] helo=[10.0.0.1]) by mx.example.com with esmtp (Exim 4)",
            STORED,
            PASS,
            STRANGE,
        ),
        ("Received: from unknown (HELO (10.0.0.1)) (198.51.100.7) by mx.example.com", STORED, PASS, STRANGE),
        ("Received: from x (mx.example.com [192.0.2.25] (may be forged)) by mx.example.com", STORED, PASS, STRANGE),
        ("Received: from x (mx.example.com [192.0.2.25]) (may be forged) by mx.example.com", STORED, PASS, STRANGE),
        ("Received: from x (helo=[10.0.0.1]) by mx.example.com with esmtp (Exim 4)", STORED, PASS, STRANGE),
        ("Received: from x (mx.example.com.example.net [198.51.100.7]) by mx.example.com", STORED, PASS, STRANGE),
        ("Received: from x", STORED, PASS, STRANGE),
        ("Received:", STORED, PASS, STRANGE),
    ],
)
def test_what_a_stranger_may_have_written_is_evidence_of_nothing(lines: tuple[str, ...]) -> None:
    assert authentication(*lines) is None


@pytest.mark.parametrize(
    "field",
    [
        PASS.replace("mx.example.com", "mx.example.net"),
        PASS.replace("mx.example.com", "mx.example.com.example.net"),
        PASS.replace("mx.example.com;", "(mx.example.com) x;"),
        PASS.replace("mx.example.com;", "mx.example.com 2;"),
        PASS.replace("mx.example.com;", ""),
        PASS.replace("mx.example.com", "(mx.example.com"),
        "Authentication-Results:",
        "X-Authentication-Results: mx.example.com; dmarc=pass",
    ],
)
def test_only_a_trusted_id_counts(field: str) -> None:
    assert authentication(field, STORED, RECEIVED) is None
    assert authentication(PASS, STORED, RECEIVED, trust=None) is None


def test_servers_of_a_whole_registry_are_not_ours() -> None:
    ours = Trust(frozenset(("mail.co.uk",)))
    field = PASS.replace("mx.example.com", "mail.co.uk")
    hop = "Received: from x (evil.co.uk [198.51.100.7]) by mail.co.uk (Postfix)"
    assert authentication(hop, STRANGE, field, trust=ours) is None


def test_fields_of_a_trusted_server_complete_one_another_from_the_top() -> None:
    fields = (
        "Authentication-Results: MX.example.com; dmarc=fail (p=none) header.from=example.net",
        "Authentication-Results: mx.example.com; dmarc=pass; spf=softfail; arc=none",
    )
    assert authentication(*fields, STORED) == Authentication("softfail", None, "fail", "none", "MX.example.com")


EXCHANGE = (
    "Received: from AM0PR01.eurprd01.prod.outlook.com (2603:10a6::1) by DB3PR01.eurprd01.prod.outlook.com with HTTPS",
    "Received: from DB8EUR05FT056.eop-eur05.prod.protection.outlook.com (2603:10a6:10:cafe::8d)\r\n"
    " by DB3PR08CA0020.outlook.office365.com (2603:10a6:10::25) with Microsoft SMTP Server",
    "Authentication-Results: spf=pass (sender IP is 198.51.100.7)\r\n smtp.mailfrom=example.net; dkim=none (message not"
    "\r\n signed) header.d=none;dmarc=bestguesspass action=none\r\n header.from=example.net;compauth=pass reason=109",
    "Received-SPF: Pass (protection.outlook.com: domain of example.net)",
    "Received: from out.example.net (198.51.100.7) by\r\n DB8EUR05FT056.mail.protection.outlook.com (10.233.239.78)",
)


def test_microsoft_365_is_believed_without_an_id() -> None:
    found = authentication(*EXCHANGE, trust=EXCHANGE_ONLINE)
    assert found == Authentication("pass", "none", "bestguesspass", None, "")


def test_what_passed_the_gate_of_microsoft_365_is_not_inside() -> None:
    """Another customer's servers have names of the same domain, and write the same field."""
    gate = "Received: from DB9PR01.outbound.protection.outlook.com (40.107.1.1) by VI1.mail.protection.outlook.com"
    field = EXCHANGE[2]
    assert authentication(gate, EXCHANGE[0], field, STRANGE, trust=EXCHANGE_ONLINE) is None
    assert authentication(EXCHANGE[0], gate, EXCHANGE[0], field, STRANGE, trust=EXCHANGE_ONLINE) is None


GOOGLE = (
    "Delivered-To: joe@example.com",
    "Received: by 2002:a05:6402:3506:b0:5c8:1:2 with SMTP id b6csp1;",
    "ARC-Authentication-Results: i=1; mx.google.com; dmarc=fail",
    "Return-Path: <a@example.net>",
    "Received: from mail-sor-f41.google.com (mail-sor-f41.google.com. [209.85.220.41])\r\n"
    " by mx.google.com with SMTPS id x for <joe@example.com>",
    "Received-SPF: pass (google.com: domain of a@example.net)",
    "Authentication-Results: mx.google.com;\r\n dkim=fail header.i=@example.org; dkim=pass header.i=@example.net;\r\n"
    " spf=pass smtp.mailfrom=a@example.net; dmarc=pass (p=NONE) header.from=example.net",
)


def test_gmail_is_believed_by_its_id() -> None:
    assert authentication(*GOOGLE, trust=GMAIL) == Authentication("pass", "pass", "pass", None, "mx.google.com")
    forged = (*GOOGLE[:5], "Received: from x by mx.google.com", GOOGLE[6])
    assert authentication(*forged, trust=GMAIL) is None


@pytest.mark.parametrize(
    ("value", "results"),
    [
        ("a.example; none", ("a.example", {})),
        ('"a.example" 1 (x); spf (y) = (z) PASS', ("a.example", {"spf": "pass"})),
        ("a.example; spf/1=fail; iprev=pass; SPF=pass", ("a.example", {"spf": "fail"})),
        ('a.example; spf=pass reason="a; dmarc=pass" smtp.mailfrom=x', ("a.example", {"spf": "pass"})),
        ("a.example; spf=pass (nested (comments; dkim=pass)) smtp.helo=x", ("a.example", {"spf": "pass"})),
        ('a.example; spf=fail (never " closed; dkim=pass', ("a.example", {"spf": "fail"})),
        ("spf=pass; dkim=none", ("", {"spf": "pass", "dkim": "none"})),
        ("", ("", {})),
        (";;;=", ("", {})),
    ],
)
def test_field_is_read_as_rfc_8601_writes_it(value: str, results: tuple[str, dict[str, str]]) -> None:
    assert read_results(value) == results


@pytest.mark.parametrize("piece", ["(", ")", '"', "\\", '"\\', ";", "spf=", "=", "a ", "(\\", "x;spf=pass("])
def test_hostile_fields_take_no_time(piece: str) -> None:
    begun = time.process_time()
    message = mail(*[f"{name}: {piece * (9000 // len(piece))}" for name in ("Authentication-Results", "Received") * 40])
    parsed = time.process_time()
    for trust in (OURS, EXCHANGE_ONLINE):
        Arrival(("a@example.com",), trust=trust).note(message)
    assert time.process_time() - parsed < paced(0.3), parsed - begun


@given(st.text(alphabet='()";=\\ abspfdkim.\x00é', max_size=80))
def test_nothing_makes_the_reader_raise(value: str) -> None:
    read_results(value)
    authentication(f"Received: {value!r}", f"Authentication-Results: {value!r}")


def test_who_could_be_trusted_is_told_and_no_stranger() -> None:
    other = PASS.replace("mx.example.com", "filter.example.com")
    message = mail(PASS, other, STORED, RECEIVED, STRANGE, PASS.replace("mx.", "far."))
    assert Arrival((), trust=None).untrusted(message) == ("mx.example.com", "filter.example.com")
    assert Arrival((), trust=OURS).untrusted(message) == ("filter.example.com",)
    assert Arrival((), trust=None).untrusted(mail(*EXCHANGE)) == ()  # what is inside of it nobody knows without trust
    assert Arrival((), trust=EXCHANGE_ONLINE).untrusted(mail(*EXCHANGE)) == ()


# --- where it came to ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (("Delivered-To: Support@Example.com", RECEIVED), "support@example.com"),
        (("X-Original-To: info@example.com", "Delivered-To: support@example.com", RECEIVED), "info@example.com"),
        (("Delivered-To: joe-local@imap", "Envelope-To: <info@example.com>", RECEIVED), "info@example.com"),
        (("X-Envelope-To: other@example.com, info@example.com", RECEIVED), "info@example.com"),
        ((f"{RECEIVED} for <info@example.com>; Mon", "To: support@example.com"), "info@example.com"),
        (("Delivered-To: support+case17@example.com", RECEIVED), "support@example.com"),
        ((RECEIVED, "To: Us <INFO@example.com>"), "info@example.com"),
        ((RECEIVED, "To: a@example.net", "Cc: info@example.com"), "info@example.com"),
        (("To: support@example.com", RECEIVED, STRANGE, "Delivered-To: info@example.com"), "support@example.com"),
        ((RECEIVED, STRANGE, "Delivered-To: info@example.com", "To: a@example.net"), "info@example.com"),
        ((RECEIVED, "To: a@example.net"), None),
        (("Subject: y",), None),
    ],
)
def test_address_that_it_came_to(lines: tuple[str, ...], found: str | None) -> None:
    assert delivered_to(*lines) == found


def test_own_server_tells_where_no_address_is_configured_and_a_stranger_never_does() -> None:
    assert delivered_to("Delivered-To: anyone@example.com", RECEIVED, own=()) == "anyone@example.com"
    assert delivered_to(RECEIVED, STRANGE, "Delivered-To: anyone@example.com", own=()) is None
    assert delivered_to("Delivered-To: anyone@example.com", RECEIVED, "To: support@example.com") == (
        "support@example.com"
    )


def test_arrival_is_told_at_every_level_and_of_what_no_rule_is_asked_about() -> None:
    pipeline = Pipeline(mailbox="m", default_queue="q", arrival=Arrival(("support@example.com",), trust=OURS))
    for extra in ("X-Other: 1", "X-Mailpoller-Loop: 1"):
        message = mail("Delivered-To: support@example.com", STORED, RECEIVED, PASS, extra)
        pipeline.judge(message)
        for payload in ("summary", "parsed", "raw"):
            event = EventRenderer(message, verdict=Deliver(("q",)), source="mailpoller/m", now=NOW).render(
                queue="q", delivery_id="d", payload=payload
            )
            data = json.loads(event.data())
            assert data["delivered_to"] == "support@example.com"
            assert data["authentication"] == {
                "spf": "pass", "dkim": "pass", "dmarc": "pass", "arc": None, "by": "mx.example.com"
            }  # fmt: skip


# --- the configuration -----------------------------------------------------------------------------------------------


def imap(host: str, **keys: object) -> ImapConfig:
    return ImapConfig.model_validate(
        {"type": "imap", "host": host, "username": "joe@example.com", "password": "env:P", **keys}
    )


def test_service_whose_mailbox_it_is_is_trusted_and_nobody_else() -> None:
    auth = {"type": "oauth2", "provider": "google", "grant": "refresh_token", "client_id": "x"}
    assert GmailConfig.model_fields["auth"], auth
    assert imap("imap.gmail.com").trust() == GMAIL
    assert imap("outlook.office365.com").trust() == EXCHANGE_ONLINE
    assert imap("imap.example.com").trust() is None
    pop3 = {"type": "pop3", "host": "outlook.office365.com", "username": "x", "password": "env:P"}
    assert Pop3Config.model_validate(pop3).trust() == EXCHANGE_ONLINE
    ews = {"type": "ews", "url": "https://mail.example.com/EWS/Exchange.asmx", "username": "x", "password": "env:P"}
    assert EwsConfig.model_validate(ews).trust() is None


def test_configuration_overrules_what_is_usual() -> None:
    assert imap("imap.gmail.com", authentication={"trusted": []}).trust() == Trust()
    assert imap("imap.example.com", authentication={"trusted": ["MX.Example.com"]}).trust() == OURS
    assert imap("x.example.com", authentication={"trusted": "topmost_without_id"}).trust() == EXCHANGE_ONLINE
    assert imap("x.example.com").own_addresses() == ["joe@example.com"]
    assert imap("x.example.com", address="a@example.com").own_addresses() == ["a@example.com"]


@pytest.mark.parametrize("trusted", ["topmost", ["a b"], ["a;b"], [""], [1], None])
def test_id_that_can_be_none_is_refused(trusted: object) -> None:
    with pytest.raises(ValidationError):
        AuthenticationConfig.model_validate({"trusted": trusted})
