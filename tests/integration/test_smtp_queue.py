"""Quarantine by mail, against real relays: what humans get, and what the engine is told."""

# ruff: noqa: SIM117 - a relay, and in it what speaks to it
from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Event, Receipt, Refusal
from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.core.message import RawMessage
from mailpoller.core.ports import Sink, Unserving
from mailpoller.core.spool import Octets, Spool
from mailpoller.engine.alarm import Alarm, Kind, Policy
from mailpoller.engine.clock import SystemClock
from mailpoller.ledgers.sqlite import SqliteLedgerConfig
from mailpoller.outgoings.smtp import SmtpConfig
from mailpoller.sinks.smtp import SmtpQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery, spooled
from mailpoller.testing.memory_ledger import MemoryLedger
from pace import paced
from servers.ports import free_port
from servers.smtp import CLOSE, STALL, Received, Relay, Scripted, original_in

UMLAUTS = "Subject: Größe\r\n\r\nGrüße\r\n".encode()


@contextlib.asynccontextmanager
async def quarantine(
    port: int, to: object = "q@example.com", state: Path = Path("unused"), **more: object
) -> AsyncIterator[Sink]:
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "tls": "none",
        "sender": "mailpoller@example.com",
        "timeout": "60s",
    }
    spool = Spool(Path("unused"))
    outgoing = SmtpConfig.model_validate({"type": "smtp", **settings, **more}).build(
        "relay", Runtime(SystemClock(), spool, Path("unused"))
    )
    runtime = Runtime(SystemClock(), spool, state, {"relay": outgoing})
    sink = SmtpQueueConfig.model_validate({"type": "smtp", "outgoing": "relay", "to": to}).build("quarantine", runtime)
    try:
        yield sink
    finally:
        await sink.close()
        await outgoing.close()


def order(uid: int = 1, octets: bytes | Octets = UMLAUTS, reason: str = "poison", detail: str = "") -> Delivery:
    return make_delivery(uid, octets, queue="quarantine", reason=reason, detail=detail)


