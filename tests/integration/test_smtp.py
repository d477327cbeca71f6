"""Outgoing mail against real relays, good and bad ones."""

# ruff: noqa: SIM117 - a relay, and in it what speaks to it
from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailpoller.core.component import Runtime
from mailpoller.core.errors import CredentialsRefused, MailpollerError, MessageRejected, TransientError
from mailpoller.core.ports import Mail, Outgoing, Stage
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.outgoings.smtp import SmtpConfig
from mailpoller.wire.smtp import EnvelopeRefused, NotCarried, NotNow, RelayUnavailable, RelayUncertain, line
from servers.ports import free_port
from servers.smtp import CLOSE, STALL, Certificate, Relay, Scripted, make_certificate
from waiting import until

SECRET = "correct horse battery staple"
MAIL = Mail("", ("a@example.com",), b"Subject: x\r\n\r\nHello.\r\n")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@contextlib.asynccontextmanager
async def outgoing(relay_port: int, **more: object) -> AsyncIterator[Outgoing]:
    settings = {
        "host": "localhost",
        "port": relay_port,
        "tls": "none",
        "sender": "mailpoller@example.com",
        "timeout": "60s",
    }
    config = SmtpConfig.model_validate({"type": "smtp", **settings, **more})
    made = config.build("relay", Runtime(SystemClock(), Spool(Path("unused")), Path("unused")))
    try:
        yield made
    finally:
        await made.close()


def login(**more: object) -> dict[str, object]:
    return {"username": "mailpoller", "password": SECRET, **more}


async def stages(sender: Outgoing) -> list[Stage]:
    return [stage async for stage in sender.probe()]


# --- the four modes --------------------------------------------------------------------------------------------------


async def test_mail_goes_over_starttls_with_a_login(certificate: Certificate) -> None:
    async with Relay(certificate, users={"mailpoller": SECRET}, require_login=True) as relay:
        async with outgoing(relay.port, tls="starttls-required", ca_file=certificate.path, **login()) as sender:
            answer = await sender.send(MAIL)
    (received,) = relay.received
    assert answer == "250 2.0.0 Ok: queued as 000001"
    assert (received.encrypted, received.user, received.octets) == (True, "mailpoller", MAIL.octets)
    assert received.recipients == MAIL.recipients
    assert received.sender in ("", "<>")


async def test_mail_goes_over_implicit_tls_to_a_pinned_certificate(certificate: Certificate) -> None:
    async with Relay(certificate, implicit=True, users={"mailpoller": SECRET}) as relay:
        async with outgoing(relay.port, tls="tls", pin=certificate.fingerprint, **login()) as sender:
            await sender.send(MAIL)
    assert relay.received[0].encrypted


async def test_opportunistic_starttls_is_taken_where_it_is_offered(certificate: Certificate) -> None:
    async with Relay(certificate) as relay:
        async with outgoing(relay.port, tls="starttls", ca_file=certificate.path) as sender:
            await sender.send(MAIL)
    assert relay.received[0].encrypted


async def test_opportunistic_starttls_in_clear_is_warned_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_warned", set())
    async with Relay() as relay, outgoing(relay.port, tls="starttls", keep="0s") as sender:
        with capture_logs() as logs:
            await sender.send(MAIL)
            await until(lambda: not relay.open)
            await sender.send(MAIL)
    assert relay.connections == 2
    assert len(relay.received) == 2
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["relay.unencrypted"]


async def test_a_stripped_starttls_gets_neither_login_nor_mail(certificate: Certificate) -> None:
    async with Scripted(extensions=("AUTH PLAIN LOGIN", "8BITMIME")) as relay:
        for mode in ("starttls-required", "starttls"):
            async with outgoing(relay.port, tls=mode, ca_file=certificate.path, **login()) as sender:
                with pytest.raises(RelayUnavailable, match="no STARTTLS"):
                    await sender.send(MAIL)
    assert set(relay.verbs) <= {"EHLO", "QUIT"}


async def test_what_is_said_in_clear_after_starttls_was_agreed_is_not_believed(certificate: Certificate) -> None:
    # RFC 3207 section 4.2: an answer slipped in before the handshake must not pass for one from inside TLS.
    async with Scripted({"STARTTLS": b"220 Go on\r\n250 AUTH PLAIN\r\n"}, ("STARTTLS",)) as relay:
        async with outgoing(relay.port, tls="starttls-required", ca_file=certificate.path, **login()) as sender:
            with pytest.raises(RelayUnavailable):
                await sender.send(MAIL)
    assert "AUTH" not in relay.verbs


