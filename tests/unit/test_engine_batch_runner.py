"""The batch runner's promises, with everything failing around it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from engine_rig import Rig, Routes, log, until  # noqa: F401

from mailpoller.core.delivery import Disposed, Held, Settlement
from mailpoller.core.errors import LedgerUnavailable, SessionLost, TransientError
from mailpoller.core.message import Claim, Gone, Message, MessageRef, RawMessage
from mailpoller.core.ports import Session, Start
from mailpoller.engine import judge
from mailpoller.engine.availability import State
from mailpoller.engine.budget import Budget
from mailpoller.engine.in_flight import InFlight, Pass
from mailpoller.engine.row import BatchStage
from mailpoller.testing.builders import auto_reply, plain
from mailpoller.testing.fake_source import FakeSession


async def test_every_message_is_settled_once_and_told_once() -> None:
    rig = Rig()
    expected = rig.fill(35)
    tally = await rig.carry()
    assert (tally.settled, tally.deferred, tally.exhausted) == (35, 0, True)
    assert rig.subjects() == expected
    assert len({settlement.ref.uid for settlement in rig.source.applied}) == 35
    assert set(rig.downloads().values()) == {1}
    again = await rig.carry()
    assert again.settled == 0
    assert set(rig.downloads().values()) == {1}


async def test_what_waits_for_a_queue_is_not_fetched_again_where_each_listing_shows_all() -> None:
    rig = Rig(rules=[Routes("stored", "archive")])
    rig.mailbox.whole = True
    expected = rig.fill(20)
    rig.sinks["support"].faults.fail("deliver", TransientError("down"), times=1000)
    await rig.carry()
    for number in range(5):
        stored = rig.fill(1, f"stored {number}")
        tally = await rig.carry()
        assert stored <= rig.subjects("archive"), "mail for other queues goes on"
        assert tally.deferred == 20, "they wait, and are seen to"
    assert set(rig.downloads().values()) == {1}
    rig.sinks["support"].faults.clear()
    rig.queues["support"].availability.state = State.UP
    await rig.carry()
    assert rig.subjects() == expected
    assert max(rig.downloads().values()) == 2


@pytest.mark.parametrize("suspects", [False, True], ids=["batches", "suspects"])
async def test_a_further_stage_is_a_line_of_the_row_and_every_batch_goes_through_it(suspects: bool) -> None:
    rig = Rig(batch=5)
    expected = rig.fill(25)
    if suspects:
        rig = await killed(rig)
    passed: list[str] = []

    async def count(now: Pass, in_flight: InFlight) -> None:
        assert not in_flight.outcomes, "between judged and delivered"
        passed.extend(one.claim.mid for one in in_flight.judged)
        await asyncio.sleep(0)

    where = [stage.name for stage in rig.runner.row].index("deliver")
    rig.runner.row = (*rig.runner.row[:where], BatchStage("count", count), *rig.runner.row[where:])
    await rig.carry()
    assert rig.subjects() == expected
    assert len(passed) == len(set(passed)) == 25


async def test_mailbox_is_never_told_before_the_ledger_knows() -> None:
    rig = Rig()
    rig.fill(25)
    unknown: list[str] = []

    def witness(settlement: Settlement) -> None:
        recorded = rig.ledger.message(settlement.ref.folder, settlement.ref.uid)
        if recorded is None or recorded.state != "settled":
            unknown.append(settlement.ref.uid)

    rig.source.witness = witness
    await rig.carry()
    assert len(rig.source.applied) == 25
    assert unknown == []


@pytest.mark.parametrize("step", ["claim", "settle", "advance", "disposed", "repeats"])
async def test_memory_is_given_back_whatever_step_of_the_ledger_fails(step: str) -> None:
    rig = Rig(memory=40_000, batch=5)
    expected = rig.fill(100, text="x" * 3000)
    for _ in range(5):
        rig.ledger.fail(step)
        with pytest.raises(LedgerUnavailable):
            async with asyncio.timeout(60):
                await rig.carry()
        assert rig.budget.used == 0
        rig.ledger.heal()
    async with asyncio.timeout(60):
        await rig.carry()
    assert rig.subjects() == expected
    assert rig.budget.used == 0


@pytest.mark.parametrize("step", ["fetch", "fetch:3", "settle", "settle:2", "pending"])
async def test_memory_and_claims_are_given_back_when_the_session_is_lost(step: str) -> None:
    rig = Rig(memory=40_000, batch=5)
    expected = rig.fill(60, text="x" * 3000)
    for _ in range(6):
        rig.source.faults.fail(step, SessionLost("cut"))
        with pytest.raises(SessionLost):
            await rig.carry()
        assert rig.budget.used == 0
        assert (await rig.counts())["claimed"] == 0
        rig.source.faults.clear()
        rig.fill(1, "late")
    rig.later(hours=5)
    async with asyncio.timeout(60):
        for _ in range(3):
            await rig.carry()
    assert rig.subjects() == expected + Counter({"late 0": 6})
    assert len(rig.sinks["support"].held) == 66


async def test_a_commit_whose_answer_is_lost_makes_no_second_delivery() -> None:
    rig = Rig(batch=5)
    expected = rig.fill(20)
    for step in ("claim", "settle", "disposed"):
        rig.ledger.fail(step, after=True)
        with pytest.raises(LedgerUnavailable):
            await rig.carry()
    rig.later(minutes=2)
    await rig.carry()
    assert rig.subjects() == expected
    assert len(rig.sinks["support"].held) == 20
    assert {settlement.ref.uid for settlement in rig.source.applied} == set(rig.mailbox.uids())


async def test_nothing_is_downloaded_while_the_ledger_cannot_record_a_claim() -> None:
    rig = Rig()
    rig.fill(20)
    rig.ledger.fail("claim", times=5)
    for _ in range(5):
        with pytest.raises(LedgerUnavailable):
            await rig.carry()
    assert rig.source.asked == []


async def test_receipts_that_were_lost_make_no_second_delivery() -> None:
    rig = Rig()
    expected = rig.fill(10)
    rig.sinks["support"].faults.fail("answer", TransientError("the answer was lost"))
    async with rig.running():
        await until(lambda: len(rig.source.applied) == 10)
    assert rig.subjects() == expected
    assert rig.sinks["support"].repeats > 0


async def test_mail_for_a_queue_that_is_down_waits_undownloaded_and_other_mail_goes_on() -> None:
    rig = Rig(rules=[Routes("archive", "archive")], reachable=frozenset({"support", "archive"}))
    rig.sinks["archive"].faults.fail("deliver", TransientError("down"), times=1000)
    rig.sinks["archive"].faults.fail("check", TransientError("down"), times=30)
    rig.fill(25, "archive")
    expected = rig.fill(25, "support")
    async with rig.running():
        await until(lambda: rig.sinks["archive"].checks >= 5)
        await until(lambda: rig.subjects() == expected)
        assert set(rig.downloads().values()) == {1}
        rig.sinks["archive"].faults.clear()
        await until(lambda: len(rig.sinks["archive"].held) == 25)
    assert max(rig.downloads().values()) <= 3
    assert rig.downloads().total() <= 50 + 25 + 10
    assert rig.edges.count(("archive", False)) == 1
    assert rig.edges.count(("archive", True)) == 1


async def test_nothing_new_is_downloaded_while_every_queue_it_could_go_to_is_down() -> None:
    rig = Rig(reachable=frozenset({"support"}))
    rig.sinks["support"].faults.fail("deliver", TransientError("down"), times=1000)
    rig.sinks["support"].faults.fail("check", TransientError("down"), times=1000)
    rig.fill(5)
    async with rig.running():
        await until(lambda: rig.sinks["support"].checks >= 2)
        rig.fill(100, "later")
        await until(lambda: rig.sinks["support"].checks >= 6)
        assert rig.downloads().total() <= 10
        rig.sinks["support"].faults.clear()
        rig.queues["support"].availability.down_until = 0
        await until(lambda: len(rig.sinks["support"].held) == 105, 20)
    assert rig.downloads().total() <= 105 + 15


async def test_a_queue_that_passes_its_check_and_refuses_mail_costs_one_or_two_downloads_a_try() -> None:
    rig = Rig(reachable=frozenset({"support"}), batch=50)
    rig.sinks["support"].faults.fail("deliver", TransientError("still full"), times=12)
    rig.fill(400)
    async with rig.running():
        await until(lambda: len(rig.sinks["support"].batches) >= 12, 30)
        first = rig.sinks["support"].batches[0]
        on_the_way = 5 * first  # claimed, asked for, fetched, judged, delivered
        assert rig.downloads().total() <= on_the_way + 2 * 12
        await until(lambda: len(rig.sinks["support"].held) == 400, 30)
    assert [up for _, up in rig.edges] == [False, True]


async def test_a_message_that_cannot_be_fetched_is_put_off_and_its_neighbours_are_delivered() -> None:
    rig = Rig(batch=4)
    rig.fill(10)
    rig.source.faults.fail("fetch:1", TransientError("NO"))
    tally = await rig.carry()
    assert tally.settled >= 7
    assert 1 <= tally.unfetched <= 3
    rig.later(seconds=11)
    await rig.carry()
    assert len(rig.sinks["support"].held) == 10


async def test_a_message_that_upsets_us_is_tried_again_and_quarantined_in_the_end_beside_delivered_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = judge._read

    def reads(raw: RawMessage, body: bool) -> Message:
        """A bug of ours."""
        if b"Subject: bad" in bytes(raw.octets.view()):
            raise KeyError("as if")
        return read(raw, body)

    monkeypatch.setattr(judge, "_read", reads)
    rig = Rig()
    expected = rig.fill(5)
    rig.mailbox.deliver(plain(subject="bad"))
    expected += rig.fill(5, "after")
    for _ in range(3):
        await rig.carry()
        rig.later(hours=5)
    assert rig.subjects() == expected
    (held,) = rig.sinks["quarantine"].held.values()
    assert held.reason == "unprocessable"
    assert (await rig.counts())["deferred"] == 0


async def killed(rig: Rig) -> Rig:
    """The process dies while the first batch is delivered; the next one's rig, for the same mailbox."""
    rig.sinks["support"].faults.hang("deliver")
    carrying = asyncio.create_task(rig.carry())
    await until(lambda: rig.sinks["support"].batches)
    again = Rig(ledger=rig.ledger.restarted(), sinks={"support": rig.sinks["support"]}, batch=10)
    again.mailbox = again.source.mailbox = rig.mailbox
    carrying.cancel()
    await asyncio.wait([carrying])
    return again


