"""What became of mail that was handed in is told to its intake, and a bounce is tied to the mail it is about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from clocks import SkippingClock
from mailpoller.config import ConfigErrors, load
from mailpoller.core.classification import Bounce, BouncedRecipient
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import OutboxEvent, OutboxMail, OutboxRecipient
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.engine.alarm import Alarm
from mailpoller.engine.outgoing_events import OutgoingEvents, _delivery
from mailpoller.engine.queues import Queue
from mailpoller.engine.senders import Intake, Senders
from mailpoller.ledgers.sqlite import outbox
from mailpoller.ledgers.sqlite.values import micros
from mailpoller.testing.memory_ledger import MemoryLedger

SCHEMA = json.loads(resources.files("mailpoller.mail").joinpath("outgoing-event.schema.json").read_text("utf-8"))
INTAKES = {
    "desk": Intake("desk", ("root",), events="told"),
    "shop": Intake("shop", ("root",), events="other"),
    "quiet": Intake("quiet", ("root",)),
}


class FakeQueue:
    """Holds what it is brought, unless it is told to do otherwise."""

    def __init__(self) -> None:
        self.held: list[Delivery] = []
        self.takes_mail = True
        self.trouble: list[str] = []

    async def deliver(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        if self.trouble:
            word = self.trouble.pop(0)
            if word == "down":
                raise TransientError("down")
            return [Refusal(one.delivery_id, "no", permanent=word == "never") for one in batch]
        self.held += batch
        return [SealedReceipt(one.delivery_id) for one in batch]

    @property
    def events(self) -> list[dict[str, Any]]:
        found = [json.loads(one.event.structured()) for one in self.held]
        for one in found:
            Draft202012Validator(SCHEMA).validate(one)
        return found

    @property
    def said(self) -> list[tuple[str, list[str]]]:
        return [
            (one["type"].rpartition(".")[2], [to["address"] for to in one["data"].get("recipients", ())])
            for one in self.events
        ]


class Site:
    def __init__(self) -> None:
        self.clock = SkippingClock()
        self.ledger = MemoryLedger(self.clock)
        self.queues = {"told": FakeQueue(), "other": FakeQueue()}
        self.alarm = Alarm(self.ledger, None, (), self.clock)
        self.events = self.teller(self.ledger)

    def teller(self, ledger: MemoryLedger) -> OutgoingEvents:
        senders = Senders({}, {}, {}, INTAKES)
        return OutgoingEvents(ledger, lambda name: cast("Queue | None", self.queues.get(name)), senders, self.alarm)

    @property
    def queue(self) -> FakeQueue:
        return self.queues["told"]

    async def mail(self, *recipients: str, intake: str = "desk", id: str = "a1") -> OutboxMail:
        now = self.clock.now()
        to = tuple(map(OutboxRecipient, recipients or ("ada@c.example",)))
        mail = OutboxMail(
            id, intake, f"order-{id}", b"c" * 32, "support", "help", "mid", f"<{id}@x.example>", "support@x.example",
            10, b"d" * 32, now, now, now, recipients=to,
        )  # fmt: skip
        return await self.ledger.outbox_accept(mail)

    async def taken(self, *recipients: str, **more: Any) -> OutboxMail:
        mail = await self.mail(*recipients, **more)
        said = {one.address: ("accepted", "250 Ok") for one in mail.recipients}
        await self.ledger.outbox_answered(mail.id, cast("Any", said), None)
        return mail

    async def states(self, id: str = "a1") -> list[str]:
        found = await self.ledger.outbox_mail(id)
        assert found is not None
        return [one.state for one in found.recipients]

    def bounce(self, bounce: Bounce) -> None:
        outbox.bounced(self.ledger.store.connection, bounce, micros(self.clock.now()))


@pytest.fixture
def site() -> Site:
    return Site()


async def test_each_change_is_told_once_in_its_order(site: Site) -> None:
    await site.mail("ada@c.example", "bob@c.example", "eve@c.example")
    first: Any = {
        "ada@c.example": ("accepted", "250 Ok"),
        "bob@c.example": ("deferred", "451 later"),
        "eve@c.example": ("refused", "550 no"),
    }
    await site.ledger.outbox_answered("a1", first, site.clock.now(), tell=True)
    await site.events.step()
    await site.ledger.outbox_answered("a1", {"bob@c.example": ("accepted", "250 Ok")}, None, tell=True)
    await site.events.step()
    await site.events.step()
    assert site.queue.said == [
        ("sent", ["ada@c.example"]),
        ("deferred", ["bob@c.example"]),
        ("failed", ["eve@c.example"]),
        ("sent", ["bob@c.example"]),
    ]
    data = site.queue.events[0]["data"]
    assert (data["key"], data["mid"], data["attempt"]) == ("order-a1", "mid", 1)
    assert data["recipients"][0]["words"] == "250 Ok"


async def test_what_an_operator_cancels_is_told(site: Site) -> None:
    await site.mail("ada@c.example", "bob@c.example")
    await site.ledger.outbox_answered("a1", {"ada@c.example": ("accepted", "250 Ok")}, site.clock.now(), tell=True)
    assert await site.ledger.outbox_cancel("a1") == 1
    assert await site.ledger.outbox_cancel("a1") == 0
    await site.events.step()
    assert site.queue.said == [("sent", ["ada@c.example"]), ("failed", ["bob@c.example"])]


@pytest.mark.parametrize("trouble", ["down", "later"])
async def test_a_queue_that_takes_nothing_holds_up_no_other_and_gets_it_later_by_the_same_id(
    site: Site, trouble: str
) -> None:
    for id, intake in (("a1", "desk"), ("b2", "shop")):
        await site.mail(id=id, intake=intake)
        await site.ledger.outbox_answered(id, {"ada@c.example": ("accepted", "250 Ok")}, None, tell=True)
    site.queue.trouble = [trouble]
    await site.events.step()
    assert (site.queue.said, len(site.queues["other"].held)) == ([], 1)
    await site.teller(site.ledger.restarted()).step()
    assert len(site.queue.held) == 1


async def test_killed_before_it_is_recorded_the_repeat_is_known_by_its_id(site: Site) -> None:
    await site.mail()
    await site.ledger.outbox_answered("a1", {"ada@c.example": ("accepted", "250 Ok")}, None, tell=True)
    site.ledger.fail("outbox_told")
    with pytest.raises(TransientError):
        await site.events.step()
    await site.teller(site.ledger.restarted()).step()
    first, second = site.queue.held
    assert first.delivery_id == second.delivery_id and first.event.structured() == second.event.structured()


async def test_what_a_ledger_that_was_put_back_tells_under_the_same_number_is_no_repeat(site: Site) -> None:
    await site.mail()
    before = OutboxEvent(
        7, "deferred", (await site.ledger.outbox_list(limit=1))[0], 1, site.clock.now(), {"ada@c.example": "450 Later"}
    )
    first, again = (_delivery(one, "told") for one in (before, replace(before)))
    other, later = (
        _delivery(one, "told")
        for one in (replace(before, kind="sent"), replace(before, at=before.at + timedelta(seconds=1)))
    )
    assert first.delivery_id == again.delivery_id
    assert len({one.delivery_id for one in (first, other, later)}) == 3


async def test_what_a_queue_never_takes_stops_nothing_and_is_told_to_people(site: Site) -> None:
    await site.mail()
    await site.ledger.outbox_answered("a1", {"ada@c.example": ("accepted", "250 Ok")}, None, tell=True)
    site.queue.trouble = ["never"]
    await site.events.step()
    assert await site.ledger.outbox_events(limit=9) == []


async def test_mail_is_known_until_what_became_of_it_is_told(site: Site) -> None:
    await site.mail()
    await site.ledger.outbox_answered("a1", {"ada@c.example": ("accepted", "250 Ok")}, None, tell=True)
    await site.clock.sleep(1)
    assert await site.ledger.outbox_forget(site.clock.now()) == 0
    await site.events.step()
    assert await site.ledger.outbox_forget(site.clock.now()) == 1


# --- bounces ---------------------------------------------------------------------------------------------------------
def failed(address: str, action: str = "failed", words: str = "550 no such user") -> BouncedRecipient:
    return BouncedRecipient(address, action=action, diagnostic=words)


@pytest.mark.parametrize(
    ("recipients", "bounce", "states"),
    [
        (("a@c.example",), Bounce((failed("A@C.example"),), "<a1@x.example>"), ["bounced"]),
        (("a@c.example",), Bounce((failed("forwarded@d.example"),), "<a1@x.example>"), ["bounced"]),
        (("a@c.example",), Bounce((), "<a1@x.example>"), ["bounced"]),
        (("a@c.example",), Bounce((failed("a@c.example", "delayed"),), "<a1@x.example>"), ["accepted"]),
        (("a@c.example",), Bounce((failed("a@c.example"),), "<other@x.example>"), ["accepted"]),
        (("a@c.example",), Bounce((failed("a@c.example"),), ""), ["accepted"]),
        (("a@c.example", "b@c.example"), Bounce((failed("b@c.example"),), "<a1@x.example>"), ["accepted", "bounced"]),
        (("a@c.example", "b@c.example"), Bounce((failed("x@d.example"),), "<a1@x.example>"), ["accepted", "accepted"]),
        (("a@c.example", "b@c.example"), Bounce((), "<a1@x.example>", "a@c.example"), ["bounced", "accepted"]),
    ],
)
async def test_a_bounce_is_tied_by_our_message_id_to_whom_it_names(
    site: Site, recipients: tuple[str, ...], bounce: Bounce, states: list[str]
) -> None:
    await site.taken(*recipients)
    site.bounce(bounce)
    assert await site.states() == states
    await site.events.step()
    lost = [address for address, state in zip(recipients, states, strict=True) if state == "bounced"]
    assert site.queue.said == ([("bounced", lost)] if lost else [])
    site.bounce(bounce)  # the same once more says nothing new
    await site.events.step()
    assert len(site.queue.held) == bool(lost)


@pytest.mark.parametrize("message_id", ["", "<theirs@gateway.example>", "<a1@x.example>"])
async def test_a_bounce_is_tied_by_what_the_relay_was_told_to_call_the_mail(site: Site, message_id: str) -> None:
    await site.taken("a@c.example", "b@c.example")
    moved = BouncedRecipient("elsewhere@d.example", "b@c.example", "failed", diagnostic="550 gone")
    site.bounce(Bounce((moved,), message_id, envelope_id="a1"))
    assert await site.states() == ["accepted", "bounced"]
    site.bounce(Bounce((failed("a@c.example"),), envelope_id=""))
    site.bounce(Bounce((failed("a@c.example"),), envelope_id="a"))
    assert await site.states() == ["accepted", "bounced"]


async def test_who_has_not_got_it_yet_cannot_bounce(site: Site) -> None:
    await site.mail("a@c.example")
    site.bounce(Bounce((failed("a@c.example"),), "<a1@x.example>"))
    assert await site.states() == ["waiting"]


async def test_a_bounce_that_no_intake_wants_stands_in_errors_of_both(site: Site) -> None:
    await site.taken("a@c.example", intake="quiet")
    site.bounce(Bounce((failed("a@c.example"),), "<a1@x.example>"))
    await site.events.step()
    assert await site.ledger.outbox_events(limit=9) == []
    await site.alarm.step()
    for subject in ("support", "help"):
        (fault,) = await site.ledger.faults(subject)
        assert (fault.event, "550 no such user" in fault.detail, fault.mid) == ("outbox.bounced", True, "mid")


def test_a_queue_of_mail_cannot_hold_events(tmp_path: Path) -> None:
    file = tmp_path / "mailpoller.yaml"
    text = (
        "queues: {q: {type: maildir, path: /var/q}, e: {type: jsonl, path: /var/e}}\n"
        "outgoing: {relay: {type: smtp, host: r.example, sender: s@x.example}}\n"
        "mailboxes: {a: {type: imap, host: h.example, username: u, password: p, default_queue: q}}\n"
        "intakes: {desk: {type: socket, departments: [root], events: e}}\n"
    )
    file.write_text(text)
    assert load(file)
    file.write_text(text.replace("events: e", "events: q"))
    with pytest.raises(ConfigErrors, match="cannot hold events"):
        load(file)