async def test_a_password_goes_in_clear_only_where_the_configuration_says_none() -> None:
    async with Relay(users={"mailpoller": SECRET}, login_in_clear=True) as relay:
        async with outgoing(relay.port, tls="none", **login()) as sender:
            await sender.send(MAIL)
    assert relay.logins == [("mailpoller", SECRET)]


@pytest.mark.parametrize("mode", ["tls", "starttls-required", "starttls"])
async def test_a_certificate_that_is_not_trusted_is_transient_and_gets_no_login(
    certificate: Certificate, tmp_path: Path, mode: str
) -> None:
    elsewhere = make_certificate(tmp_path, host="elsewhere.example.com")
    trouble = {
        "the system's authorities": {},
        "another authority": {"ca_file": elsewhere.path},
        "another pin": {"pin": elsewhere.fingerprint},
    }
    async with Relay(certificate, implicit=mode == "tls", users={"mailpoller": SECRET}) as relay:
        for trust in trouble.values():
            async with outgoing(relay.port, tls=mode, **trust, **login()) as sender:
                with pytest.raises(RelayUnavailable, match="certificate"):
                    await sender.send(MAIL)
    async with Relay(elsewhere, implicit=mode == "tls", users={"mailpoller": SECRET}) as relay:
        async with outgoing(relay.port, tls=mode, ca_file=elsewhere.path, **login()) as sender:
            with pytest.raises(RelayUnavailable, match=r"(?i)hostname mismatch|not valid for"):
                await sender.send(MAIL)
    assert relay.logins == []


# --- logins ----------------------------------------------------------------------------------------------------------


async def test_a_wrong_password_is_tried_once_and_is_a_matter_of_credentials(certificate: Certificate) -> None:
    async with Relay(certificate, users={"mailpoller": "another"}) as relay:
        async with outgoing(relay.port, tls="starttls-required", ca_file=certificate.path, **login()) as sender:
            with pytest.raises(CredentialsRefused, match="535") as caught:
                await sender.send(MAIL)
    assert len(relay.logins) == 1, "every mechanism more is a step towards a locked account"
    assert SECRET not in str(caught.value)


async def test_a_login_that_cannot_be_checked_now_is_transient() -> None:
    async with Scripted({"AUTH": b"454 4.7.0 Temporary authentication failure\r\n"}, ("AUTH PLAIN",)) as relay:
        async with outgoing(relay.port, **login()) as sender:
            with pytest.raises(RelayUnavailable, match=r"454 4\.7\.0"):
                await sender.send(MAIL)


async def test_a_relay_that_repeats_the_password_does_not_bring_it_into_the_log() -> None:
    async with Scripted({"AUTH": f"535 5.7.8 wrong: {SECRET}\r\n".encode()}, ("AUTH PLAIN",)) as relay:
        async with outgoing(relay.port, **login()) as sender:
            with capture_logs() as logs, pytest.raises(CredentialsRefused) as caught:
                await sender.send(MAIL)
    assert SECRET not in f"{caught.value!r} {logs}"
    assert SECRET not in repr(sender.__dict__)


async def test_a_mechanism_that_the_relay_does_not_know_after_all_is_followed_by_the_next() -> None:
    async with Scripted({"AUTH": b"504 5.5.4 unrecognized\r\n"}, ("AUTH PLAIN LOGIN",)) as relay:
        async with outgoing(relay.port, **login()) as sender:
            with pytest.raises(CredentialsRefused, match="504"):
                await sender.send(MAIL)
    assert relay.verbs.count("AUTH") == 2


async def test_a_relay_without_a_login_we_know_refuses_our_credentials() -> None:
    async with Scripted(extensions=("AUTH GSSAPI",)) as relay, outgoing(relay.port, **login()) as sender:
        with pytest.raises(CredentialsRefused, match="no login that we know"):
            await sender.send(MAIL)


async def test_a_missing_password_file_waits_for_a_human(tmp_path: Path) -> None:
    async with Scripted(extensions=("AUTH PLAIN",)) as relay:
        async with outgoing(relay.port, username="u", password=f"file:{tmp_path}/missing") as sender:
            with pytest.raises(CredentialsRefused, match="cannot read the secret"):
                await sender.send(MAIL)


