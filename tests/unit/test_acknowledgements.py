"""Acknowledgements: who is told automatically that his mail has come, in which words, and how often (RFC 3834)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message as Parsed
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from clocks import SkippingClock
from mailpoller.config import ConfigErrors, load
from mailpoller.core.acknowledge_config import AcknowledgeConfig
from mailpoller.core.acknowledgement import ACKNOWLEDGEMENT, Acknowledgement
from mailpoller.core.errors import EntryRefused, LedgerUnavailable, TransientError
from mailpoller.core.identity import BACKFILLED, next_generation
from mailpoller.core.message import Account, Claim, Folder, MessageRef, RawMessage
from mailpoller.core.ports import Mail, OutboxBacklog, OutboxMail, Said
from mailpoller.core.sender import Sender
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.spool import Octets
from mailpoller.core.verdict import Deliver
from mailpoller.engine.acknowledger import ALL, KEPT, Acknowledged, Acknowledger
from mailpoller.engine.acknowledging import Acknowledging
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.outbox_room import OutboxRoom
from mailpoller.engine.postman import Postman
from mailpoller.engine.senders import Answering, Identity, Senders
from mailpoller.ledgers.sqlite import acknowledgements
from mailpoller.ledgers.sqlite.values import micros
from mailpoller.mail.acknowledgement import acknowledgement_octets, acknowledgement_of, objection
from mailpoller.mail.parser import parse
from mailpoller.sources.maildir.config import MaildirSettings
from mailpoller.storage.octet_files import OctetFiles
from mailpoller.testing.memory_ledger import MemoryLedger
from odd_mail.reading import NOW, read

OWN = frozenset(("support@x.example",))
SENDER = Sender("support@x.example", "Support")
HEAD = (
    "Return-Path: <ada@customer.example>",
    "Received: from mx.customer.example by mx.x.example; Sat, 14 Mar 2026 09:26:52 +0000",
    "From: Ada <ada@customer.example>",
    "To: support@x.example",
    "Subject: Where is my parcel?",
    "Message-ID: <1@customer.example>",
)


def mail(*lines: str, instead: str = "") -> bytes:
    """A person's mail to us, with further lines; ``instead``: the field that is left out for them."""
    kept = [line for line in HEAD if not instead or not line.startswith(f"{instead}:")]
    return "\r\n".join([*kept, *lines, "", "text", ""]).encode()


def test_a_persons_mail_to_us_may_be_acknowledged() -> None:
    assert objection(read(mail()), OWN) == ""


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (mail(instead="Return-Path"), "no-return-path"),
        (mail("Return-Path: <victim@customer.example>", instead="Return-Path"), "no-return-path"),
        (mail(instead="Received"), "no-return-path"),
        (b"Return-Path: <>\r\n" + mail(instead="Return-Path"), "null-return-path"),
        (mail("Auto-Submitted: auto-replied"), "automatic"),
        (mail("Auto-Submitted: auto-generated; x=y"), "automatic"),
        (mail("Precedence: bulk"), "automatic"),
        (mail("Precedence: LIST "), "automatic"),
        (mail("Precedence: junk"), "automatic"),
        (mail("List-Id: <l.customer.example>"), "automatic"),
        (mail("List-Help: <mailto:l@customer.example>"), "automatic"),
        (mail("List-Unsubscribe: <mailto:l@customer.example>"), "automatic"),
        (mail("X-Auto-Response-Suppress: OOF, AutoReply"), "automatic"),
        (mail("X-Autoreply: yes"), "automatic"),
        (mail("X-Mailpoller-Loop: 1"), "automatic"),
        (mail("Content-Type: multipart/report; report-type=delivery-status; boundary=b"), "automatic"),
        (mail("Content-Type: text/calendar; method=REQUEST"), "automatic"),
        (mail("Subject: Automatic reply: holiday", instead="Subject"), "automatic"),
        (b"Return-Path: <MAILER-DAEMON@c.example>\r\n" + mail(instead="Return-Path"), "automatic"),
        (mail("To: ada@customer.example", instead="To"), "not-addressed"),
        (mail(instead="To"), "not-addressed"),
        *(
            (f"Return-Path: <{path}>\r\n".encode() + mail(instead="Return-Path"), "sender-is-a-program")
            for path in (
                "owner-talk@customer.example", "talk-request@customer.example",
                "talk-bounces@customer.example", "bounce+17@customer.example", "noreply@customer.example",
                "postmaster@customer.example", "LISTSERV@customer.example", "majordomo@customer.example",
            )
        ),
        (b"Return-Path: <Support@X.example>\r\n" + mail(instead="Return-Path"), "own-address"),
    ],
)  # fmt: skip
def test_nobody_is_told_of(octets: bytes, reason: str) -> None:
    assert objection(read(octets), OWN) == reason


