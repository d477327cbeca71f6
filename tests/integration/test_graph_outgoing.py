"""Mail by Graph: sent as it is, quarantined bit for bit, and refused in ways that the engine understands."""

from __future__ import annotations

import email
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailpoller.core.delivery import Receipt
from mailpoller.core.errors import CredentialsRefused, MailpollerError, MessageRejected, TransientError
from mailpoller.core.ports import Mail
from mailpoller.mail.compose import test_mail as made_test_mail
from mailpoller.outgoings.graph import LARGEST, GraphOutgoing, GraphOutgoingConfig
from mailpoller.sinks.smtp import SmtpQueueConfig
from mailpoller.testing.builders import plain
from mailpoller.testing.deliveries import make_delivery
from mailpoller.wire.smtp import NotCarried, RelayUnavailable
from servers.graph import Graph, Said, strict_graph
from servers.mailboxes import runtime

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def graph() -> Iterator[Graph]:
    with strict_graph() as server:
        yield server


@pytest.fixture
async def make(graph: Graph, tmp_path: Path) -> AsyncIterator[Callable[..., GraphOutgoing]]:
    built: list[GraphOutgoing] = []

    def made(**settings: Any) -> GraphOutgoing:
        values = {
            "type": "graph", "sender": graph.user, "url": graph.url, "auth": graph.auth, "timeout": "60s", **settings
        }  # fmt: skip
        outgoing = GraphOutgoingConfig.model_validate(values).build("office", runtime(tmp_path))
        assert isinstance(outgoing, GraphOutgoing)
        built.append(outgoing)
        return outgoing

    yield made
    for outgoing in built:
        await outgoing.close()


def a_mail(graph: Graph, *recipients: str) -> Mail:
    return made_test_mail(sender=graph.user, recipients=recipients or ("ops@example.com",), footer="x", at=NOW)


def sent(graph: Graph) -> Message:
    (octets,) = graph.sent
    return email.message_from_bytes(octets)


async def test_mail_is_sent_as_it_is_and_logged_without_its_content(
    graph: Graph, make: Callable[..., GraphOutgoing]
) -> None:
    mail = a_mail(graph)
    with capture_logs() as logs:
        assert (await make().send(mail)).startswith("202 accepted")
    assert graph.sent == [mail.octets]
    (said,) = [log for log in logs if log["event"] == "mail.sent"]
    assert (said["outgoing"], said["recipients"], said["size_bytes"]) == ("office", 1, len(mail.octets))
    assert "ops@example.com" not in json.dumps(logs, default=str)


async def test_recipients_whom_the_header_does_not_name_become_blind_copies(
    graph: Graph, make: Callable[..., GraphOutgoing]
) -> None:
    mail = a_mail(graph, "ops@example.com", "Night@example.com")
    await make().send(replace(mail, recipients=("OPS@example.com", "night@example.com", "boss@example.com")))
    assert sent(graph)["Bcc"] == "boss@example.com"
    assert graph.sent[0].endswith(mail.octets)


async def test_nobody_is_sent_a_mail_that_is_not_for_him(graph: Graph, make: Callable[..., GraphOutgoing]) -> None:
    mail = a_mail(graph, "ops@example.com", "night@example.com")
    with pytest.raises(MessageRejected, match="not for"):
        await make().send(replace(mail, recipients=("ops@example.com",)))
    with pytest.raises(MessageRejected, match="cannot be written"):
        await make().send(replace(mail, recipients=(*mail.recipients, "x@example.com>\r\nBcc: evil@example.com")))
    assert graph.sent == []


async def test_largest_mail_fits_into_a_request_and_a_larger_one_is_not_sent(
    graph: Graph, make: Callable[..., GraphOutgoing]
) -> None:
    mail = a_mail(graph)
    largest = replace(mail, octets=mail.octets + b"x" * (LARGEST - len(mail.octets)))
    await make().send(largest)
    with pytest.raises(NotCarried, match="Graph takes at most") as caught:
        await make().send(replace(mail, octets=largest.octets + b"x"))
    assert (caught.value.lacks, caught.value.limit) == ("SIZE", LARGEST)
    assert len(graph.sent) == 1


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "ErrorInvalidRecipients", MessageRejected),
        (400, "ErrorExceededMessageLimit", RelayUnavailable),
        (413, "RequestBodyTooLarge", NotCarried),
        (400, "ErrorMessageSizeExceeded", NotCarried),
        (401, "InvalidAuthenticationToken", CredentialsRefused),
        (403, "ErrorAccessDenied", CredentialsRefused),
        (403, "ErrorSendAsDenied", CredentialsRefused),
        (404, "ErrorInvalidUser", RelayUnavailable),
        (500, "ErrorInternalServerError", RelayUnavailable),
        (503, "ErrorMailboxStoreUnavailable", RelayUnavailable),
        (504, "", RelayUnavailable),
        (507, "ErrorQuotaExceeded", RelayUnavailable),
        (302, "", RelayUnavailable),
    ],
)
async def test_refusals_are_the_decisions_that_they_are_by_smtp(
    graph: Graph, make: Callable[..., GraphOutgoing], status: int, code: str, error: type[MailpollerError]
) -> None:
    outgoing = make()
    graph.instead = lambda asked: Said(status, {"error": {"code": code, "message": "no"}})
    with pytest.raises(error) as caught:
        await outgoing.send(a_mail(graph))
    assert isinstance(caught.value, error)
    if status not in (401,):
        assert graph.count("sendMail", method="POST") == 1, "it may have been sent"
    graph.instead = None
    await outgoing.send(a_mail(graph))