async def test_a_relay_that_wants_a_login_first_says_so_as_credentials() -> None:
    async with Scripted({"MAIL": b"530 5.7.0 Authentication required\r\n"}) as relay, outgoing(relay.port) as sender:
        with pytest.raises(CredentialsRefused, match="530"):
            await sender.send(MAIL)


# --- connections -----------------------------------------------------------------------------------------------------


async def test_a_dead_relay_is_transient_and_quickly_known() -> None:
    started = time.monotonic()
    async with outgoing(free_port()) as sender:
        with pytest.raises(RelayUnavailable, match="refused"):
            await sender.send(MAIL)
    assert time.monotonic() - started < 30


async def test_a_relay_that_is_back_within_a_second_is_not_noticed() -> None:
    port = free_port()
    async with outgoing(port) as sender:
        sending = asyncio.create_task(sender.send(MAIL))
        await asyncio.sleep(0.1)
        async with Relay(port=port) as relay:
            await sending
    assert len(relay.received) == 1


async def test_a_connection_serves_many_mails() -> None:
    async with Relay() as relay, outgoing(relay.port) as sender:
        for _ in range(20):
            await sender.send(MAIL)
    assert (len(relay.received), relay.connections) == (20, 1)


async def test_never_more_connections_than_configured() -> None:
    async with Relay() as relay, outgoing(relay.port, connections=2) as sender:
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(sender.send(MAIL))
        assert len(relay.received) == 50
        assert relay.connections == 2


async def test_a_connection_closed_between_mails_is_not_noticed() -> None:
    async with Relay() as relay, outgoing(relay.port) as sender:
        for wait in (0, 0.02, 0):
            await sender.send(MAIL)
            relay.hang_up()
            await asyncio.sleep(wait)
        await sender.send(MAIL)
    assert len(relay.received) == 4


async def test_a_kept_connection_is_closed_politely_after_its_time() -> None:
    async with Scripted() as relay, outgoing(relay.port, keep="50ms") as sender:
        await sender.send(MAIL)
        await until(lambda: relay.verbs[-1] == "QUIT")
        await sender.send(MAIL)
    assert relay.connections == 2


async def test_closing_says_quit() -> None:
    async with Scripted() as relay:
        async with outgoing(relay.port) as sender:
            await sender.send(MAIL)
        assert relay.verbs[-1] == "QUIT"


@pytest.mark.parametrize("stage", ["GREETING", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "END"])
async def test_a_stall_at_any_stage_ends_with_the_deadline(stage: str) -> None:
    async with Scripted({stage: STALL}, ("AUTH PLAIN",)) as relay:
        async with outgoing(relay.port, timeout="100ms", **login()) as sender:
            started = time.monotonic()
            with pytest.raises(RelayUnavailable, match="no answer within"):
                await sender.send(MAIL)
    assert time.monotonic() - started < 30
    assert relay.connections == 1, "a stall is no fault for a short retry"