@pytest.mark.parametrize(
    "line",
    ["To: Support+orders@X.example", "Cc: a@b.example, support@x.example", "Resent-To: support@x.example"],
)
def test_mail_is_to_us_if_it_names_us(line: str) -> None:
    assert objection(read(mail(line, instead="To")), OWN) == ""


@pytest.mark.parametrize("line", ["Auto-Submitted: no", "Precedence: normal", "X-Auto-Response-Suppress: None"])
def test_what_every_person_may_have_is_no_mark_of_a_machine(line: str) -> None:
    assert objection(read(mail(line)), OWN) == ""


def test_a_machine_that_a_rule_calls_a_person_is_not_answered() -> None:
    message = read(mail("X-Bugzilla-Reason: AssignedTo"))
    message.reclassify("human")
    assert objection(message, OWN) == "automatic"


@pytest.mark.parametrize(
    ("generation", "told"),
    [(0, True), (BACKFILLED, False), (next_generation(0), False)],
    ids=["first", "backfilled", "redelivered"],  # the last is another number each time
)
def test_mail_that_is_backfilled_or_brought_again_is_never_acknowledged(generation: int, told: bool) -> None:
    config = MaildirSettings.model_validate(
        {"type": "maildir", "path": "/nowhere", "address": "support@x.example", "acknowledge": {"text": "We have it."}}
    )
    message = read(mail())
    claim = replace(message.raw.claim, generation=generation)
    message = parse(replace(message.raw, claim=claim))
    clock = SkippingClock()
    clock.seconds = (NOW - clock.now()).total_seconds()
    one = Acknowledging(config, clock).owed(message, Deliver(("support",)), repeated=False)
    assert (one is not None) is told


@pytest.mark.parametrize(
    ("received", "told"),
    [(timedelta(0), True), (timedelta(hours=23), True), (timedelta(hours=25), False), (timedelta(days=900), False)],
)
def test_old_mail_that_is_put_into_the_mailbox_today_is_told_nothing(received: timedelta, told: bool) -> None:
    clock = SkippingClock()
    line = f"Received: from mx.customer.example by mx.x.example; {format_datetime(clock.now() - received)}"
    octets = Octets.of(f"{HEAD[0]}\r\n{line}\r\n".encode() + mail(instead="Return-Path"))
    claim = Claim(MessageRef(Folder("support", "INBOX", "1"), "1"), "mid")
    message = parse(RawMessage(claim, octets, received=clock.now()))
    config = {"type": "x", "address": "support@x.example", "acknowledge": {"text": "We have it."}}
    one = Acknowledging(SourceConfig.model_validate(config), clock)
    assert (one.owed(message, Deliver(("q",)), repeated=False) is not None) is told


# --- the mail --------------------------------------------------------------------------------------------------------
def owed(*lines: str, instead: str = "", rule: str = "") -> Acknowledgement:
    return acknowledgement_of(read(mail(*lines, instead=instead)), OWN, NOW, rule=rule, conversation="mid")


def words(**said: Any) -> AcknowledgeConfig:
    return AcknowledgeConfig.model_validate({"text": "We have it, {name}.", **said})


def made(one: Acknowledgement, config: AcknowledgeConfig) -> Parsed:
    chosen = config.in_language(one.language)
    address, octets = acknowledgement_octets(one, chosen, SENDER, own_id="<own@x.example>", at=NOW, wish=None)
    assert address == one.address
    return message_from_bytes(octets)