def read(received: Received) -> EmailMessage:
    message = message_from_bytes(received.octets, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def note(received: Received) -> str:
    text = next(read(received).iter_parts()).get_content()
    assert isinstance(text, str)
    return text.replace("\r\n", "\n")


# --- what humans get -------------------------------------------------------------------------------------------------


async def test_the_note_says_why_what_to_do_and_where_it_came_from() -> None:
    async with Relay() as relay, quarantine(relay.port) as sink:
        delivery = order(reason="refused", detail="billing: 550 \r\nInjected: yes")
        (answer,) = await sink.deliver([delivery])
    (received,) = relay.received
    message, text = read(received), note(received)
    assert isinstance(answer, Receipt)
    assert answer.reference == "127.0.0.1: 250 2.0.0 Ok: queued as 000001"
    assert received.sender in ("", "<>")
    assert message["Subject"] == "[mailpoller] quarantined in support: refused"
    assert message["Message-ID"] == f"<{delivery.delivery_id}@example.com>"
    assert message["To"] == "q@example.com"
    assert "A queue refused this message for good.\nbilling: 550 Injected: yes" in text
    assert f"mailpoller redeliver {delivery.mid}" in text
    assert "\nInjected:" not in text
    for fact in (delivery.mid, "INBOX", delivery.raw.octets.digest.hex(), f"{delivery.raw.octets.size} octets"):
        assert fact in text
    assert original_in(received.octets) == UMLAUTS


@pytest.mark.parametrize(
    "reason",
    [
        "poison",
        "unprocessable",
        "refused",
        "auto-reply",
        "oversize",
        "test-message",
        "no-queue",
        "rule-failed",
        "no-invoices",
    ],
)
async def test_every_reason_is_explained(reason: str) -> None:
    async with Relay() as relay, quarantine(relay.port) as sink:
        await sink.deliver([order(reason=reason)])
    assert "What to do: " in note(relay.received[0])


async def test_facts_of_the_event_are_in_the_trace_and_an_unreadable_event_is_no_obstacle() -> None:
    data = b'{"subject": "hello\\nBcc: x@example.com", "rules": ["a", "b"], "defects": ["nul"],\
        "from": [{"name": "Ada", "address": "ada@example.com"}], "message_id": ["odd"]}'
    async with Relay() as relay, quarantine(relay.port) as sink:
        await sink.deliver([replace(order(1), event=Event(b"{}", (data,)))])
        for uid, odd in enumerate((b"", b"[1]", b"7", b"\xff", b"[" * 100_000), start=2):
            (answer,) = await sink.deliver([replace(order(uid), event=Event(b"{}", (odd,)))])
            assert isinstance(answer, Receipt)
    text = note(relay.received[0])
    assert "rules:         a, b\n" in text
    assert "from:          ada@example.com\n" in text
    assert "subject:       hello Bcc: x@example.com\n" in text


async def test_a_truncated_message_says_so() -> None:
    delivery = order(reason="oversize")
    cut = RawMessage(delivery.raw.claim, delivery.raw.octets, truncated=True, announced=90_000_000)
    async with Relay() as relay, quarantine(relay.port) as sink:
        await sink.deliver([replace(delivery, raw=cut)])
    assert f"Only the first {cut.octets.size} octets" in note(relay.received[0])
    assert "of 90000000 (truncated)" in note(relay.received[0])


async def test_a_message_for_an_ordinary_queue_is_attached_too() -> None:
    async with Relay() as relay, quarantine(relay.port) as sink:
        await sink.deliver([order(reason="")])
    assert read(relay.received[0])["Subject"] == "[mailpoller] quarantine: message in support"
    assert original_in(relay.received[0].octets) == UMLAUTS


# --- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets", [UMLAUTS, HOSTILE, b"", b"Subject: unix\n\nx\n", b"x" * 5000], ids=lambda o: o[:9].hex()
)
@pytest.mark.parametrize("eight_bit", [True, False])
async def test_the_original_arrives_bit_for_bit_whatever_the_relay_carries(octets: bytes, eight_bit: bool) -> None:
    async with Relay(eight_bit=eight_bit) as relay, quarantine(relay.port) as sink:
        (answer,) = await sink.deliver([order(octets=octets)])
    assert isinstance(answer, Receipt)
    assert original_in(relay.received[0].octets) == octets
    assert eight_bit or relay.received[0].octets.isascii()


@pytest.mark.parametrize("announced", [True, False])
async def test_of_what_is_too_large_for_the_relay_the_header_is_told_as_the_quarantine_holds_the_whole(
    announced: bool,
) -> None:
    large = b"Subject: large\r\n\r\n" + b"all of it\r\n" * 10_000
    async with Relay(size_limit=20_000, announce_size=announced) as relay, quarantine(relay.port) as sink:
        (answer,) = await sink.deliver([order(octets=large)])
    assert isinstance(answer, Receipt)
    assert "a note with the header alone" in answer.reference
    (received,) = relay.received
    assert "The whole is in quarantine" in note(received)
    attached = list(read(received).iter_parts())[1]
    assert attached.get_content_type() == "text/rfc822-headers"
    assert "all of it" not in received.octets.decode()


async def test_a_relay_too_small_even_for_the_note_refuses_for_good() -> None:
    async with Relay(size_limit=100) as relay, quarantine(relay.port) as sink:
        (answer,) = await sink.deliver([order()])
    assert isinstance(answer, Refusal)
    assert answer.permanent
    assert relay.received == []


async def test_an_ordinary_queue_gets_the_whole_or_nothing() -> None:
    async with Relay(size_limit=2000) as relay, quarantine(relay.port) as sink:
        (answer,) = await sink.deliver([order(octets=UMLAUTS * 200, reason="")])
    assert isinstance(answer, Refusal)
    assert answer.permanent
    assert relay.received == []


async def test_a_large_message_stops_nobody_else(tmp_path: Path) -> None:
    octets = UMLAUTS * 400_000  # 12 MB
    async with Relay() as relay, quarantine(relay.port, timeout="60s") as sink:
        delivering = asyncio.create_task(sink.deliver([order(octets=spooled(octets, tmp_path))]))
        worst = await _worst_pause(delivering)
        assert isinstance((await delivering)[0], Receipt)
    assert worst < paced(0.5), f"the loop stood still for {worst:.2f} s"