def marks(rig: Rig) -> list[tuple[str, str]]:
    """What is marked at risk and cleared from now on: step and uid."""
    made: list[tuple[str, str]] = []
    for step in ("at_risk", "cleared"):
        method = getattr(rig.ledger, step)

        async def marked(claim: Claim, *, step: str = step, method: Any = method) -> None:
            made.append((step, claim.ref.uid))
            await method(claim)

        setattr(rig.ledger, step, marked)
    return made


async def test_suspects_are_parsed_one_by_one_and_before_everybody_else() -> None:
    rig = Rig(batch=10)
    expected = rig.fill(10)
    again = await killed(rig)
    expected += rig.fill(5, "later")
    made = marks(again)
    await again.carry()
    uids = sorted(str(uid) for uid in range(1, 11))
    assert made == [(step, uid) for uid in uids for step in ("at_risk", "cleared")]
    assert again.sinks["support"].batches[1:] == [10, 5], "fetched and delivered together"
    assert again.subjects() == expected
    assert not again.sinks["quarantine"].held


async def test_a_suspect_with_a_strike_comes_after_the_innocents_and_on_its_own() -> None:
    rig = Rig(batch=10)
    expected = rig.fill(5)
    rig = await killed(rig)
    folder = await (await rig.source.connect()).open("INBOX")
    await rig.ledger.open_folder(folder, rig.source.account)
    for one in await rig.ledger.claim(await rig.ledger.suspects(folder, limit=10)):
        if isinstance(one, Claim) and one.ref.uid == "1":
            await rig.ledger.at_risk(one)
    again = Rig(ledger=rig.ledger.restarted(), sinks={"support": rig.sinks["support"]}, batch=10)
    again.mailbox = again.source.mailbox = rig.mailbox
    made = marks(again)
    await again.carry()
    assert [uid for step, uid in made if step == "at_risk"] == ["2", "3", "4", "5", "1"]
    assert again.sinks["support"].batches[1:] == [4, 1]
    assert again.subjects() == expected