@pytest.mark.parametrize("mode", ["tls", "starttls-required"])
async def test_a_stalled_handshake_ends_with_the_deadline(certificate: Certificate, mode: str) -> None:
    script = {"GREETING": STALL} if mode == "tls" else {"STARTTLS": b"220 Go on\r\n"}
    async with Scripted(script, ("STARTTLS",)) as relay:
        async with outgoing(relay.port, tls=mode, timeout="100ms", ca_file=certificate.path) as sender:
            started = time.monotonic()
            with pytest.raises(RelayUnavailable):
                await sender.send(MAIL)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("stage", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA"])
async def test_a_cut_before_the_mail_was_complete_is_tried_again_and_then_transient(stage: str) -> None:
    async with Scripted({stage: CLOSE}) as relay, outgoing(relay.port) as sender:
        with pytest.raises(RelayUnavailable):
            await sender.send(MAIL)
    assert relay.connections == 3


async def test_a_cut_after_the_mail_was_complete_is_not_tried_again_at_once() -> None:
    async with Scripted({"END": CLOSE}) as relay, outgoing(relay.port) as sender:
        with pytest.raises(RelayUnavailable, match="may have taken"):
            await sender.send(MAIL)
    assert (relay.connections, len(relay.mails)) == (1, 1)


async def test_a_relay_that_shuts_down_is_transient() -> None:
    async with Scripted({"MAIL": b"421 4.3.2 Shutting down\r\n"}) as relay, outgoing(relay.port) as sender:
        with pytest.raises(RelayUnavailable, match=r"421 4\.3\.2"):
            await sender.send(MAIL)


async def test_nonsense_is_transient() -> None:
    for answer in (b"hello?\r\n", b"2" * 100_000, b"250-" + b"x" * 500 + b"\r\n250-again" * 20_000):
        async with Scripted({"MAIL": answer}) as relay, outgoing(relay.port, timeout="100ms") as sender:
            with pytest.raises(TransientError):
                await sender.send(MAIL)


async def test_a_cancelled_mail_never_leaves_half_of_itself_to_the_next() -> None:
    async with Relay() as relay, outgoing(relay.port, connections=1) as sender:
        for number in range(30):
            sending = asyncio.create_task(sender.send(MAIL))
            await asyncio.sleep(0.0002 * number)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            assert await sender.send(Mail("", ("b@example.com",), b"Subject: whole\r\n\r\n"))
    whole = [one for one in relay.received if one.recipients == ("b@example.com",)]
    assert [one.octets for one in whole] == [b"Subject: whole\r\n\r\n"] * 30
    assert {one.octets for one in relay.received} <= {MAIL.octets, b"Subject: whole\r\n\r\n"}


async def test_helo_serves_where_ehlo_is_not_understood() -> None:
    async with (
        Scripted({"EHLO": b"502 5.5.1 what?\r\n"}) as relay,
        outgoing(relay.port, helo="poll.example.com") as sender,
    ):
        await sender.send(MAIL)
    assert relay.lines[1] == b"HELO poll.example.com"


async def test_we_greet_with_a_name_or_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, greeting in (("short", b"EHLO [127.0.0.1]"), ("poll.example.com", b"EHLO poll.example.com")):
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        async with Scripted() as relay, outgoing(relay.port) as sender:
            await sender.send(MAIL)
        assert relay.lines[0] == greeting


async def test_a_host_that_does_not_exist_is_transient() -> None:
    async with outgoing(25, host="no-such-host.invalid", timeout="2s") as sender:
        with pytest.raises(RelayUnavailable, match=r"no-such-host\.invalid"):
            await sender.send(MAIL)


# --- decisions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "END"])
@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        (b"550 5.7.1 Not wanted\r\n", MessageRejected),
        (b"554 Transaction failed\r\n", MessageRejected),
        (b"451 4.3.0 Try later\r\n", TransientError),
        (b"452 4.3.1 Insufficient system storage\r\n", TransientError),
        (b"550-5.7.1 Not\r\n550 5.7.1 wanted\r\n", MessageRejected),
    ],
)
async def test_a_refusal_is_a_decision_in_the_relays_own_words(
    stage: str, answer: bytes, decision: type[MailpollerError]
) -> None:
    async with Scripted({stage: answer}) as relay, outgoing(relay.port) as sender:
        for _ in range(2):
            with pytest.raises(decision, match=answer[:3].decode()) as caught:
                await sender.send(MAIL)
    assert not isinstance(caught.value, RelayUnavailable), "it is about this mail, not about the relay"
    assert relay.connections == 1, "the connection is still good"


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
async def test_a_refusal_counts_though_the_relay_hangs_up_after_it(stage: str) -> None:
    script = {stage: b"550 5.7.1 Blocked\r\n", "RSET": CLOSE}
    async with Scripted(script) as relay, outgoing(relay.port) as sender:
        with pytest.raises(MessageRejected, match=r"550 5\.7\.1 Blocked"):
            await sender.send(MAIL)
    assert relay.connections == 1


async def test_a_mail_to_nobody_is_refused() -> None:
    async with Scripted() as relay, outgoing(relay.port) as sender:
        with pytest.raises(MessageRejected, match="no recipient"):
            await sender.send(Mail("", (), MAIL.octets))