async def test_throttled_mail_is_sent_when_it_is_time(graph: Graph, make: Callable[..., GraphOutgoing]) -> None:
    graph.throttle(2, retry_after=0.05)
    await make().send(a_mail(graph))
    assert len(graph.sent) == 1


async def test_service_that_is_gone_is_unavailable_and_back_as_soon_as_it_is(
    graph: Graph, make: Callable[..., GraphOutgoing]
) -> None:
    outgoing = make()
    await outgoing.send(a_mail(graph))
    graph.stop()
    with pytest.raises(RelayUnavailable):
        await outgoing.send(a_mail(graph))
    graph.start()
    await outgoing.send(a_mail(graph))
    assert len(graph.sent) == 2


async def test_probe_asks_for_the_right_to_send_and_sends_nothing(
    graph: Graph, make: Callable[..., GraphOutgoing]
) -> None:
    stages = [stage async for stage in make().probe()]
    assert [(stage.name, stage.ok) for stage in stages] == [(one, True) for one in ("dns", "tcp", "login", "right")]
    graph.scopes = {"Mail.ReadWrite"}
    stages = [stage async for stage in make().probe()]
    assert (stages[-1].name, stages[-1].ok) == ("right", False)
    assert "Mail.Send" in stages[-1].advice
    assert graph.sent == []


@pytest.mark.parametrize(
    "octets",
    [plain(subject="short"), plain(subject="eight bits", text="Grüße"), b"Subject: bare\nline ends\n\n\x00\xff"],
)
async def test_quarantined_message_arrives_bit_for_bit(
    graph: Graph, make: Callable[..., GraphOutgoing], tmp_path: Path, octets: bytes
) -> None:
    config = SmtpQueueConfig.model_validate({"type": "smtp", "outgoing": "office", "to": "quarantine@example.com"})
    sink = config.build("quarantine", replace(runtime(tmp_path), outgoings={"office": make()}))
    (answer,) = await sink.deliver([make_delivery(1, octets, reason="poison")])
    assert isinstance(answer, Receipt)
    mail = sent(graph)
    assert mail["Auto-Submitted"] == "auto-generated"
    _, attached = mail.get_payload()  # type: ignore[misc]
    assert attached.get_payload(decode=True) == octets  # type: ignore[union-attr]
    assert attached.get_content_type() == "application/octet-stream"  # type: ignore[union-attr]


async def test_of_a_quarantined_message_that_is_too_large_the_header_is_told(
    graph: Graph, make: Callable[..., GraphOutgoing], tmp_path: Path
) -> None:
    config = SmtpQueueConfig.model_validate({"type": "smtp", "outgoing": "office", "to": "quarantine@example.com"})
    sink = config.build("quarantine", replace(runtime(tmp_path), outgoings={"office": make()}))
    octets = plain(subject="large") + b"x" * 60 * 50_000
    (answer,) = await sink.deliver([make_delivery(1, octets, reason="poison")])
    assert isinstance(answer, Receipt)
    assert "larger than the relay takes" in sent(graph).get_payload()[0].get_payload()  # type: ignore[union-attr, index]


async def test_token_is_never_in_an_error_or_a_log(graph: Graph, make: Callable[..., GraphOutgoing]) -> None:
    outgoing = make()
    shown: list[str] = []
    with capture_logs() as logs:
        await outgoing.send(a_mail(graph))
        (token,) = graph.tokens
        for status in (400, 401, 403, 404, 429, 500):
            told = {"error": {"code": "X", "message": f"Bearer {token} {graph.secret}"}}
            graph.instead = lambda asked, status=status, told=told: Said(status, told, {"Retry-After": "0"})  # type: ignore[misc]
            with pytest.raises((MessageRejected, TransientError, CredentialsRefused)) as caught:
                await outgoing.send(a_mail(graph))
            shown.append(f"{caught.value} {caught.value!r}")
            shown += [str(stage) async for stage in outgoing.probe()]
    assert token.split(".")[2] not in json.dumps([shown, logs], default=str)
