"""One folder that cannot be polled never stops the others of its mailbox, and is not forgotten either."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from engine_rig import Rig, log, until  # noqa: F401

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.health import Condition, MailboxHealth
from mailpoller.testing.builders import plain
from mailpoller.testing.fake_mailbox import INBOX, FakeFolder

ORDERS = "Orders"
ALARM = "folder-failing:support/Orders"
FOR_EVER = 1_000_000


class FoldersConfig(SourceConfig):
    """A kind of mailbox that has a choice of folders."""

    folders: list[str] = [INBOX]  # noqa: RUF012 - pydantic copies it


def rig(first: str = INBOX, second: str = ORDERS, *, ledger: Any = None) -> Rig:
    made = Rig(ledger=ledger, kind=FoldersConfig, folders=[first, second])
    made.mailbox.folders[ORDERS] = FakeFolder()
    made.source.watched = (first, second)
    return made


def fill(rig: Rig, folder: str, *subjects: str) -> Counter[str]:
    for subject in subjects:
        rig.mailbox.deliver(plain(subject=subject, text="x"), folder)
    return Counter(subjects)


def health(rig: Rig) -> MailboxHealth:
    return rig.health.mailboxes["support"]


async def alarms(rig: Rig) -> list[str]:
    return [edge.key for edge in await rig.ledger.alarms()]


async def polled(rig: Rig) -> None:
    """A poll that began after now was completed."""
    for _ in range(2):
        last = health(rig).last_poll_at
        await until(lambda last=last: health(rig).last_poll_at != last)  # type: ignore[misc]


@pytest.mark.parametrize("failing", [INBOX, ORDERS], ids=["the first, which is watched", "another"])
async def test_a_folder_that_cannot_be_opened_does_not_stop_the_others(failing: str) -> None:
    site = rig()
    other = ORDERS if failing == INBOX else INBOX
    refused = fill(site, failing, "kept")
    site.source.faults.fail(f"open:{failing}", TransientError("the server says NO"), times=FOR_EVER)
    expected = fill(site, other, "a", "b")
    async with site.running():
        await until(lambda: site.subjects() == expected)
        expected += fill(site, other, "c")
        await until(lambda: site.subjects() == expected)
        assert health(site).condition is not Condition.RETRYING
        assert site.source.steps.count("connect") == 1, "the session is as good as before"
        site.source.faults.clear()
        await until(lambda: site.subjects() == expected + refused)


async def test_a_first_folder_that_cannot_be_watched_either_does_not_cost_the_session() -> None:
    site = rig()
    for step in ("open:INBOX", "wait"):
        site.source.faults.fail(step, TransientError("may not be read"), times=FOR_EVER)
    expected = fill(site, ORDERS, "a")
    async with site.running():
        await until(lambda: site.subjects() == expected)
        expected += fill(site, ORDERS, "b")
        await until(lambda: site.subjects() == expected)
        assert site.source.steps.count("connect") == 1
        polls = site.source.steps.count("folders")
        await asyncio.sleep(0.12)
        assert site.source.steps.count("folders") - polls <= 3, "it is no busier for that"


async def test_a_folder_whose_listing_is_refused_does_not_stop_the_others() -> None:
    site = rig()
    expected = fill(site, INBOX, "a")
    site.source.faults.fail("pending", TransientError("SEARCH refused"), times=1)  # Orders, which is polled first
    async with site.running():
        await until(lambda: site.subjects() == expected)
    assert site.source.steps.count("connect") == 1


async def test_a_failing_folder_is_said_once_by_name_and_again_when_it_is_back(log: list[Any]) -> None:  # noqa: F811
    site = rig()
    site.source.faults.fail("open:Orders", TransientError("the server says NO"), times=5)
    async with site.running():
        await until(lambda: any(entry["event"] == "folder.recovered" for entry in log))
    said = [entry for entry in log if entry["event"] in ("folder.failed", "folder.recovered", "mailbox.failed")]
    assert [(entry["event"], entry["mailbox"], entry["folder"]) for entry in said] == [
        ("folder.failed", "support", ORDERS),
        ("folder.recovered", "support", ORDERS),
    ]
    assert "the server says NO" in said[0]["reason"]
    await site.alarm.step()
    (fault,) = await site.ledger.faults("support")
    assert (fault.event, fault.detail) == ("folder.failed", "Orders: the server says NO")


async def test_status_shows_which_folder_fails_and_why_until_it_is_back() -> None:
    site = rig()
    site.source.faults.fail("open:Orders", TransientError("the server says NO"), times=FOR_EVER)
    async with site.running():
        await until(lambda: health(site).failing)
        await until(lambda: health(site).condition is Condition.WAITING)
        (row,) = site.health.report()
        assert row["failing_folders"] == {ORDERS: "the server says NO"}
        assert row["reason"] == "Orders: the server says NO"
        assert "1 behind" in site.health.line()
        site.source.faults.clear()
        await until(lambda: not health(site).failing)
        (row,) = site.health.report()
        assert (row["failing_folders"], row["reason"]) == ({}, "")
        assert "1 up" in site.health.line()


async def test_a_failing_folder_is_an_alarm_of_its_own_that_ends_with_it() -> None:
    site = rig()
    site.source.faults.fail("open:Orders", TransientError("NO"), times=FOR_EVER)
    async with site.running():
        await until(lambda: health(site).failing)
        await polled(site)
        assert await alarms(site) == [ALARM]
        site.source.faults.clear()
        await polled(site)
        site.later(minutes=2)
        await site.alarm.step()
        assert await alarms(site) == []


async def test_an_alarm_of_an_earlier_run_ends_when_its_folder_is_polled() -> None:
    before = rig()
    before.source.faults.fail("open:Orders", TransientError("NO"), times=FOR_EVER)
    async with before.running():
        await until(lambda: health(before).failing)
    site = rig(ledger=before.ledger.restarted())
    assert await alarms(site) == [ALARM]
    async with site.running():
        await polled(site)
        site.later(minutes=2)
        await site.alarm.step()
        assert await alarms(site) == []


async def test_a_configured_folder_that_is_missing_counts_as_failing_until_it_is_there() -> None:
    site = rig()
    del site.mailbox.folders[ORDERS]
    expected = fill(site, INBOX, "a")
    async with site.running():
        await until(lambda: site.subjects() == expected)
        await polled(site)
        assert list(health(site).failing) == [ORDERS]
        assert await alarms(site) == [ALARM]
        site.mailbox.folders[ORDERS] = FakeFolder()
        expected += fill(site, ORDERS, "late")
        await until(lambda: site.subjects() == expected)
        await until(lambda: not health(site).failing)


async def test_a_mailbox_none_of_whose_folders_can_be_opened_is_down() -> None:
    site = rig()
    site.source.faults.fail("open", TransientError("the disk of the server is broken"), times=FOR_EVER)
    async with site.running():
        await until(lambda: health(site).condition is Condition.RETRYING)
        assert health(site).reason == "the disk of the server is broken"
        assert await alarms(site) == ["mailbox-down:support"]


async def test_a_session_that_is_lost_in_one_folder_is_lost_for_all() -> None:
    site = rig()
    site.source.faults.fail("open:Orders", SessionLost("cut"))
    expected = fill(site, INBOX, "a") + fill(site, ORDERS, "b")
    async with site.running():
        await until(lambda: site.subjects() == expected)
    assert site.source.steps.count("connect") == 2
    assert not health(site).failing


async def test_a_server_that_wants_to_be_left_alone_is_not_asked_for_the_other_folders() -> None:
    site = rig()
    site.source.faults.fail("open:Orders", TransientError("slow down", retry_after=timedelta(hours=1)))
    async with site.running():
        await until(lambda: health(site).condition is Condition.RETRYING)
        assert site.source.steps.count("open") == 1


@pytest.mark.parametrize("how", ["refused", "missing"])
async def test_draining_once_takes_the_other_folders_and_does_not_call_that_a_success(how: str) -> None:
    site = rig()
    if how == "refused":
        site.source.faults.fail("open:Orders", TransientError("NO"), times=FOR_EVER)
    else:
        del site.mailbox.folders[ORDERS]
    expected = fill(site, INBOX, "a")
    assert await site.watcher.drain() is False
    assert site.subjects() == expected