async def test_the_whole_mail_is_refused_only_if_all_recipients_are() -> None:
    mail = Mail("", ("a@example.com", "b@example.com", "c@example.com"), MAIL.octets)
    async with Relay() as relay, outgoing(relay.port) as sender:
        relay.refuse = {"RCPT a@example.com": "550 5.1.1 No such user", "RCPT c@example.com": "452 4.2.2 Full"}
        with capture_logs() as logs:
            answer = await sender.send(mail)
        assert "2 of 3 recipients refused: 550 5.1.1 No such user" in answer
        assert [line["refused"] for line in logs if line["event"] == "recipient.refused"] == [2]
        assert relay.received[0].recipients == ("b@example.com",)
        relay.refuse["RCPT b@example.com"] = "550 5.1.1 No such user"
        with pytest.raises(TransientError, match="452"):
            await sender.send(mail)
        relay.refuse = {"RCPT": "550 5.1.1 No such user"}
        with pytest.raises(MessageRejected, match=r"5\.1\.1"):
            await sender.send(mail)
    assert len(relay.received) == 1


@pytest.mark.parametrize(
    ("stage", "answer", "decision"),
    [
        ("MAIL", b"550 5.1.7 no null sender\r\n", EnvelopeRefused),
        ("MAIL", b"501 no\r\n", EnvelopeRefused),
        ("MAIL", b"552 5.2.2 over quota\r\n", EnvelopeRefused),
        ("MAIL", b"552 too large\r\n", NotCarried),
        ("MAIL", b"552 5.3.4 too large\r\n", NotCarried),
        ("MAIL", b"554 5.6.7 address\r\n", NotCarried),
        ("MAIL", b"451 4.3.0 later\r\n", NotNow),
        ("MAIL", b"530 5.7.0 log in\r\n", CredentialsRefused),
        ("MAIL", b"354 what?\r\n", RelayUnavailable),
        ("MAIL", b"421 4.3.2 closing\r\n", RelayUnavailable),
        ("RCPT", b"550 5.1.1 unknown\r\n", EnvelopeRefused),
        ("RCPT", b"550 5.2.3 too large for this one\r\n", NotCarried),
        ("RCPT", b"552 mailbox full\r\n", EnvelopeRefused),
        ("RCPT", b"552 too large\r\n", NotCarried),
        ("RCPT", b"452 4.2.2 full\r\n", NotNow),
        ("RCPT", b"421 4.3.2 closing\r\n", RelayUnavailable),
        ("DATA", b"554 no valid recipients\r\n", EnvelopeRefused),
        ("DATA", b"250 what?\r\n", RelayUnavailable),
        ("END", b"554 5.2.252 SendAsDenied\r\n", EnvelopeRefused),
        ("END", b"554 5.1.7 a bad address in From\r\n", MessageRejected),
        ("END", b"354 what?\r\n", TransientError),
        ("END", b"421 4.3.2 closing\r\n", RelayUnavailable),
        ("END", CLOSE, RelayUncertain),
    ],
)
async def test_a_refusal_is_the_mails_only_if_it_saw_it_or_says_so(
    stage: str, answer: bytes, decision: type[MailpollerError]
) -> None:
    async with Scripted({stage: answer}, ("SIZE 1000000",)) as relay, outgoing(relay.port) as sender:
        with pytest.raises(MailpollerError) as caught:
            await sender.send(MAIL)
    assert type(caught.value) is decision or (decision is RelayUnavailable and isinstance(caught.value, decision))


async def test_any_answer_of_the_second_class_takes_the_mail() -> None:
    script = {"MAIL": b"251 Ok\r\n", "RCPT": b"259 Ok\r\n", "END": b"200 Ok\r\n"}
    async with Scripted(script) as relay, outgoing(relay.port) as sender:
        assert await sender.send(MAIL) == "200 Ok"


async def test_a_refusal_that_does_not_say_whose_it_is_is_asked_about() -> None:
    class ByParameter(Relay):
        async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
            if any(one.startswith("SIZE=") and int(one[5:]) > 1000 for one in options):
                return "550 5.7.1 against our policy"
            return await super().handle_MAIL(server, session, envelope, address, options)

    async with ByParameter(size_limit=1_000_000) as relay, outgoing(relay.port) as sender:
        with pytest.raises(NotCarried, match=r"550 5\.7\.1"):
            await sender.send(Mail("", ("a@example.com",), b"x" * 70 + b"\r\n" * 1000))
        await sender.send(MAIL)
        relay.refuse = {"MAIL": "550 5.7.1 against our policy"}
        with pytest.raises(EnvelopeRefused):
            await sender.send(MAIL)
    assert relay.connections == 1