async def _worst_pause(task: asyncio.Task[object]) -> float:
    """The most processor time that the loop's thread spent at a stretch: the clock would measure the machine's other
    work too."""
    worst, last = 0.0, time.thread_time()
    while not task.done():
        await asyncio.sleep(0.005)
        now = time.thread_time()
        worst, last = max(worst, now - last), now
    return worst


# --- what the engine is told -----------------------------------------------------------------------------------------


async def test_a_dead_relay_is_known_to_hold_nothing() -> None:
    port = free_port()
    async with quarantine(port) as sink:
        started = time.monotonic()
        with pytest.raises(TransientError, match="refused"):
            await sink.deliver([order(uid) for uid in range(50)])
        with pytest.raises(TransientError, match=r"tcp: .* refused"):
            await sink.check()
    assert time.monotonic() - started < 30


async def test_a_stalled_relay_costs_one_deadline_and_not_one_for_each_message() -> None:
    async with Scripted({"MAIL": STALL}) as relay, quarantine(relay.port, timeout="1s") as sink:
        started = time.monotonic()
        with pytest.raises(TransientError, match="no answer"):
            await sink.deliver([order(uid) for uid in range(50)])
    assert time.monotonic() - started < 30


async def test_a_refused_login_is_temporary_for_the_mail() -> None:
    async with Relay(users={"u": "right"}, login_in_clear=True) as relay:
        async with quarantine(relay.port, username="u", password="wrong") as sink:
            with pytest.raises(TransientError, match="535"):
                await sink.deliver([order(1), order(2)])
            with pytest.raises(TransientError, match=r"login: .*535"):
                await sink.check()


async def test_a_relay_that_refuses_for_good_says_so_for_each() -> None:
    async with Relay() as relay, quarantine(relay.port) as sink:
        relay.refuse = {"END": "554 5.7.1 Spam"}
        answers = await sink.deliver([order(1), order(2)])
    assert [isinstance(one, Refusal) and one.permanent and "554 5.7.1 Spam" in one.reason for one in answers] == [
        True
    ] * 2


async def test_one_message_that_must_wait_stops_no_other() -> None:
    class Picky(Relay):
        async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
            if b": 3\r\n" in envelope.original_content:  # type: ignore[attr-defined]
                return "451 4.7.1 Greylisted"
            return await super().handle_DATA(server, session, envelope)  # type: ignore[arg-type]

    async with Picky() as relay, quarantine(relay.port) as sink:
        answers = await sink.deliver([order(uid, b"Subject: %d\r\n: %d\r\n\r\n" % (uid, uid)) for uid in range(6)])
    assert [isinstance(answer, Receipt) for answer in answers] == [True, True, True, False, True, True]
    assert isinstance(answers[3], Refusal)
    assert not answers[3].permanent
    assert "451 4.7.1 Greylisted" in answers[3].reason


async def test_a_relay_that_dies_half_way_keeps_the_receipts_of_what_it_took() -> None:
    class Mortal(Relay):
        async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
            answer = await super().handle_DATA(server, session, envelope)  # type: ignore[arg-type]
            if len(self.received) == 10:
                self._server.close()
                asyncio.get_running_loop().call_later(0.02, self.hang_up)
                self.refuse = {"MAIL": "421 4.3.2 Going down"}
            return answer

    async with Mortal() as relay, quarantine(relay.port) as sink:
        answers = await sink.deliver([order(uid) for uid in range(40)])
    receipts = [one for one in answers if isinstance(one, Receipt)]
    assert len(receipts) in (10, 11)
    assert {one.delivery_id for one in receipts} <= {
        read(one)["Message-ID"].strip("<>").partition("@")[0] for one in relay.received
    }
    assert all(not one.permanent for one in answers if isinstance(one, Refusal))