def test_it_is_marked_as_rfc_3834_says_and_stays_in_the_thread() -> None:
    message = made(owed("References: <a@b> <c@d>"), words())
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["X-Auto-Response-Suppress"] == "All" and message["X-Mailpoller-Loop"]
    assert message["To"] == "ada@customer.example" and message["From"] == "Support\r\n <support@x.example>"
    assert message["Subject"] == "Auto: Where is my parcel?"
    assert message["In-Reply-To"] == "<1@customer.example>"
    assert message["References"].split() == ["<a@b>", "<c@d>", "<1@customer.example>"]
    assert message.get_payload() == "We have it, Ada.\r\n"


def test_it_is_none_that_would_be_acknowledged_again() -> None:
    _, octets = acknowledgement_octets(owed(), words(), SENDER, own_id="<own@x.example>", at=NOW, wish=None)
    back = f"Return-Path: <other@x.example>\r\n{HEAD[1]}\r\n".encode() + octets
    assert objection(read(back), frozenset(("ada@customer.example",))) == "automatic"


def test_what_a_stranger_wrote_begins_no_field_no_markup_and_is_filled_in_once() -> None:
    one = owed(
        "Subject: =?utf-8?q?a=0D=0ABcc=3A_b=40c.example=0D=0A=0D=0A<b>{mid}</b>?=",
        "From: =?utf-8?q?=7Bsubject=7D<script>?= <ada@customer.example>",
        instead="Subject",
    )
    one = replace(one, name="{subject}<script>")
    message = made(one, words(subject="{{Auto}} {subject}", html="<p>{name} {subject}</p>"))
    text, html = (part.get_payload() for part in message.get_payload())  # type: ignore[union-attr]
    assert message["Bcc"] is None
    assert str(make_header(decode_header(message["Subject"]))) == "{Auto} a Bcc: b@c.example <b>{mid}</b>"
    assert "{subject}<script>" in str(text)
    assert "<p>{subject}&lt;script&gt; a Bcc: b@c.example &lt;b&gt;{mid}&lt;/b&gt;</p>" in str(html)


def test_long_words_of_a_stranger_are_cut() -> None:
    message = made(owed(f"Subject: {'x' * 5000}", instead="Subject"), words(text="{subject}" * 50))
    assert len(str(message["Subject"])) < 500 and len(str(message.get_payload())) < 12_000


@pytest.mark.parametrize(
    ("said", "expected"),
    [("de-AT", "Wir haben es."), ("DE, en", "Wir haben es."), ("pt-BR", "Recebemos."), ("pt", "We"), ("", "We")],
)
def test_the_language_is_the_mails_own(said: str, expected: str) -> None:
    config = words(languages={"de": {"text": "Wir haben es."}, "pt-br": {"text": "Recebemos."}})
    assert str(made(owed(f"Content-Language: {said}"), config).get_payload()).startswith(expected)


@pytest.mark.parametrize("path", ["a b@c.example", "a@b@c.example", "a@b..c", "@c.example"])
def test_an_envelope_sender_that_is_no_address_is_told_nothing(path: str) -> None:
    with pytest.raises(EntryRefused):
        made(replace(owed(), address=path), words())