async def test_more_recipients_than_the_relay_takes_at_once_get_transactions_of_their_own() -> None:
    class Few(Relay):
        async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
            if len(envelope.rcpt_tos) == 2:
                return "452 4.5.3 Too many recipients"
            return await super().handle_RCPT(server, session, envelope, address, options)

    to = tuple(f"{name}@example.com" for name in "abcde")
    async with Few() as relay, outgoing(relay.port) as sender:
        answer = await sender.send(Mail("", to, MAIL.octets))
        assert (answer.later, answer.never) == ((), {})  # type: ignore[attr-defined]
        assert [stage.name for stage in [one async for one in sender.inquire(to)]][-5:] == ["recipient"] * 5  # type: ignore[attr-defined]
    assert tuple(one for mail in relay.received for one in mail.recipients) == to
    assert len(relay.received) == 3


async def test_what_a_cut_between_two_transactions_leaves_is_put_off_and_nothing_is_sent_twice() -> None:
    class Few(Relay):
        async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
            if envelope.rcpt_tos:
                return "452 4.5.3 Too many recipients"
            if self.received:
                self.hang_up()
            return await super().handle_RCPT(server, session, envelope, address, options)

    async with Few() as relay, outgoing(relay.port) as sender:
        answer = await sender.send(Mail("", ("a@example.com", "b@example.com"), MAIL.octets))
    assert answer.later == ("b@example.com",)  # type: ignore[attr-defined]
    assert [one.recipients for one in relay.received] == [("a@example.com",)]


async def test_asking_goes_as_far_as_rcpt_and_no_further() -> None:
    async with Scripted({"RCPT": b"550 5.1.1 unknown\r\n"}) as relay, outgoing(relay.port) as sender:
        found = [one async for one in sender.inquire(["a@example.com", "b@example.com"])]  # type: ignore[attr-defined]
    assert [(one.name, one.ok) for one in found[-3:]] == [("sender", True), ("recipient", False), ("recipient", False)]
    assert relay.verbs == ["EHLO", "MAIL", "RCPT", "RCPT", "RSET", "QUIT"]
    assert all(one.advice for one in found if not one.ok)


async def test_the_configured_sender_stands_in_where_the_null_sender_is_not_wanted() -> None:
    async with Relay() as relay, outgoing(relay.port, null_sender=False) as sender:
        await sender.send(MAIL)
    assert relay.received[0].sender == "mailpoller@example.com"


async def test_eight_bit_mail_says_so_and_is_not_carried_by_a_relay_that_cannot() -> None:
    mail = Mail("", ("a@example.com",), "Subject: x\r\n\r\nGrüße\r\n".encode())
    async with Relay() as relay, outgoing(relay.port) as sender:
        await sender.send(mail)
    assert "BODY=8BITMIME" in relay.received[0].options
    assert relay.received[0].octets == mail.octets
    async with Relay(eight_bit=False) as relay, outgoing(relay.port) as sender:
        with pytest.raises(NotCarried) as caught:
            await sender.send(mail)
        assert caught.value.lacks == "8BITMIME"
        await sender.send(MAIL)
    assert len(relay.received) == 1


async def test_addresses_outside_ascii_need_smtputf8() -> None:
    mail = Mail("", ("jürgen@example.com",), MAIL.octets)
    async with Relay(utf8=True) as relay, outgoing(relay.port) as sender:
        await sender.send(mail)
    assert relay.received[0].recipients == ("jürgen@example.com",)
    async with Relay() as relay, outgoing(relay.port) as sender:
        with pytest.raises(MessageRejected, match="SMTPUTF8"):
            await sender.send(mail)


@pytest.mark.parametrize("address", ["a@b> SIZE=1", "a@b\r\nDATA", "a b@c"])
async def test_an_address_cannot_smuggle_a_command(address: str) -> None:
    async with Scripted() as relay, outgoing(relay.port) as sender:
        with pytest.raises(MessageRejected):
            await sender.send(Mail("", (address,), MAIL.octets))
        await sender.send(MAIL)
    assert len(relay.mails) == 1