async def test_a_relay_too_slow_for_the_batch_keeps_the_receipts_of_what_it_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mailpoller.sinks.smtp.sink._BUDGET_S", 0.1)

    class Slow(Relay):
        async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
            await asyncio.sleep(0.05)
            return await super().handle_DATA(server, session, envelope)  # type: ignore[arg-type]

    async with Slow() as relay, quarantine(relay.port) as sink:
        answers = await sink.deliver([order(uid) for uid in range(40)])
    receipts = [one for one in answers if isinstance(one, Receipt)]
    assert 0 < len(receipts) == len(relay.received) < 10
    assert {one.reason for one in answers if isinstance(one, Refusal)} == {"the relay is too slow for so many at once"}


async def test_at_least_one_recipient_must_have_taken_it() -> None:
    async with Relay() as relay, quarantine(relay.port, to=["a@example.com", "b@example.com"]) as sink:
        relay.refuse = {"RCPT a@example.com": "550 5.1.1 Gone"}
        (first,) = await sink.deliver([order(1)])
        await sink.check()
        relay.refuse = {"RCPT": "550 5.1.1 Gone"}
        with pytest.raises(TransientError, match=r"550 5\.1\.1 Gone"):
            await sink.deliver([order(2)])
        with pytest.raises(TransientError, match=r"550 5\.1\.1 Gone"):
            await sink.check()
    assert isinstance(first, Receipt)
    assert "1 of 2 recipients refused" in first.reference


async def test_a_recipient_that_is_refused_for_good_is_told_of_until_he_has_a_mail_again() -> None:
    both = ["a@example.com", "b@example.org"]
    async with Relay() as relay, quarantine(relay.port, to=both) as sink:
        assert isinstance(sink, Unserving)
        assert sink.unserved() is None, "nobody has tried"
        relay.refuse = {"RCPT b@example.org": "550 5.1.1 Gone"}
        for uid in (1, 2):
            (answer,) = await sink.deliver([order(uid)])
            assert isinstance(answer, Receipt)
            told = sink.unserved()
            assert told is not None
            assert "refuses 1 of 2 recipients for good (at example.org)" in told
            assert told.endswith("550 5.1.1 Gone")
            assert "b@" not in told
        assert [one.recipients for one in relay.received] == [("a@example.com",)] * 2
        (again,) = await sink.deliver([order(2)])
        assert isinstance(again, Receipt)
        assert again.repeated
        assert len(relay.received) == 2, "it is not sent again for him"
        relay.refuse = {}
        await sink.deliver([order(3)])
        assert sink.unserved() == ""


async def test_a_recipient_that_is_put_off_and_refused_then_is_told_of() -> None:
    async with Relay() as relay, quarantine(relay.port, to=["a@example.com", "b@example.org"]) as sink:
        assert isinstance(sink, Unserving)
        relay.refuse = {"RCPT b@example.org": "451 4.7.1 Greylisted"}
        (answer,) = await sink.deliver([order(1)])
        assert isinstance(answer, Refusal)
        assert sink.unserved() is None, "he may have it yet"
        relay.refuse = {"RCPT b@example.org": "550 5.1.1 Gone"}
        (answer,) = await sink.deliver([order(1)])
        assert isinstance(answer, Receipt)
        assert "(at example.org)" in (sink.unserved() or "")


async def test_a_recipient_that_is_put_off_gets_the_mail_alone_and_never_takes_the_queue_down(tmp_path: Path) -> None:
    async with Relay() as relay:
        relay.refuse = {"RCPT b@example.com": "451 4.7.1 Greylisted"}
        for _ in range(3):  # a process each
            async with quarantine(relay.port, to=["a@example.com", "b@example.com"], state=tmp_path) as sink:
                (answer,) = await sink.deliver([order(1)])
            assert isinstance(answer, Refusal)
            assert (answer.permanent, answer.blame) == (False, "queue")
        relay.refuse = {}
        async with quarantine(relay.port, to=["a@example.com", "b@example.com"], state=tmp_path) as sink:
            assert isinstance((await sink.deliver([order(1)]))[0], Receipt)
    assert [one.recipients for one in relay.received] == [("a@example.com",), ("b@example.com",)]
    assert len({read(one)["Message-ID"] for one in relay.received}) == 1
    assert list((tmp_path / "recipients").iterdir()) == []


