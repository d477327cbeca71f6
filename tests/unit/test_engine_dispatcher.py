"""What becomes of a message that a queue does not take, for now or for good."""

from __future__ import annotations

import errno
import json

import pytest
from engine_rig import Rig, Routes, log  # noqa: F401

from mailpoller.core.delivery import Delivery, Refusal
from mailpoller.core.errors import ConfigError, CredentialsRefused, MessageRejected, TransientError
from mailpoller.core.message import Message, RawMessage
from mailpoller.engine import judge as judge_module
from mailpoller.engine.availability import State
from mailpoller.engine.dispatcher import REFUSED_LIMIT
from mailpoller.testing.builders import auto_reply, plain
from mailpoller.testing.fake_sink import FakeSink, failing, refusing

BOTH = Routes("both", "support", "archive")


async def test_refused_for_good_by_one_of_two_queues_it_is_quarantined_and_the_other_receipt_kept() -> None:
    rig = Rig(rules=[BOTH])
    rig.sinks["archive"].doubt = refusing(["2"], "too ugly")
    expected = rig.fill(4, "both")
    await rig.carry()
    assert rig.subjects("support") == expected
    assert len(rig.sinks["archive"].held) == 3
    (held,) = rig.sinks["quarantine"].held.values()
    assert (held.reason, "too ugly" in held.detail) == ("refused", True)
    (row,) = [row for (_, uid), row in rig.ledger.store.messages.items() if uid == "2"]
    assert row.outcome is not None
    assert row.outcome.kind == "quarantined"
    assert set(row.receipts or ()) == {"support", "quarantine"}


async def test_events_of_a_mailbox_say_what_it_is_also_in_quarantine() -> None:
    rig = Rig(departments=["billing", "shop"], trusted=True)
    rig.mailbox.deliver(auto_reply(subject="robot"))
    rig.fill(1)
    await rig.carry()
    for place in ("support", "quarantine"):
        (held,) = rig.sinks[place].held.values()
        data = json.loads(held.event)["data"]
        assert (data["trusted"], data["departments"]) == (True, ["billing", "shop"])


async def test_refused_by_every_place_the_message_stays_in_the_mailbox_and_the_others_go_on() -> None:
    rig = Rig()
    for sink in rig.sinks.values():
        sink.doubt = refusing(["1"])
    expected = rig.fill(3)
    tally = await rig.carry()
    assert tally.deferred == 1
    assert rig.subjects().total() == 2
    assert [settlement.ref.uid for settlement in rig.source.applied] == ["2", "3"]
    for sink in rig.sinks.values():
        sink.doubt = refusing([])
    rig.later(hours=5)
    await rig.carry()
    assert {held.reason for held in rig.sinks["quarantine"].held.values()} == {"refused"}
    assert len(rig.source.applied) == expected.total()


async def test_a_queue_that_is_back_gets_only_what_it_misses() -> None:
    rig = Rig(rules=[BOTH])
    rig.sinks["archive"].faults.fail("deliver", TransientError("down"))
    expected = rig.fill(10, "both")
    tally = await rig.carry()
    assert tally.deferred == 10
    assert rig.subjects("support") == expected
    assert rig.source.applied == []
    rig.queues["archive"].availability.state = State.PROBING
    await rig.carry()
    assert rig.subjects("archive") == expected
    assert sum(rig.sinks["support"].batches) == 10
    assert len(rig.source.applied) == 10
    assert set(rig.downloads().values()) == {2}


async def test_a_retry_goes_to_the_queues_of_the_first_receipt_whatever_the_rules_say_now() -> None:
    rig = Rig(rules=[BOTH])
    rig.sinks["archive"].faults.fail("deliver", TransientError("down"))
    rig.fill(1, "both")
    await rig.carry()
    later = Rig(ledger=rig.ledger, sinks=rig.sinks, rules=[])
    later.mailbox = later.source.mailbox = rig.mailbox
    await later.carry()
    assert len(rig.sinks["archive"].held) == 1
    assert sum(rig.sinks["support"].batches) == 1
    assert len(later.source.applied) == 1


@pytest.mark.parametrize("bug", [ValueError("cannot stomach this"), KeyError("x"), RecursionError()])
async def test_a_sink_that_cannot_stomach_one_message_takes_its_neighbours_at_once(bug: Exception) -> None:
    rig = Rig()
    rig.sinks["support"].doubt = failing(["4"], bug)
    rig.fill(9)
    tally = await rig.carry()
    assert (tally.settled, tally.deferred) == (8, 1)
    assert rig.queues["support"].state is State.UP
    assert ("support", False) not in rig.edges


async def test_a_message_that_a_queue_keeps_refusing_is_quarantined_after_hours_and_not_before() -> None:
    rig = Rig()
    rig.sinks["support"].doubt = failing(["1"], ValueError("cannot stomach this"))
    rig.fill(1)
    for _ in range(REFUSED_LIMIT):
        await rig.carry()
        assert not rig.sinks["quarantine"].held
        rig.later(hours=5)
    await rig.carry()
    (held,) = rig.sinks["quarantine"].held.values()
    assert held.reason == "refused-by-queue"
    assert rig.downloads()["1"] == REFUSED_LIMIT + 1 == 20