async def test_nothing_of_another_mailbox_is_parsed_while_a_suspect_is_at_risk() -> None:
    rig = Rig(batch=10)
    rig.fill(2)
    again = await killed(rig)
    turns, order = again.fleet.shares.judging, list[str]()
    turns._room.size = 4  # as many as a process has
    at_risk, cleared = again.ledger.at_risk, again.ledger.cleared
    others: list[asyncio.Task[None]] = []

    async def other() -> None:
        async with turns.turn("other"):
            order.append("other")

    async def marked(claim: Claim) -> None:
        await at_risk(claim)
        order.append("at risk")
        others.append(asyncio.create_task(other()))
        await asyncio.sleep(0.01)

    async def unmarked(claim: Claim) -> None:
        await cleared(claim)
        order.append("cleared")

    again.ledger.at_risk, again.ledger.cleared = marked, unmarked  # type: ignore[method-assign]
    await again.carry()
    await asyncio.gather(*others)
    assert order == ["at risk", "cleared", "at risk", "cleared", "other", "other"]


async def test_what_has_a_strike_is_at_risk_at_another_moment_after_each_start(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(batch=10)
    rig.fill(1)
    rig = await killed(rig)
    folder = await (await rig.source.connect()).open("INBOX")
    await rig.ledger.open_folder(folder, rig.source.account)
    (claim,) = await rig.ledger.claim(await rig.ledger.suspects(folder, limit=10))
    assert isinstance(claim, Claim)
    await rig.ledger.at_risk(claim)
    again = Rig(ledger=rig.ledger.restarted(), sinks={"support": rig.sinks["support"]}, batch=10)
    again.mailbox = again.source.mailbox = rig.mailbox
    made, slept = marks(again), list[tuple[float, int]]()
    sleep = again.clock.sleep

    async def watched(seconds: float) -> None:
        slept.append((seconds, len(made)))
        await sleep(0)

    monkeypatch.setattr(again.clock, "sleep", watched)
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    await again.carry()
    assert (0.5, 0) in slept and len(made) == 2


async def test_a_suspect_that_takes_the_session_with_it_is_found_and_its_neighbours_arrive() -> None:
    rig = Rig(batch=10)
    expected = rig.fill(10)
    again = await killed(rig)
    connect = again.source.connect

    async def unlucky() -> Session:
        session = await connect()
        fetch = session.fetch

        async def hanging_up(claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
            async for answer in fetch(claims, limit):
                if answer.claim.ref.uid == "4":
                    raise SessionLost("hung up")
                yield answer

        session.fetch = hanging_up  # type: ignore[method-assign]
        return session

    again.source.connect = unlucky  # type: ignore[method-assign, assignment]
    for _ in range(4):
        with contextlib.suppress(SessionLost):
            await again.carry()
    assert again.subjects() == expected - Counter(["message 3"])
    assert (await again.counts())["deferred"] == 1


async def test_a_server_that_wants_to_be_left_alone_puts_no_message_in_doubt() -> None:
    rig = Rig(batch=5)
    expected = rig.fill(1)
    for _ in range(3):
        rig.source.faults.fail("fetch", SessionLost("throttled", retry_after=timedelta(minutes=5)))
        with pytest.raises(SessionLost):
            await rig.carry()
        rig.source.faults.clear()
    assert (await rig.counts())["deferred"] == 1, "given back"
    await rig.carry()
    assert rig.subjects() == expected


async def test_a_message_that_waits_for_a_queue_is_given_up_when_it_leaves_the_mailbox() -> None:
    rig = Rig()
    rig.fill(1)
    rig.sinks["support"].faults.fail("deliver", TransientError("down"))
    await rig.carry()
    rig.mailbox.remove("1")
    rig.queues["support"].availability.state = State.PROBING
    await rig.carry()
    assert (await rig.counts())["deferred"] == 1, "one look is none"
    rig.later(minutes=2)
    await rig.carry()
    assert (await rig.counts())["deferred"] == 0
    assert not rig.sinks["support"].held


async def test_a_delivered_batch_is_settled_and_told_while_the_next_download_hangs() -> None:
    rig = Rig(batch=5)
    rig.fill(30)
    rig.source.faults.hang("fetch", after=2)
    carrying = asyncio.create_task(rig.carry())
    await until(lambda: len(rig.source.applied) == 10)
    assert (await rig.counts())["settled"] == 10
    assert not carrying.done()
    carrying.cancel()
    await asyncio.wait({carrying})
    assert rig.budget.used == 0


async def test_a_server_that_is_slow_to_be_told_holds_up_no_delivery_and_is_told_of_several_batches_at_once() -> None:
    rig = Rig(batch=5)
    rig.fill(25)
    slow = asyncio.Event()
    session = await rig.source.connect()
    told: list[int] = []
    settle = session.settle

    async def slowly(settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        told.append(len(settlements))
        await slow.wait()
        return await settle(settlements)

    session.settle = slowly  # type: ignore[method-assign]
    folder = await session.open("INBOX")
    state = await rig.ledger.open_folder(folder, rig.source.account)
    carrying = asyncio.create_task(rig.runner.carry(session, folder, state.position, Start("all"), suppress=False))
    while (await rig.counts())["settled"] < 25:
        await asyncio.sleep(0.002)
    assert told == [5]
    slow.set()
    await carrying
    assert told == [5, 20]
    assert len(rig.source.applied) == 25


async def test_what_is_on_its_way_to_a_queue_is_settled_though_the_next_claim_fails() -> None:
    rig = Rig(batch=5)
    expected = rig.fill(30)
    claim = rig.ledger.claim

    async def until_mail_is_held(refs: Sequence[MessageRef]) -> Sequence[Claim | Held | Settlement]:
        if rig.sinks["support"].held:
            raise LedgerUnavailable("full")
        return await claim(refs)

    rig.ledger.claim = until_mail_is_held  # type: ignore[method-assign]
    with pytest.raises(LedgerUnavailable):
        await rig.carry()
    assert (await rig.counts())["settled"] == len(rig.sinks["support"].held) >= 5
    rig.ledger.claim = claim  # type: ignore[method-assign]
    await rig.carry()
    assert rig.subjects() == expected


async def test_of_two_downloads_that_a_lost_session_ends_only_the_first_is_in_doubt() -> None:
    rig = Rig(batch=5)
    expected = rig.fill(40)
    session = await rig.source.connect()
    folder = await session.open("INBOX")
    state = await rig.ledger.open_folder(folder, rig.source.account)
    begun: list[Sequence[Claim]] = []
    both = asyncio.Event()

    async def cut(claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        begun.append(claims)
        if len(begun) == 2:
            both.set()
        await both.wait()
        raise SessionLost("cut")
        yield

    session.fetch = cut  # type: ignore[assignment, method-assign]
    with pytest.raises(SessionLost):
        await rig.runner.carry(session, folder, state.position, Start("all"), suppress=False)
    assert [len(claims) for claims in begun] == [5, 5]
    assert set(rig.runner._hangup_suspects.uids(folder)) == {claim.ref.uid for claim in begun[0]}
    assert (await rig.counts())["claimed"] == 0
    await rig.carry()
    assert rig.subjects() == expected


async def test_a_twin_that_came_in_the_new_epoch_is_no_repeat_of_old_though_the_process_died_between_the_two() -> None:
    rig = Rig(batch=1)
    rig.fill(1, "old")
    await rig.carry()
    rig.mailbox.renumber()
    for _ in range(2):
        rig.mailbox.deliver(plain(subject="twin"))
    rig.source.faults.fail("fetch", SessionLost("cut"), after=2)
    with pytest.raises(SessionLost):
        await rig.carry(suppress=True)
    assert rig.subjects() == {"old 0": 1, "twin": 1}
    after = Rig(ledger=rig.ledger.restarted(), sinks=rig.sinks)
    after.mailbox.folders = rig.mailbox.folders
    await after.carry(suppress=True)
    assert after.subjects() == {"old 0": 1, "twin": 2}


async def test_a_stop_between_batches_leaves_no_claim_open() -> None:
    rig = Rig(batch=5)
    rig.fill(100)
    carrying = asyncio.create_task(rig.carry())
    await until(lambda: len(rig.sinks["support"].held) >= 10)
    rig.stop.set()
    tally = await carrying
    assert not tally.exhausted
    assert tally.settled < 100
    counts = await rig.counts()
    assert counts["claimed"] == 0
    assert counts["deferred"] <= 10, "what was claimed ahead is given back, and due at once"
    assert counts["settled"] == len(rig.sinks["support"].held) == len(rig.source.applied)


async def test_a_pass_that_is_cancelled_anywhere_leaves_no_claim_and_no_memory_in_hand() -> None:
    for pause in range(1, 60, 3):
        rig = Rig(batch=5, memory=20_000)
        rig.fill(30, text="x" * 2000)
        carrying = asyncio.create_task(rig.carry())
        for _ in range(pause):
            await asyncio.sleep(0)
        carrying.cancel()
        await asyncio.wait({carrying})
        assert rig.budget.used == 0, pause
        assert (await rig.counts())["claimed"] == 0, pause
        await rig.carry()
        assert len(rig.sinks["support"].held) == 30, pause


async def test_a_wish_for_memory_that_is_cancelled_as_its_turn_comes_is_given_back() -> None:
    budget = Budget(10)
    first = await budget.reserve(10)
    waiting = asyncio.create_task(budget.reserve(10))
    await asyncio.sleep(0)
    waiting.cancel()
    first.release()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.used == 0
    async with asyncio.timeout(1):
        (await budget.reserve(10)).release()


async def test_quarantined_mail_waits_for_a_dead_relay_and_is_downloaded_once_before_and_once_after() -> None:
    rig = Rig(reachable=frozenset({"support"}))
    rig.sinks["quarantine"].faults.fail("deliver", TransientError("dead relay"), times=1000)
    rig.sinks["quarantine"].faults.fail("check", TransientError("dead relay"), times=1000)
    robots = [rig.mailbox.deliver(auto_reply(subject=f"robot {number}")) for number in range(5)]
    expected = rig.fill(5)
    async with rig.running():
        await until(lambda: rig.subjects() == expected)
        await until(lambda: rig.sinks["quarantine"].checks >= 4)
        assert all(rig.downloads()[uid] == 1 for uid in robots)
        rig.sinks["quarantine"].faults.clear()
        rig.queues["quarantine"].availability.down_until = 0
        await until(lambda: len(rig.sinks["quarantine"].held) == 5, 20)
    assert all(rig.downloads()[uid] <= 3 for uid in robots)


async def test_deferred_mail_does_not_starve_new_mail() -> None:
    rig = Rig(rules=[Routes("archive", "archive")], batch=5)
    rig.sinks["archive"].faults.fail("deliver", TransientError("down"), times=1000)
    rig.fill(50, "archive")
    await rig.carry()
    expected = rig.fill(5)
    tally = await rig.carry()
    assert tally.settled == 5
    assert rig.subjects() == expected


async def test_a_disposition_that_always_loses_the_session_does_not_keep_new_mail_from_its_queue() -> None:
    rig = Rig(batch=5)
    expected = rig.fill(5)
    for turn in range(6):
        rig.source.faults.fail("settle", SessionLost("hung up"), times=9)
        with pytest.raises(SessionLost):
            await rig.carry()
        rig.source.faults.clear()
        expected += rig.fill(5, "late", start=5 * turn)
        rig.later(minutes=2)
    assert len(rig.sinks["support"].held) >= 30
    await rig.carry()
    assert rig.subjects() == expected
    assert len({settlement.ref.uid for settlement in rig.source.applied}) == 35


async def test_the_first_batches_of_a_listing_are_small_so_that_nothing_waits_for_the_first_to_be_full() -> None:
    rig = Rig(batch=400)
    rig.fill(1000)
    await rig.carry()
    assert rig.sinks["support"].batches == [50, 100, 200, 400, 250]


async def test_memory_is_given_back_when_a_pass_is_cancelled_that_gives_up_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second batch has given up, and its fetch takes its time to end."""
    given_up = asyncio.Event()

    async def fetch(self: FakeSession, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if claims[0].ref.uid == "3":
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
                given_up.set()
                await asyncio.sleep(60)
            raise
        yield Gone(claims[0])

    monkeypatch.setattr(FakeSession, "fetch", fetch)
    rig = Rig(batch=2)
    rig.fill(6)
    rig.ledger.fail("advance")
    carrying = asyncio.create_task(rig.carry())
    await asyncio.wait_for(given_up.wait(), 10)
    carrying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await carrying
    assert rig.budget.used == 0


async def test_pass_that_misses_much_ends_and_the_next_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may list a million messages and have none."""

    async def fetch(self: FakeSession, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        for claim in claims:
            yield Gone(claim)

    monkeypatch.setattr(FakeSession, "fetch", fetch)
    monkeypatch.setattr("mailpoller.engine.batch_runner.MOST_ABSENT", 5)
    rig = Rig(batch=1)
    rig.fill(60)
    seen = [0]
    while seen[-1] < 60:
        tally = await rig.carry()
        seen.append(len(rig.ledger.store.messages))
        assert seen[-2] < seen[-1] <= seen[-2] + 5 + len(rig.runner.row)
    assert (await rig.carry()).exhausted and not tally.settled