async def test_who_has_a_mail_is_told_when_it_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "recipients").write_text("in the way")
    async with Relay() as relay, quarantine(relay.port, to=["a@example.com", "b@example.com"], state=tmp_path) as sink:
        relay.refuse = {"RCPT b@example.com": "451 4.7.1 Greylisted"}
        with capture_logs() as logs:
            await sink.deliver([order(1)])
        relay.refuse = {}
        assert isinstance((await sink.deliver([order(1)]))[0], Receipt)
    assert "recipient.unrecorded" in [line["event"] for line in logs]
    assert [one.recipients for one in relay.received] == [("a@example.com",), ("b@example.com",)]


@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("answer", [b"550 5.7.1 no\r\n", b"554 no\r\n", b"451 4.3.0 later\r\n", b"452 4.3.1 full\r\n"])
async def test_a_refusal_before_the_mail_is_the_queues(at: str, answer: bytes) -> None:
    async with Scripted({at: answer}, ("SIZE 1000000", "8BITMIME")) as relay, quarantine(relay.port) as sink:
        for batch in ([order(1)], [order(1), order(2)]):
            with pytest.raises(TransientError, match=answer[:3].decode()):
                await sink.deliver(batch)
    assert relay.mails == []


@pytest.mark.parametrize("stage", ["EHLO", "STARTTLS", "AUTH"])
async def test_a_refusal_before_the_login_is_the_queues(stage: str) -> None:
    offers = ("STARTTLS", "AUTH PLAIN")
    more = {"tls": "starttls"} if stage == "STARTTLS" else {"username": "u", "password": "p"} if stage == "AUTH" else {}
    async with Scripted({stage: b"554 5.7.0 no\r\n"}, offers) as relay, quarantine(relay.port, **more) as sink:
        with pytest.raises(TransientError, match="554"):
            await sink.deliver([order(1)])
        with pytest.raises(TransientError, match="554"):
            await sink.check()


async def test_an_address_of_ours_that_the_relay_cannot_carry_is_the_queues() -> None:
    async with Relay() as relay, quarantine(relay.port, to="jürgen@example.com") as sink:
        with pytest.raises(TransientError, match="SMTPUTF8"):
            await sink.deliver([order(1)])
        with pytest.raises(TransientError, match="SMTPUTF8"):
            await sink.check()


async def test_a_relay_that_puts_off_every_mail_is_a_queue_that_is_down_and_never_counts_against_them() -> None:
    async with Relay() as relay, quarantine(relay.port) as sink:
        relay.refuse = {"END": "451 4.3.0 the filter is away"}
        with pytest.raises(TransientError, match="451"):
            await sink.deliver([order(1), order(2)])
        for _ in range(3):
            (answer,) = await sink.deliver([order(1)])
            assert isinstance(answer, Refusal)
            assert answer.blame == "queue"
        relay.refuse = {}
        assert isinstance((await sink.deliver([order(2)]))[0], Receipt)
        relay.refuse = {"END": "451 4.3.0 I do not like this one"}
        (answer,) = await sink.deliver([order(1)])
        assert isinstance(answer, Refusal)
        assert (answer.blame, answer.permanent) == ("message", False), "others were taken meanwhile"


async def test_a_mail_after_which_the_relay_is_lost_twice_waits_by_itself() -> None:
    async def reader(stream: asyncio.StreamReader) -> bytes:
        mail = await stream.readuntil(b"\r\n.\r\n")
        relay.script["END"] = CLOSE if b"Subject: bad" in mail else b"250 Ok\r\n"
        return mail

    async with Scripted(reader=reader) as relay, quarantine(relay.port) as sink:
        bad, good = order(1, b"Subject: bad\r\n\r\n"), order(2, b"Subject: good\r\n\r\n")
        with pytest.raises(TransientError, match="may have taken"):
            await sink.deliver([bad])
        (again,) = await sink.deliver([bad])
        assert isinstance(again, Refusal)
        answers = await sink.deliver([bad, good])
    assert [isinstance(one, Receipt) for one in answers] == [False, True]
    assert len({line for mail in relay.mails for line in mail.splitlines() if line.startswith(b"Message-ID")}) == 2


