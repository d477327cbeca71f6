"""What an intake refuses is told to its queue, with the reason, whoever handed it in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from test_intakes import Table
from test_outbox import ENTRY, SENDERS
from test_outgoing_events import FakeQueue

from mailpoller.core.errors import EntryRefused, LedgerUnavailable
from mailpoller.engine.intake_reader import IntakeReader
from mailpoller.engine.outgoing_events import OutgoingEvents
from mailpoller.engine.queues import Queue
from mailpoller.engine.senders import Intake


class Desk(Table):
    """A table and a socket whose queue is told."""

    def __init__(self, path: Path, ledger: Any = None, *, events: str = "told") -> None:
        super().__init__(path, ledger)
        shop = Intake("shop", ("root",), by_socket=False, events=events)
        desk = Intake("desk", ("root",), users=frozenset({"helpdesk"}), events=events)
        self.queue = FakeQueue()
        self.senders = replace(SENDERS, intakes={"desk": desk, "shop": shop})
        self.use(self.senders)
        self.reader = IntakeReader(self.acceptance, {"shop": self.source}, self.alarm, largest=10_000)

    async def told(self) -> list[tuple[Any, ...]]:
        events = OutgoingEvents(
            self.ledger, lambda _: cast("Queue | None", self.queue), self.senders, self.alarm
        )  # fmt: skip
        await events.step()
        return [
            (one["type"].rpartition(".")[2], one["data"]["entry"], one["data"]["key"], one["data"]["mid"])
            for one in self.queue.events
        ]


@pytest.fixture
async def desk(tmp_path: Path) -> Any:
    made = Desk(tmp_path)
    await made.step()
    yield made
    await made.source.close()


async def test_every_refusal_of_a_table_is_told_with_its_entry_and_what_it_says_of_itself(desk: Desk) -> None:
    desk.insert("{", {**ENTRY, "key": "k", "to": "a b"}, {"reply_to": "mid-1", "text": "x"}, 7, "x" * 20_000, ENTRY)
    await desk.step()
    assert await desk.told() == [
        ("refused", 1, None, None),
        ("refused", 2, "k", None),
        ("refused", 3, None, "mid-1"),
        ("refused", 4, None, None),
        ("refused", 5, None, None),
    ]
    assert [one["data"]["reason"] for one in desk.queue.events] == [reason for *_, reason in desk.rows()][:5]
    assert await desk.ledger.outbox_refusals(limit=9) == []


async def test_what_is_handed_in_by_the_socket_is_told_under_its_key(desk: Desk) -> None:
    with pytest.raises(EntryRefused):
        await desk.hand_in(b"{", choices={"key": "order-17"})
    assert await desk.told() == [("refused", None, "order-17", None)]


async def test_who_may_not_use_the_intake_tells_its_queue_nothing(desk: Desk) -> None:
    with pytest.raises(EntryRefused):
        await desk.acceptance.hand_in({"octets": b"{", "peer": "stranger"})
    assert await desk.told() == []


async def test_a_repeat_after_a_crash_bears_the_same_delivery_id_and_is_owed_before_it_is_answered(desk: Desk) -> None:
    desk.insert("{")

    async def killed(*_: object) -> None:
        raise LedgerUnavailable("killed")

    real, desk.source.answer = desk.source.answer, killed  # type: ignore[method-assign]
    with pytest.raises(LedgerUnavailable):
        await desk.step()
    assert await desk.told() == [("refused", 1, None, None)]
    desk.source.answer = real  # type: ignore[method-assign]
    again = Desk(desk.path, desk.ledger.restarted())
    await again.step()
    assert await again.told() == [("refused", 1, None, None)]
    assert [one["deliveryid"] for one in again.queue.events] == [one["deliveryid"] for one in desk.queue.events]
    await again.source.close()


async def test_a_ledger_that_cannot_note_a_refusal_leaves_the_entry_unanswered(desk: Desk) -> None:
    desk.insert("{")
    desk.ledger.fail("outbox_refuse", times=1)
    with pytest.raises(LedgerUnavailable):
        await desk.step()
    assert [state for state, *_ in desk.rows()] == ["new"]
    await desk.step()
    assert [state for state, *_ in desk.rows()] == ["refused"]
    assert len(await desk.told()) == 1


@pytest.mark.parametrize("word", ["down", "never"])
async def test_a_queue_that_takes_nothing_now_is_told_later_and_one_that_never_will_is_done_with(
    desk: Desk, word: str
) -> None:
    desk.insert("{")
    await desk.step()
    desk.queue.trouble = [word]
    assert await desk.told() == []
    assert len(await desk.told()) == (1 if word == "down" else 0)


async def test_without_a_queue_nothing_is_kept(tmp_path: Path) -> None:
    desk = Desk(tmp_path, events="")
    await desk.step()
    desk.insert("{")
    await desk.step()
    assert await desk.ledger.outbox_refusals(limit=9) == []
    await desk.source.close()


async def test_what_a_removed_queue_was_to_be_told_is_forgotten(desk: Desk) -> None:
    desk.insert("{")
    await desk.step()
    desk.senders = replace(desk.senders, intakes={})
    assert await desk.told() == []
    assert await desk.ledger.outbox_refusals(limit=9) == []


async def test_a_flood_of_refusals_fills_no_disk_and_takes_no_other_intakes_place(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.ledgers.sqlite.refusals.REFUSALS_OWED_AT_MOST", 3)
    desk.insert(*"{{{{{")
    await desk.step()
    with pytest.raises(EntryRefused):
        await desk.hand_in(b"{")
    assert [entry for _, entry, *_ in await desk.told()] == [1, 2, 3, None]
    desk.insert("{")
    await desk.step()
    assert [entry for _, entry, *_ in await desk.told()][-1] == 6