@pytest.mark.parametrize(
    "block",
    [
        {}, {"text": ""}, {"text": "{sender}"}, {"text": "{"}, {"text": "{subject"}, {"text": "x", "subject": "a\nb"},
        {"text": "{subject.__class__}"}, {"text": "{0}"}, {"text": "x", "every": "1m"}, {"text": "x", "max_age": "30d"},
        {"text": "x", "languages": {"de": {}}}, {"text": "x", "languages": {"german!": {"text": "x"}}},
        {"by_rule": [{"rule": "r"}]},
    ],
)  # fmt: skip
def test_words_that_cannot_be_meant_are_refused(block: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AcknowledgeConfig.model_validate(block)


def test_rules_choose_the_words_or_that_there_are_none() -> None:
    config = words(by_rule=[{"rule": "night", "text": "Tomorrow."}], unless_rules=["spam"])
    assert config.chosen(()) is config
    found = config.chosen(("x", "night"))
    assert found is not None and found.text == "Tomorrow."
    assert config.chosen(("night", "spam")) is None
    assert AcknowledgeConfig.model_validate({"by_rule": [{"rule": "night", "text": "x"}]}).chosen(()) is None


# --- what is owed is sent --------------------------------------------------------------------------------------------
class FakeOutgoing:
    host = "relay.test"
    sender = "system@x.example"

    def __init__(self) -> None:
        self.mails: list[Mail] = []

    async def post(self, mail: Mail) -> dict[str, Said]:
        self.mails.append(mail)
        return {one: Said("accepted", "250 Ok") for one in mail.recipients}

    async def send(self, mail: Mail) -> str:
        raise AssertionError("it can post")

    def probe(self) -> Any: ...
    async def close(self) -> None: ...


SUPPORT = Identity("support", SENDER, departments=frozenset(("root",)), null_sender=True)


def senders(identity: Identity = SUPPORT) -> Senders:
    return Senders({"support": identity}, {"support": Answering("support", ("root",))}, {"root": "support"}, {})


class Site:
    """An acknowledger on a ledger in memory, which the mailbox ``support`` has acknowledged by for an hour."""

    def __init__(self, path: Path, ledger: MemoryLedger | None = None, **config: Any) -> None:
        self.path = path
        self.clock = SkippingClock() if ledger is None else ledger._clock
        self.ledger = ledger or MemoryLedger(self.clock)
        self.files = OctetFiles(path / "outbox")
        self.alarm = Alarm(self.ledger, None, (), self.clock)
        self.heeded = Acknowledged({"support": words(**config)}, frozenset(("support@x.example", "info@x.example")))
        self.room = OutboxRoom()
        self.acknowledger = Acknowledger(
            self.ledger, self.files, senders(), self.heeded, self.alarm, self.clock, self.room, lambda _: None
        )

    async def begin(self) -> None:
        await self.acknowledger.step()
        await self.clock.sleep(3600)

    def owe(self, number: int, address: str = "", **more: Any) -> None:
        one = Acknowledgement(
            f"mid-{number}", "support", address or f"ada{number}@customer.example", self.clock.now(), name="Ada", **more
        )
        acknowledgements.owe(self.ledger.store.connection, [one], micros(self.clock.now()))

    async def mails(self) -> Sequence[OutboxMail]:
        return await self.ledger.outbox_list(all=True, limit=1000)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_what_is_owed_goes_to_the_return_path_with_the_null_sender(site: Site) -> None:
    await site.begin()
    site.owe(1)
    await site.acknowledger.step()
    (one,) = await site.mails()
    assert (one.sender, one.open, one.intake, one.mid) == ("", ("ada1@customer.example",), ACKNOWLEDGEMENT, "mid-1")
    assert b"We have it, Ada." in site.files.read(one.digest)
    await site.acknowledger.step()
    assert len(await site.mails()) == 1


async def test_one_sender_is_told_once_in_a_period_whatever_he_writes(site: Site) -> None:
    await site.begin()
    for number, address in enumerate(["ada@c.example", "ADA@c.example", "bob@c.example"]):
        site.owe(number, address)
    await site.acknowledger.step()
    assert [one.open[0] for one in await site.mails()] == ["ada@c.example", "bob@c.example"]
    await site.clock.sleep(7 * 86400 + 1)
    site.owe(9, "Ada@c.example")
    await site.acknowledger.step()
    assert len(await site.mails()) == 3


async def test_who_was_told_is_known_when_the_mailbox_has_another_name(site: Site) -> None:
    await site.begin()
    site.owe(1, "ada@c.example")
    await site.acknowledger.step()
    await site.ledger.open_folder(Folder("help", "INBOX", "1"), Account("imap", "h", "u"), formerly="support")
    since = site.clock.now() - timedelta(hours=2)
    assert await site.ledger.acknowledged("help", "ada@c.example", since)


async def test_who_was_told_is_forgotten_while_the_service_goes_on(site: Site) -> None:
    await site.begin()
    for number in range(1001):
        site.owe(number, "ada@c.example")
    await site.acknowledger.step()
    await site.clock.sleep(KEPT.total_seconds() + 1)
    await site.acknowledger.step()
    assert site.ledger.store.connection.execute("SELECT count(*) FROM acknowledgement").fetchone() == (0,)


async def test_an_outcome_that_is_recorded_again_owes_nothing_more(site: Site) -> None:
    await site.begin()
    site.owe(1)
    await site.acknowledger.step()
    await site.clock.sleep(8 * 86400)
    site.owe(1)
    await site.acknowledger.step()
    assert len(await site.mails()) == 1


async def test_mail_from_before_it_was_switched_on_is_told_nothing_also_after_a_pause(site: Site) -> None:
    site.owe(1)
    await site.clock.sleep(10)
    await site.acknowledger.step()
    assert await site.mails() == []
    site.acknowledger.heeded = Acknowledged()
    await site.acknowledger.step()
    await site.clock.sleep(10)
    site.owe(2)
    await site.clock.sleep(10)
    site.acknowledger.heeded = replace(site.heeded)
    await site.acknowledger.step()
    assert await site.mails() == []


async def test_a_restart_is_no_pause(site: Site) -> None:
    await site.begin()
    site.owe(1)
    await site.clock.sleep(10)
    await Site(site.path, site.ledger.restarted()).acknowledger.step()
    assert len(await site.mails()) == 1


async def test_what_waited_too_long_is_told_nothing(site: Site) -> None:
    await site.begin()
    site.owe(1)
    await site.clock.sleep(24 * 3600)
    await site.acknowledger.step()
    assert await site.mails() == [] and await site.ledger.acknowledgements(limit=9) == []


@pytest.mark.parametrize("address", ["info@x.example", "Support@x.example", "info+tag@x.example", "no address"])
async def test_nobody_of_ours_is_told_anything(site: Site, address: str) -> None:
    await site.begin()
    site.owe(1, address)
    await site.acknowledger.step()
    assert await site.mails() == []


@pytest.mark.parametrize(
    "identity", [replace(SUPPORT, null_sender=False), replace(SUPPORT, held="another environment")]
)
async def test_who_cannot_send_it_rightly_sends_nothing(site: Site, identity: Identity) -> None:
    await site.begin()
    site.owe(1)
    site.acknowledger.senders = senders(identity)
    await site.acknowledger.step()
    assert await site.mails() == [] and await site.ledger.acknowledgements(limit=9) == []


async def test_without_a_null_sender_it_leaves_by_the_one_that_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path, sender="void@x.example")
    site.acknowledger.senders = senders(replace(SUPPORT, null_sender=False))
    await site.begin()
    site.owe(1)
    await site.acknowledger.step()
    assert [one.sender for one in await site.mails()] == ["void@x.example"]


