"""What operators pause rests, nothing of it is lost, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from engine_rig import Rig, log  # noqa: F401

from mailpoller.core.errors import MailpollerError
from mailpoller.engine.control import who_of
from mailpoller.engine.health import Condition
from mailpoller.engine.operations import Operations


def operations_of(rig: Rig) -> Operations:
    return Operations(
        rig.ledger, rig.health, rig.queues, {rig.name: rig.watcher}, alarm=rig.alarm, pauses=rig.fleet.ports.pauses
    )


async def until(seen: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not seen():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("what", ["mailbox support", "host {host}", "all"])
async def test_a_paused_mailbox_has_no_session_and_goes_on_where_it_was(what: str) -> None:
    rig = Rig()
    operations = operations_of(rig)
    what = what.format(host=rig.watcher.source.account.host)
    condition = rig.health.mailboxes[rig.name]
    task = asyncio.create_task(rig.watcher.run())
    try:
        await until(lambda: condition.condition is Condition.WAITING)
        await operations.pause({"what": what, "who": "ada"})
        await until(lambda: condition.condition is Condition.PAUSED)
        assert "by ada" in condition.reason
        polls = condition.polls
        rig.fill(3)
        await asyncio.sleep(0.05)
        assert (condition.polls, condition.settled) == (polls, 0)
        with pytest.raises(MailpollerError, match="paused by ada"):
            await operations.poll({"mailbox": rig.name})
        with pytest.raises(MailpollerError, match="is paused already"):
            await operations.pause({"what": what})
        await operations.resume({"what": what})
        await until(lambda: condition.settled == 3)
        with pytest.raises(MailpollerError, match="is not paused"):
            await operations.resume({"what": what})
    finally:
        task.cancel()


async def test_what_was_paused_under_its_former_name_stays_so() -> None:
    rig = Rig(formerly="sales")
    operations = operations_of(rig)
    await operations.pause({"what": "mailbox sales", "who": "ada"})
    await operations.pause({"what": "queue tickets", "who": "bob"})
    with pytest.raises(MailpollerError, match="mailbox sales was paused by ada"):
        await operations.poll({"mailbox": rig.name})
    pauses = rig.fleet.ports.pauses
    assert "queue tickets was paused by bob" in pauses.of_queue("desk", "tickets")
    await operations.pause({"what": "queue None"})
    await operations.pause({"what": "mailbox None"})
    assert (
        not pauses.of_queue("desk") and not pauses.of_mailbox("desk", "host") and not pauses.of_queue("support", None)
    )
    task = asyncio.create_task(rig.watcher.run())
    try:
        await until(lambda: rig.health.mailboxes[rig.name].condition is Condition.PAUSED)
        await operations.resume({"what": "mailbox sales"})
        await until(lambda: rig.health.mailboxes[rig.name].condition is Condition.WAITING)
    finally:
        task.cancel()


@pytest.mark.parametrize("what", ["", "mailbox ", "rule x", "host imap.mistyped.example"])
async def test_what_is_nothing_is_not_taken_for_paused(what: str) -> None:
    rig = Rig()
    with pytest.raises(MailpollerError, match=r"nothing that can be paused|no mailbox is at"):
        await operations_of(rig).pause({"what": what})
    assert await rig.ledger.pauses() == {}


async def test_a_paused_mailbox_is_neither_behind_nor_well() -> None:
    from mailpoller.engine.assessment import Level, assess

    rig = Rig()
    operations = operations_of(rig)
    await operations.pause({"what": "mailbox support", "who": "ada"})
    assert not await rig.watcher.drain()
    rig.later(hours=5)
    told = await operations.status({})
    (box,) = told["mailboxes"]
    assert (box["state"], box["behind"]) == ("paused", False)
    assert assess(told).level is Level.WARNING


async def test_mail_for_a_paused_queue_waits_and_no_alarm_says_that_it_fails() -> None:
    rig = Rig()
    operations = operations_of(rig)
    await operations.pause({"what": "queue support", "who": "ada"})
    rig.fill(2)
    assert not await rig.watcher.drain()
    told = await operations.status({})
    assert [(one["queue"], one["state"]) for one in told["queues"] if one["queue"] == "support"] == [
        ("support", "paused")
    ]
    assert told["alarms"] == []
    assert (await rig.counts())["settled"] == 0
    await operations.resume({"what": "queue support"})
    rig.later(hours=1)
    assert await rig.watcher.drain()
    assert (await rig.counts())["settled"] == 2


async def test_what_operators_do_is_kept_with_their_names_and_what_failed_is_not() -> None:
    rig = Rig()
    handlers = operations_of(rig).handlers()
    await handlers["pause"]({"do": "pause", "what": "all", "who": "ada", "peer": "mailpoller"})
    with pytest.raises(MailpollerError):
        await handlers["pause"]({"do": "pause", "what": "all", "who": "bob"})
    await handlers["status"]({"do": "status"})
    (change,) = await rig.ledger.changes(rig.health.started_at)
    assert (change.event, change.who, change.detail) == ("verb.pause", "ada (as mailpoller)", "what all")


def test_who_asks_is_who_the_system_says_beside_what_they_say() -> None:
    assert who_of({"who": "ada", "peer": "ada"}) == "ada"
    assert who_of({"who": "ada", "peer": "root"}) == "ada (as root)"
    assert who_of({"peer": "root"}) == "root"
    assert who_of({}) == ""


async def test_mail_that_comes_while_its_queue_is_paused_is_counted_without_being_fetched() -> None:
    rig = Rig(reachable=frozenset(("support",)))
    rig.fill(3)
    await rig.carry()
    box = rig.health.mailboxes["support"]
    assert (box.unfetched, box.unfetched_since) == ({}, None)
    await operations_of(rig).pause({"what": "queue support", "who": "ada"})
    fetched = rig.downloads()
    rig.fill(25, start=3)
    await rig.carry()
    assert box.unfetched == {"INBOX": 25}, "those that were settled are none of it"
    assert box.waiting(0) == 25
    assert rig.downloads() == fetched
    await operations_of(rig).resume({"what": "queue support", "who": "ada"})
    await rig.carry()
    assert (box.unfetched, box.unfetched_since, sum(rig.subjects().values())) == ({}, None, 28)
