"""What a running daemon answers to operators."""

from __future__ import annotations

import pytest
from engine_rig import Rig, log  # noqa: F401

from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.engine.alarm import Kind
from mailpoller.engine.availability import State
from mailpoller.engine.operations import Operations


async def test_status_is_told_though_the_ledger_cannot_be_read() -> None:
    rig = Rig()
    rig.fill(1)
    await rig.carry()
    operations = Operations(rig.ledger, rig.health, rig.queues, {})
    whole = await operations.status({})
    assert whole["mailboxes"][0]["ledger"]["settled"] == 1
    assert "ledger_error" not in whole
    rig.ledger.fail("standings")
    part = await operations.status({})
    assert part["mailboxes"][0]["ledger"] == {}
    assert part["mailboxes"][0]["condition"]
    assert [queue["queue"] for queue in part["queues"]] == [queue["queue"] for queue in whole["queues"]]
    assert part["ledger_error"]


async def test_what_is_absent_is_gone_once_an_operator_says_so_and_nobody_says_so_of_nothing() -> None:
    rig = Rig()
    operations = Operations(rig.ledger, rig.health, rig.queues, {})
    with pytest.raises(MailpollerError, match="nothing that waits is absent"):
        await operations.accept({"mailbox": rig.name, "how": "absence"})
    rig.fill(3)
    rig.sinks["support"].faults.fail("deliver", TransientError("down"), times=1000)
    await rig.watcher.drain()
    rig.mailbox.folders["INBOX"].mails.clear()
    rig.queues["support"].availability.state = State.UP
    for _ in range(3):
        rig.later(hours=2)
        assert not await rig.watcher.drain()
    assert (await rig.counts())["deferred"] == 3, "a store may be away"
    assert await operations.accept({"mailbox": rig.name, "how": "absence"}) == {"folders": 1}
    rig.later(hours=2)
    assert await rig.watcher.drain()
    assert (await rig.counts())["deferred"] == 0
    with pytest.raises(KeyError):
        await operations.accept({"mailbox": rig.name, "how": "else"})


async def test_alarm_that_the_ledger_cannot_take_is_told_all_the_same() -> None:
    rig = Rig()
    operations = Operations(rig.ledger, rig.health, rig.queues, {}, alarm=rig.alarm)
    rig.ledger.fail("raise_alarm", times=10)
    await rig.alarm.raised(Kind.LEDGER_UNWRITABLE, "ledger", "disk full")
    assert await rig.ledger.alarms() == []
    assert [alarm["key"] for alarm in (await operations.status({}))["alarms"]] == ["ledger-unwritable:ledger"]