async def test_too_many_end_it_with_one_alarm_until_it_is_quiet_again(site: Site) -> None:
    site.acknowledger.heeded = replace(site.heeded, max_per_hour=10)
    await site.begin()
    for number in range(25):
        site.owe(number)
    await site.acknowledger.step()
    assert len(await site.mails()) == 10
    assert await site.alarm.standing(Kind.ACKNOWLEDGEMENTS_STOPPED) == [ALL]
    assert await site.ledger.acknowledgements(limit=9) == []  # what was too much is not made up for later
    again = Site(site.path, site.ledger.restarted())
    again.acknowledger.heeded = replace(again.heeded, max_per_hour=10)
    again.owe(100)
    await again.acknowledger.step()
    assert len(await site.mails()) == 10
    await site.clock.sleep(3601)
    await again.acknowledger.step()
    assert await again.alarm.standing(Kind.ACKNOWLEDGEMENTS_STOPPED) == []
    again.owe(101)
    await again.acknowledger.step()
    assert len(await site.mails()) == 11


@pytest.mark.parametrize("after", [False, True])
async def test_a_commit_that_fails_sends_one_and_leaves_no_file(site: Site, after: bool) -> None:
    await site.begin()
    site.owe(1)
    site.ledger.fail("acknowledge", after=after)
    with pytest.raises(LedgerUnavailable):
        await site.acknowledger.step()
    await site.acknowledger.step()
    (one,) = await site.mails()
    assert site.files.names() == [one.digest] and site.room.octets == one.size


