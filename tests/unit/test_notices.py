"""Notices: owed once a message is held, brought however long it takes, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.attributes import Attributes
from mailpoller.core.delivery import Delivery, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.identity import mint_delivery_id
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.quarantined import Quarantined, Selection
from mailpoller.core.spool import Octets
from mailpoller.core.verdict import Quarantine
from mailpoller.engine.availability import State
from mailpoller.engine.notices import AT_ONCE, Notices, Unknown
from mailpoller.engine.queues import Queue
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.parser import parse, unparsed
from mailpoller.quarantine import Store, StoreConfig
from mailpoller.testing.builders import auto_reply, plain
from mailpoller.testing.fake_sink import FakeSink
from unit.sink_runtime import HandClock, make_runtime


def quarantined(
    uid: int, octets: bytes, mailbox: str = "support", reason: str = "auto-reply", *, read: bool = True
) -> Delivery:
    """A delivery to the quarantine, as the engine makes it."""
    ref = MessageRef(Folder(mailbox, "INBOX", "epoch"), str(uid), len(octets))
    raw = RawMessage(Claim(ref, f"mid-{mailbox}-{uid}"), Octets.of(octets), announced=len(octets))
    message = parse(raw) if read else unparsed(raw)
    verdict = Quarantine(reason, "because", ("a rule",))
    delivery_id = mint_delivery_id(raw.claim.mid, "quarantine", 0, message.identity or b"")
    event = EventRenderer(message, verdict=verdict, source=f"mailpoller/{mailbox}", now=HandClock().now()).render(
        queue="quarantine", delivery_id=delivery_id, payload="summary"
    )
    attributes = Attributes(reason=reason, detail="because")
    return Delivery(delivery_id, raw.claim.mid, "quarantine", event, raw, True, attributes)


class Site:
    def __init__(self, path: Path) -> None:
        self.clock = HandClock()
        (path / "spool").mkdir()
        runtime = make_runtime(path, self.clock)
        self.store: Store = StoreConfig.model_validate({"path": path / "q", "min_free": 0}).build("q", runtime)
        self.sinks: dict[str, FakeSink] = {}
        self.queues: dict[str, Queue | None] = {}
        self.refused: list[tuple[Quarantined, str]] = []
        self.taken: list[str] = []
        self.notices = Notices(
            self.store,
            self.place,
            self.clock,
            refused=lambda held, why: self.refused.append((held, why)),
            taken=self.taken.append,
        )

    def queue(self, mailbox: str, payload: Any = "summary") -> FakeSink:
        sink = self.sinks[mailbox] = FakeSink()
        self.queues[mailbox] = Queue(
            f"notices of {mailbox}",
            sink,
            payload=payload,
            octets_wanted=False,
            retry_interval=timedelta(seconds=1),
            clock=self.clock,
        )
        return sink

    def place(self, mailbox: str) -> Queue | None:
        if mailbox not in self.queues:
            raise Unknown
        return self.queues[mailbox]

    async def owed(self) -> list[Quarantined]:
        return list(await self.store.owed(self.clock.now() + timedelta(days=9), but=[], limit=1000))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.store.close()


async def test_a_notice_is_what_the_quarantine_itself_was_given_with_the_octets(site: Site) -> None:
    sink = site.queue("support", "parsed")
    mail = auto_reply(subject="robot")
    delivery = quarantined(1, mail)
    await site.store.deliver([delivery])
    await site.notices.bring()
    (held,) = sink.held.values()
    told = json.loads(held.event)
    assert (held.octets, held.reason, held.detail) == (mail, "auto-reply", "because")
    assert (told["deliveryid"], told["queue"]) == (delivery.delivery_id, "quarantine")
    assert told["type"] == "org.mailpoller.message.quarantined"
    assert (told["data"]["rules"], told["data"]["uid"], told["data"]["subject"]) == (["a rule"], "1", "robot")
    assert told["data"]["text"]
    assert site.taken == ["support"] and await site.owed() == []


async def test_a_dead_relay_is_asked_again_and_nothing_is_told_twice(site: Site) -> None:
    sink = site.queue("support")
    sink.faults.fail("deliver", TransientError("dead"), times=1)
    await site.store.deliver([quarantined(uid, auto_reply()) for uid in range(1, 4)])
    assert await site.notices.bring()
    assert len(await site.owed()) == 3 and len(sink.held) == 0
    queue = site.queues["support"]
    assert queue is not None
    queue.availability.state = State.PROBING
    assert not await site.notices.bring()
    assert len(sink.held) == 3 and await site.owed() == []
    await site.notices.bring()
    assert sink.repeats == 0


async def test_one_mailboxs_dead_relay_keeps_no_other_waiting_however_much_it_owes(site: Site) -> None:
    site.queue("a").faults.fail("deliver", TransientError("dead"), times=1000)
    sink = site.queue("b")
    await site.store.deliver([quarantined(uid, plain(), "a") for uid in range(3 * AT_ONCE)])
    site.clock.advance(timedelta(seconds=1))
    await site.store.deliver([quarantined(1, plain(), "b")])
    await site.notices.bring()
    assert len(sink.held) == 1
    assert sum(site.sinks["a"].batches) <= AT_ONCE
    assert len(await site.owed()) == 3 * AT_ONCE


async def test_who_is_not_known_yet_is_waited_for_and_where_nobody_is_told_nothing_is_owed(site: Site) -> None:
    site.queues["nobody"] = None
    await site.store.deliver([quarantined(1, plain(), "later"), quarantined(1, plain(), "nobody")])
    assert await site.notices.bring()
    assert [held.mailbox for held in await site.owed()] == ["later"]
    sink = site.queue("later")
    await site.notices.bring()
    assert len(sink.held) == 1 and await site.owed() == []


async def test_what_is_refused_for_good_is_told_once_and_stays_held(site: Site) -> None:
    sink = site.queue("support")
    sink.doubt = lambda delivery: Refusal(delivery.delivery_id, "550 no such user", permanent=True)
    await site.store.deliver([quarantined(1, plain())])
    await site.notices.bring()
    await site.notices.bring()
    assert [why for _, why in site.refused] == ["550 no such user"]
    assert await site.owed() == []
    (held,) = await site.store.find(Selection(), limit=9)
    assert held.notice_trouble == "550 no such user"


async def test_what_is_refused_for_the_queues_trouble_is_owed_for_ever(site: Site) -> None:
    sink = site.queue("support")
    sink.doubt = lambda delivery: Refusal(delivery.delivery_id, "452 full", blame="queue")
    await site.store.deliver([quarantined(1, plain())])
    for _ in range(30):
        await site.notices.bring()
        site.clock.advance(timedelta(hours=5))
    assert len(await site.owed()) == 1 and not site.refused
    assert sum(sink.batches) == 30


async def test_what_was_never_understood_is_not_parsed_for_its_notice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = site.queue("support", "parsed")
    await site.store.deliver([quarantined(1, plain(), reason="poison", read=False)])
    monkeypatch.setattr("mailpoller.engine.notices.parse", lambda raw: pytest.fail("parsed"))
    await site.notices.bring()
    (held,) = sink.held.values()
    assert held.octets == plain() and json.loads(held.event)["data"]["defects"] == ["unparsed"]


async def test_our_own_mail_that_came_back_is_held_and_told_to_nobody(site: Site) -> None:
    sink = site.queue("support")
    await site.store.deliver([quarantined(1, plain(headers={"X-Mailpoller-Loop": "alert"}), reason="own-mail")])
    await site.notices.bring()
    assert not sink.held
    assert len(await site.store.find(Selection(), limit=9)) == 1


async def test_a_queue_that_leaves_is_asked_once_and_its_notices_stay_owed(site: Site) -> None:
    site.queue("support")
    queue = site.queues["support"]
    assert queue is not None
    await queue.retire(timedelta(0))
    await site.store.deliver([quarantined(uid, plain()) for uid in (1, 2)])
    async with asyncio.timeout(5):
        assert await site.notices.bring()
    assert len(await site.owed()) == 2


async def test_a_damaged_message_holds_up_no_other_notice(site: Site) -> None:
    sink = site.queue("support")
    await site.store.deliver([quarantined(uid, plain(subject=f"n {uid}")) for uid in (1, 2)])
    first = sorted((site.store.path / "held").iterdir())[0]
    first.write_bytes(first.read_bytes()[:-1])
    await site.notices.bring()
    assert len(sink.held) == 1
    assert len(await site.owed()) == 1


async def test_a_message_that_upsets_our_code_is_told_of_and_holds_up_no_other_notice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fragile(raw: RawMessage) -> Any:
        if b"n 1" in bytes(raw.octets.view()):
            raise LookupError("a bug")
        return parse(raw)

    sink = site.queue("support")
    await site.store.deliver([quarantined(uid, plain(subject=f"n {uid}")) for uid in (1, 2)])
    monkeypatch.setattr("mailpoller.engine.notices.parse", fragile)
    await site.notices.bring()
    defects = [json.loads(held.event)["data"]["defects"] for held in sink.held.values()]
    assert sorted(defects) == [[], ["unparsed"]] and await site.owed() == []


async def test_what_is_held_is_told_at_once_while_the_service_runs(site: Site) -> None:
    sink, ended = site.queue("support"), asyncio.Event()
    running = asyncio.create_task(site.notices.run(ended))
    for uid in (1, 2):
        await site.store.deliver([quarantined(uid, plain())])
        async with asyncio.timeout(5):
            while len(sink.held) < uid:
                await asyncio.sleep(0.01)
    ended.set()
    async with asyncio.timeout(5):
        await running