async def test_a_check_sends_nothing() -> None:
    async with Relay() as relay, quarantine(relay.port) as sink:
        await sink.check()
        await sink.check()
    assert relay.received == []


# --- configuration ---------------------------------------------------------------------------------------------------


def test_an_outgoing_that_does_not_exist_is_an_error_at_start() -> None:
    config = SmtpQueueConfig.model_validate({"type": "smtp", "outgoing": "relay", "to": "q@example.com"})
    with pytest.raises(ConfigError, match="no outgoing named relay"):
        config.build("quarantine", Runtime(SystemClock(), Spool(Path("unused")), Path("unused")))


@pytest.mark.parametrize("to", [[], "", "nobody", "a@b, c@d", "a@b>\r\nBcc: c@d", ["a@b", "c d@e"]])
def test_wrong_recipients_are_errors(to: object) -> None:
    with pytest.raises(ValueError, match="to"):
        SmtpQueueConfig.model_validate({"type": "smtp", "outgoing": "relay", "to": to})


# --- alerts over a real relay ----------------------------------------------------------------------------------------


class Hurried(SystemClock):
    """Ten minutes in a second."""

    def __init__(self) -> None:
        self.begin = super().now()

    def now(self) -> datetime:
        return self.begin + (super().now() - self.begin) * 600

    def monotonic(self) -> float:
        return (self.now() - self.begin).total_seconds()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 600)


async def test_alerts_wait_for_a_relay_that_is_down_and_reach_it_when_it_is_back() -> None:
    port = free_port()
    outgoing = SmtpConfig.model_validate(
        {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "m@example.com", "timeout": "1s"}
    ).build("relay", Runtime(SystemClock(), Spool(Path("unused")), Path("unused")))
    clock = Hurried()
    alarm = Alarm(MemoryLedger(clock), outgoing, ["ops@example.com"], clock, policy=Policy())
    stop = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(alarm.run(stop))
        for number in range(1000):
            await alarm.raised(Kind.MAILBOX_DOWN, f"box{number}", "connection refused", group="imap.example.com")
        await asyncio.sleep(1.5)
        async with Relay(port=port) as relay:
            while not relay.received:
                await asyncio.sleep(0.01)
            for number in range(1000):
                await alarm.ended(Kind.MAILBOX_DOWN, f"box{number}")
            while len(relay.received) < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            stop.set()
    await outgoing.close()
    assert [str(read(one)["Subject"]) for one in relay.received] == [
        "[mailpoller] 1000 mailboxes on imap.example.com are down",
        "[mailpoller] 1000 mailboxes on imap.example.com are up again",
    ]


async def test_a_crash_loop_on_the_real_ledger_sends_one_mail(tmp_path: Path) -> None:
    clock = SystemClock()
    async with Relay() as relay:
        outgoing = SmtpConfig.model_validate(
            {"type": "smtp", "host": "127.0.0.1", "port": relay.port, "tls": "none", "sender": "m@example.com"}
        ).build("relay", Runtime(clock, Spool(tmp_path), tmp_path))
        for number in range(5):
            ledger = await SqliteLedgerConfig(type="sqlite", path=tmp_path / "ledger.db").open(clock)
            alarm = Alarm(ledger, outgoing, ["ops@example.com"], clock, policy=Policy(window=timedelta(0)))
            await alarm.raised(Kind.CREDENTIALS_REFUSED, "support", "535 no", group="imap.example.com")
            if number == 0:
                await alarm.raised(Kind.POISON_QUARANTINED, "support", "message 1", group="imap.example.com")
            await alarm.step()
            await ledger.close()
        await outgoing.close()
    assert [str(read(one)["Subject"]) for one in relay.received] == [
        "[mailpoller] The login of support on imap.example.com is refused (and 1 more)"
    ]