@pytest.mark.parametrize("after", [False, True])
async def test_killed_at_the_commit_one_is_sent(site: Site, after: bool) -> None:
    await site.begin()
    site.owe(1)
    site.ledger.fail("acknowledge", after=after)
    with pytest.raises(LedgerUnavailable):
        await site.acknowledger.step()
    again = Site(site.path, site.ledger.restarted())
    await again.acknowledger.step()
    assert len(await site.mails()) == 1


async def test_without_room_it_stays_owed_and_the_bound_holds(site: Site) -> None:
    await site.begin()
    site.owe(1)
    site.room.count({"gone": OutboxBacklog(1, 1_000_000_000, site.clock.now())})
    with pytest.raises(TransientError):
        await site.acknowledger.step()
    assert site.files.names() == [] and len(await site.ledger.acknowledgements(limit=9)) == 1
    site.room.count({})
    await site.acknowledger.step()
    assert len(await site.mails()) == 1


async def test_a_dead_relay_of_one_mailbox_holds_up_none_of_another(site: Site) -> None:
    site.acknowledger.senders = Senders(
        {"support": SUPPORT, "sales": replace(SUPPORT, name="sales")},
        {"support": Answering("support", ("root",)), "sales": Answering("sales", ("root",))},
    )
    site.acknowledger.heeded = Acknowledged({"support": words(), "sales": words()})
    await site.begin()
    site.room.count({"support": OutboxBacklog(1, 600_000_000, site.clock.now())})
    for number in range(60):
        site.owe(number)
    one = Acknowledgement("mid-sales", "sales", "eve@customer.example", site.clock.now())
    acknowledgements.owe(site.ledger.store.connection, [one], micros(site.clock.now()))
    with pytest.raises(TransientError, match="support"):
        await site.acknowledger.step()
    assert [mail.mailbox for mail in await site.mails()] == ["sales"]
    assert len(await site.ledger.acknowledgements(limit=99)) == 60