async def test_a_mail_larger_than_the_relay_says_is_not_begun() -> None:
    mail = Mail("", ("a@example.com",), b"Subject: x\r\n\r\n" + b"a" * 70 + b"\r\n" * 10_000)
    async with Relay(size_limit=10_000) as relay, outgoing(relay.port) as sender:
        with pytest.raises(NotCarried) as caught:
            await sender.send(mail)
        assert (caught.value.lacks, caught.value.limit) == ("SIZE", 10_000)
    async with Relay(size_limit=10_000, announce_size=False) as relay, outgoing(relay.port) as sender:
        with pytest.raises(NotCarried) as caught:
            await sender.send(mail)
        assert (caught.value.lacks, caught.value.limit) == ("SIZE", 0)
    async with Relay() as relay, outgoing(relay.port, max_size="1KB") as sender:
        with pytest.raises(NotCarried, match="max_size"):
            await sender.send(mail)
    assert relay.connections == 0


async def test_a_relay_that_refuses_half_way_is_understood() -> None:
    large = Mail("", ("a@example.com",), (b"x" * 70 + b"\r\n") * 400_000)
    refusal = b"354 Go on\r\n552 5.3.4 Too large for us\r\n"
    async with Scripted({"DATA": refusal}, read_mail=False) as relay, outgoing(relay.port) as sender:
        with pytest.raises(NotCarried, match=r"5\.3\.4"):
            await sender.send(large)


async def test_a_large_mail_on_a_slow_line_takes_longer_than_the_timeout() -> None:
    mail = Mail("", ("a@example.com",), (b"x" * 70 + b"\r\n") * 30_000)

    async def slowly(reader: asyncio.StreamReader) -> bytes:
        taken = b""
        while not taken.endswith(b"\r\n.\r\n"):
            taken += await reader.read(65_536)
            await asyncio.sleep(0.02)
        return taken

    async with Scripted(reader=slowly, buffer=16_384) as relay, outgoing(relay.port, timeout="200ms") as sender:
        started = time.monotonic()
        await sender.send(mail)
    assert time.monotonic() - started > 0.4
    assert relay.mails[0] == mail.octets + b".\r\n"


@pytest.mark.parametrize(
    "octets",
    [
        b".\r\n",
        b"..\r\n.\r\n",
        b"Subject: x\r\n\r\n.\r\n.a\r\n..\r\nno end",
        b"x" * 65_535 + b"\n" + b".dot at the border of two pieces\r\n",
        b"\r\n" * 32_768 + b".dot at the border of two pieces\r\n",
        b"",
        b"a\n.\nQUIT\r\n",
    ],
)
async def test_dots_at_the_start_of_lines_arrive_as_they_were(octets: bytes) -> None:
    async with Scripted() as relay, outgoing(relay.port) as sender:
        await sender.send(Mail("", ("a@example.com",), octets))
        await sender.send(MAIL)
    lines = relay.mails[0].removesuffix(b".\r\n").replace(b"\n..", b"\n.")
    lines = lines[1:] if lines.startswith(b"..") else lines
    assert lines in (octets, octets + b"\r\n")
    assert b"\n.\n" not in relay.mails[0], "a lenient relay must find no end of mail in the middle"
    assert len(relay.mails) == 2


# --- the probe -------------------------------------------------------------------------------------------------------


async def test_a_probe_shows_every_stage_and_sends_nothing(certificate: Certificate) -> None:
    async with Relay(certificate, users={"mailpoller": SECRET}) as relay:
        async with outgoing(relay.port, tls="starttls-required", ca_file=certificate.path, **login()) as sender:
            found = await stages(sender)
    assert [stage.name for stage in found] == ["dns", "tcp", "greeting", "tls", "login"]
    assert all(stage.ok and not stage.advice and stage.elapsed > timedelta(0) for stage in found)
    assert relay.received == []


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("dns", {"host": "no-such-host.invalid", "timeout": "2s"}),
        ("tcp", {"port": 1}),
        ("tls", {"tls": "tls"}),
        ("tls", {"tls": "starttls-required"}),
        ("login", {"username": "mailpoller", "password": "wrong"}),
    ],
)
async def test_a_probe_ends_at_the_stage_that_fails_with_advice(stage: str, settings: dict[str, object]) -> None:
    async with Relay(users={"mailpoller": SECRET}, login_in_clear=True) as relay:
        async with outgoing(relay.port, **settings) as sender:
            found = await stages(sender)
    assert (found[-1].name, found[-1].ok) == (stage, False)
    assert found[-1].detail
    assert found[-1].advice
    assert all(one.ok for one in found[:-1])
