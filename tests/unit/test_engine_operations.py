"""What a running daemon answers to operators."""

from __future__ import annotations

from engine_rig import Rig, log  # noqa: F401

from mailpoller.engine.operations import Operations


async def test_status_is_told_though_the_ledger_cannot_be_read() -> None:
    rig = Rig()
    rig.fill(1)
    await rig.carry()
    operations = Operations(rig.ledger, rig.health, rig.queues, {})
    whole = await operations.status({})
    assert whole["mailboxes"][0]["ledger"]["settled"] == 1
    assert "ledger_error" not in whole
    rig.ledger.fail("counts")
    part = await operations.status({})
    assert part["mailboxes"][0]["ledger"] == {}
    assert part["mailboxes"][0]["condition"]
    assert [queue["queue"] for queue in part["queues"]] == [queue["queue"] for queue in whole["queues"]]
    assert part["ledger_error"]