async def test_one_that_cannot_be_made_stops_no_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.begin()
    site.owe(1, "broken@c.example")
    site.owe(2)
    real = acknowledgement_octets

    def broken(one: Acknowledgement, *args: Any, **more: Any) -> tuple[str, bytes]:
        if one.mid == "mid-1":
            raise RuntimeError("a bug")
        return real(one, *args, **more)

    monkeypatch.setattr("mailpoller.engine.acknowledger.acknowledgement_octets", broken)
    await site.acknowledger.step()
    assert [one.mid for one in await site.mails()] == ["mid-2"]


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOSPC, "No space left on device")])
async def test_what_the_machine_lacks_costs_nobody_his_answer(
    site: Site, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.begin()
    site.owe(1)

    def broken(*_: Any, **__: Any) -> tuple[str, bytes]:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("mailpoller.engine.acknowledger.acknowledgement_octets", broken)
        with pytest.raises(TransientError, match="this machine"):
            await site.acknowledger.step()
    await site.acknowledger.step()
    assert [one.mid for one in await site.mails()] == ["mid-1"]


def test_want_of_memory_is_not_taken_for_a_bug_by_who_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    config = MaildirSettings.model_validate(
        {"type": "maildir", "path": "/nowhere", "address": "support@x.example", "acknowledge": {"text": "We have it."}}
    )

    def broken(*_: Any) -> str:
        raise MemoryError

    monkeypatch.setattr("mailpoller.engine.acknowledging.objection", broken)
    clock = SkippingClock()
    clock.seconds = (NOW - clock.now()).total_seconds()
    with pytest.raises(MemoryError):
        Acknowledging(config, clock).owed(read(mail()), Deliver(("support",)), repeated=False)


async def test_one_that_waited_too_long_in_the_outbox_is_not_sent_any_more(site: Site) -> None:
    await site.begin()
    site.owe(1)
    await site.acknowledger.step()
    (one,) = await site.mails()
    await site.clock.sleep(25 * 3600)
    outgoing = FakeOutgoing()
    postman = Postman(
        site.ledger, site.files, {"support": outgoing}, senders(), site.alarm, site.clock, site.room
    )  # fmt: skip
    await postman_sends(postman, site, one.id)
    assert outgoing.mails == []


async def postman_sends(postman: Postman, site: Site, id: str) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(postman.run(stop))
    async with asyncio.timeout(5):
        while (found := await site.ledger.outbox_mail(id)) is None or found.due_at is not None:
            await asyncio.sleep(0.005)
    stop.set()
    await task


async def test_who_was_erased_is_told_nothing_and_is_not_known_any_more(site: Site) -> None:
    await site.begin()
    site.owe(1, "ada@c.example")
    site.owe(2, "bob@c.example")
    acknowledgements.erase(site.ledger.store.connection, ["mid-2"], "Ada@c.example")
    await site.acknowledger.step()
    assert await site.mails() == []


# --- the configuration -----------------------------------------------------------------------------------------------
OFFICE = "type: graph, auth: {type: oauth2, provider: microsoft, grant: client_credentials, tenant: t.example, "
OFFICE += "client_id: 11111111-2222-3333-4444-555555555555, client_secret: s}"


@pytest.mark.parametrize(
    ("outgoing", "mailbox", "said"),
    [
        ("type: smtp, host: r.example, sender: s@x.example", "address: s@x.example", ""),
        ("type: smtp, host: r.example, sender: s@x.example", "", "acknowledge: which mail is written to this mailbox"),
        (
            "type: smtp, host: r.example, sender: s@x.example, null_sender: false",
            "address: s@x.example",
            "acknowledge.sender: the outgoing relay cannot send with the null sender",
        ),
        (
            "type: smtp, host: r.example, sender: s@x.example, null_sender: false",
            "address: s@x.example, acknowledge: {text: x, sender: S@x.example}",
            "acknowledge.sender: the mailbox a is polled under this address",
        ),
        (
            "type: smtp, host: r.example, sender: s@x.example, null_sender: false",
            "address: s@x.example, acknowledge: {text: x, sender: void@x.example}",
            "",
        ),
        (
            f"{OFFICE}, sender: o@x.example",
            "address: s@x.example, acknowledge: {text: x, sender: void@x.example}",
            "acknowledge.sender: all mail of the outgoing relay is o@x.example's",
        ),
        (
            f"{OFFICE}, sender: o@x.example",
            "address: s@x.example, acknowledge: {text: x, sender: o@x.example}",
            "",
        ),
        (
            "type: smtp, host: r.example, sender: s@x.example",
            "address: s@x.example, acknowledge: {text: x, unless_rules: [r]}",
            "acknowledge.unless_rules: this mailbox does not ask that rule",
        ),
        (
            "type: smtp, host: r.example, sender: s@x.example",
            "address: s@x.example, acknowledge: {text: x, by_rule: [{rule: none, text: y}]}",
            "acknowledge.by_rule",
        ),
    ],
)
def test_what_could_begin_a_loop_is_refused_by_check(tmp_path: Path, outgoing: str, mailbox: str, said: str) -> None:
    block = mailbox if "acknowledge" in mailbox else f"acknowledge: {{text: x}}{mailbox and ', '}{mailbox}"
    file = tmp_path / "mailpoller.yaml"
    file.write_text(
        "queues: {q: {type: maildir, path: /var/q}}\nrules: [{name: r, when: {subject: x}, then: {tags: t}}]\n"
        f"outgoing:\n  relay: {{{outgoing}}}\n"
        f"mailboxes:\n  a: {{type: imap, host: h.example, username: u, password: p, default_queue: q, {block}}}\n"
    )
    try:
        load(file)
        found = []
    except ConfigErrors as errors:
        found = [f"{one.path}: {one.message}" for one in errors.problems if one.severity == "error"]
    assert len(found) == bool(said), found
    assert not said or found[0].startswith(f"mailboxes.a.{said}")


def test_without_an_outgoing_nobody_can_be_told(tmp_path: Path) -> None:
    file = tmp_path / "mailpoller.yaml"
    file.write_text(
        "queues: {q: {type: maildir, path: /var/q}}\nmailboxes:\n  a: {type: imap, host: h.example, username: u, "
        "password: p, default_queue: q, address: a@x.example, acknowledge: {text: x}}\n"
    )
    with pytest.raises(ConfigErrors, match="no outgoing"):
        load(file)