async def test_what_could_not_be_fetched_often_is_not_quarantined_for_one_refusal_or_one_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig, read, failures = Rig(), judge_module._read, 0

    def fails(raw: RawMessage, body: bool) -> Message:
        nonlocal failures
        if failures:
            failures -= 1
            raise ValueError("a bug")
        return read(raw, body)

    monkeypatch.setattr(judge_module, "_read", fails)
    rig.fill(1)
    for _ in range(REFUSED_LIMIT + 1):
        rig.source.faults.fail("fetch", TransientError("not now"))
        await rig.carry()
        rig.later(hours=5)
    failures = 1
    await rig.carry()
    rig.later(hours=5)
    rig.sinks["support"].doubt = failing(["1"], ValueError("cannot stomach this"))
    await rig.carry()
    rig.later(hours=5)
    rig.sinks["support"].doubt = refusing([])
    await rig.carry()
    assert not rig.sinks["quarantine"].held
    assert len(rig.sinks["support"].held) == 1


@pytest.mark.parametrize(
    "short",
    [MemoryError(), OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't start new thread")],
    ids=["memory", "files", "threads"],
)
async def test_what_the_machine_lacks_counts_against_no_message_and_no_queue(short: Exception) -> None:
    class Short:
        name, lacking = "short", 6

        def judge(self, message: Message) -> None:
            if self.lacking:
                self.lacking -= 1
                raise short

    rule = Short()
    rig = Rig(rules=[rule])
    rig.fill(1)
    for _ in range(6):
        await rig.carry()
        rig.later(minutes=5)
    rig.sinks["support"].faults.fail("deliver", short)
    await rig.carry()
    assert not rig.sinks["support"].held
    assert rig.queues["support"].state is State.DOWN
    assert await rig.counts() == {"claimed": 0, "deferred": 1, "settled": 0, "undisposed": 0}
    assert not rig.sinks["quarantine"].held


async def test_a_message_that_is_refused_for_the_queues_trouble_is_never_quarantined_for_it() -> None:
    def doubt(delivery: Delivery) -> Refusal | None:
        return Refusal(delivery.delivery_id, "451 later", blame="queue")

    rig = Rig()
    rig.sinks["support"].doubt = doubt
    rig.fill(1)
    for _ in range(REFUSED_LIMIT + 3):
        await rig.carry()
        rig.later(hours=5)
    assert not rig.sinks["quarantine"].held
    assert rig.downloads()["1"] == REFUSED_LIMIT + 3


async def test_each_refusal_for_now_puts_the_message_off_for_longer() -> None:
    rig = Rig()
    rig.sinks["support"].doubt = refusing(["1"], "452 not now", permanent=False)
    rig.fill(1)
    downloads = []
    for _ in range(4):
        await rig.carry()
        downloads.append(rig.downloads()["1"])
        rig.later(seconds=25)
    assert downloads == [1, 2, 3, 3]


@pytest.mark.parametrize(
    "error",
    [TransientError("x"), CredentialsRefused("x"), ConfigError("x"), MessageRejected("x"), TransientError("")],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_sink_raises_on_purpose_the_mail_waits_and_nothing_is_lost(error: Exception) -> None:
    rig = Rig()
    rig.sinks["support"].faults.fail("deliver", error)
    expected = rig.fill(5)
    tally = await rig.carry()
    assert tally.deferred == 5
    assert rig.queues["support"].reason
    rig.queues["support"].availability.state = State.PROBING
    await rig.carry()
    assert rig.subjects() == expected


class Forgetful(FakeSink):
    """Answers for fewer deliveries than it was given."""

    async def deliver(self, batch):  # type: ignore[no-untyped-def]
        return (await super().deliver(batch))[:-1]


class Confused(FakeSink):
    """Answers in another order."""

    async def deliver(self, batch):  # type: ignore[no-untyped-def]
        return list(reversed(await super().deliver(batch)))


@pytest.mark.parametrize("sink", [Forgetful, Confused])
async def test_a_sink_that_answers_for_other_deliveries_is_not_believed(sink: type[FakeSink]) -> None:
    rig = Rig(sinks={"support": sink()})
    rig.fill(3)
    tally = await rig.carry()
    assert (tally.settled, tally.deferred) == (0, 3)
    assert rig.source.applied == []


async def test_a_message_that_was_cut_is_never_deleted() -> None:
    rig = Rig(disposition="delete", max_message_size="1KiB")
    rig.mailbox.deliver(plain(subject="large", text="x" * 3000))
    rig.mailbox.deliver(plain(subject="small"))
    await rig.carry()
    assert rig.mailbox.uids() == ["1"]
    assert rig.mailbox.folders["INBOX"].mails["1"].flags == {"\\Seen"}
    assert rig.subjects().total() == 2


async def test_a_refusal_carries_its_reason_into_the_ledger() -> None:
    rig = Rig()
    rig.sinks["support"].doubt = lambda delivery: Refusal(delivery.delivery_id, "452 mailbox full")
    rig.fill(1)
    await rig.carry()
    (message,) = rig.ledger.store.messages.values()
    assert "452 mailbox full" in message.reason
