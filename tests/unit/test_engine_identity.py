"""A name is believed only with its witness, an absence only at the second look, octets only with a proper end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from engine_rig import Rig, Routes, log

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, Page, Position, RawMessage
from mailpoller.core.ports import Start
from mailpoller.engine.queues import State
from mailpoller.testing.builders import plain
from mailpoller.testing.fake_source import FakeSession

__all__ = ["log"]


def events(log: Sequence[Any], name: str) -> list[Any]:
    return [entry for entry in log if entry["event"] == name]


def down(rig: Rig, queue: str = "support") -> None:
    rig.sinks[queue].faults.fail("deliver", TransientError("down"), times=1000)


def up(rig: Rig, queue: str = "support") -> None:
    rig.sinks[queue].faults.clear()
    rig.queues[queue].state = State.UP


# --- a numbering that was set back ------------------------------------------------------------------------------------
async def test_mail_that_gets_the_number_of_a_delivered_one_after_the_server_was_put_back_is_delivered(
    log: list[Any],
) -> None:
    rig = Rig(disposition="delete")
    expected = rig.fill(5)
    copy = rig.mailbox.copy()
    await rig.watcher.drain()
    assert not rig.mailbox.uids()
    rig.fill(3, "later", start=5)
    await rig.watcher.drain()
    rig.mailbox.put_back(copy)
    rig.mailbox.deliver(plain(subject="new and of another size", text="after the accident"))
    rig.later(minutes=2)
    assert await rig.watcher.drain()
    assert rig.subjects()["new and of another size"] == 1
    assert all(rig.subjects()[subject] == 1 for subject in expected), "what was known is not delivered again"
    assert not rig.mailbox.uids(), "and deleted once more"
    assert events(log, "epoch.set_back")


async def test_a_deletion_that_is_owed_destroys_no_other_message_that_has_its_number_now() -> None:
    rig = Rig(disposition="delete")
    rig.fill(2)
    copy = rig.mailbox.copy()
    rig.fill(1, "owed", start=2)
    rig.source.faults.fail("settle", TransientError("not now"), times=1)
    await rig.watcher.drain()
    rig.source.faults.clear()
    assert "owed 2" in rig.subjects()
    rig.mailbox.put_back(copy)
    rig.mailbox.deliver(plain(subject="not yet delivered"))
    down(rig)
    await rig.watcher.drain()
    assert any(b"not yet delivered" in mail.octets for mail in rig.mailbox.folders["INBOX"].mails.values())
    up(rig)
    rig.later(minutes=2)
    await rig.watcher.drain()
    rig.later(minutes=2)
    assert await rig.watcher.drain()
    assert rig.subjects()["not yet delivered"] == 1


async def test_a_replica_that_lags_begins_nothing_anew_and_delivers_nothing_twice(log: list[Any]) -> None:
    rig = Rig()
    rig.fill(5)
    await rig.watcher.drain()
    copy = rig.mailbox.copy()
    expected = rig.fill(8)
    await rig.watcher.drain()
    whole = rig.mailbox.folders["INBOX"]
    for _ in range(3):
        rig.mailbox.put_back(copy)
        rig.later(minutes=2)
        await rig.watcher.drain()
        rig.mailbox.put_back(whole)
        rig.later(minutes=2)
        assert await rig.watcher.drain()
    assert rig.subjects().total() == expected.total() + 5
    assert not events(log, "epoch.set_back")


async def test_what_changes_size_alone_is_the_same_message_and_nothing_is_told_twice() -> None:
    rig = Rig()
    rig.fill(5)
    await rig.watcher.drain()
    for mail in rig.mailbox.folders["INBOX"].mails.values():
        head, _, body = mail.octets.partition(b"\r\n\r\n")
        mail.octets = head + b"\r\nStatus: RO\r\n\r\n" + body
    rig.later(minutes=2)
    assert await rig.watcher.drain()
    assert rig.subjects().total() == 5


async def test_a_suspect_whose_number_another_message_has_is_no_repeat_for_the_queue() -> None:
    rig = Rig()
    rig.fill(1, "first")
    rig.ledger.fail("settle", times=1000)
    await rig.watcher.drain()
    assert rig.subjects() == {"first 0": 1}
    rig.mailbox.folders["INBOX"].mails["1"].octets = plain(subject="other 0", text="hello")
    again = Rig(ledger=rig.ledger.restarted(), sinks=rig.sinks)
    again.mailbox.folders = rig.mailbox.folders
    assert await again.watcher.drain()
    assert again.subjects() == {"first 0": 1, "other 0": 1}


async def test_what_was_in_doubt_in_a_numbering_that_was_set_back_hides_nothing_in_the_next_one() -> None:
    rig = Rig()
    rig.fill(2)
    copy = rig.mailbox.copy()
    rig.fill(1, "third")
    await rig.watcher.drain()
    rig.fill(2, "lost")
    rig.source.faults.fail("fetch", SessionLost("the server hung up"), times=1)
    await rig.watcher.drain()
    rig.mailbox.put_back(copy)
    expected = rig.fill(3, "of another size", text="after the accident")
    # The header that raises the question, and the first batch; whatever is tried after that, alone, fails.
    rig.source.faults.fail("fetch", SessionLost("the server hung up"), times=3, after=2)
    rig.later(minutes=2)
    await rig.watcher.drain()
    again = Rig(ledger=rig.ledger.restarted(), sinks=rig.sinks)
    again.mailbox.folders = rig.mailbox.folders
    again.later(minutes=5)
    await again.watcher.drain()
    assert all(again.subjects()[subject] == 1 for subject in expected), again.subjects()


async def test_a_name_that_is_listed_as_new_and_known_as_settled_is_looked_at_before_it_passes() -> None:
    rig = Rig()
    rig.fill(3)
    await rig.watcher.drain()
    # As it is left by a pass that ended before its listing was recorded.
    rig.ledger.store.connection.execute("UPDATE folder SET position = '3'")
    other = rig.mailbox.folders["INBOX"].mails["3"]
    other.octets = other.octets.replace(b"message 2", b"another 2")
    other.received += timedelta(minutes=1)
    rig.later(minutes=2)
    assert await rig.watcher.drain()
    assert rig.subjects()["another 2"] == 1


async def test_a_drain_is_not_done_while_names_are_shown_that_only_a_further_look_decides_about() -> None:
    rig = Rig()
    rig.fill(3)
    back = rig.mailbox.folders["INBOX"].mails.pop("2")
    assert await rig.watcher.drain()
    rig.mailbox.folders["INBOX"].mails["2"] = back
    rig.later(minutes=2)
    assert not await rig.watcher.drain()
    rig.later(minutes=2)
    assert await rig.watcher.drain()
    assert rig.subjects()["message 1"] == 1


async def test_names_that_are_shown_once_and_not_again_begin_nothing_anew(log: list[Any]) -> None:
    rig = Rig()
    rig.fill(3)
    back = rig.mailbox.folders["INBOX"].mails.pop("2")
    assert await rig.watcher.drain()
    rig.mailbox.folders["INBOX"].mails["2"] = back
    rig.later(minutes=2)
    await rig.watcher.drain()
    assert events(log, "epoch.doubted")
    del rig.mailbox.folders["INBOX"].mails["2"]
    rig.later(minutes=2)
    assert await rig.watcher.drain()
    assert not events(log, "epoch.set_back")
    assert rig.subjects().total() == 2


async def test_the_position_stays_before_a_name_whose_header_could_not_be_had() -> None:
    rig = Rig()
    rig.fill(3)
    await rig.watcher.drain()
    rig.ledger.store.connection.execute("UPDATE folder SET position = '3'")
    other = rig.mailbox.folders["INBOX"].mails["3"]
    other.octets = other.octets.replace(b"message 2", b"another 2")
    other.received += timedelta(minutes=1)
    rig.source.faults.fail("fetch", TransientError("not now"), times=1)
    rig.later(minutes=2)
    assert not await rig.watcher.drain()
    rig.later(minutes=2)
    assert await rig.watcher.drain()
    assert rig.subjects()["another 2"] == 1


async def test_a_message_that_some_of_its_queues_hold_is_no_repeat_of_an_earlier_one_with_its_octets() -> None:
    rig = Rig(rules=[Routes("twin", "support", "archive")])
    octets = plain(subject="twin")
    rig.mailbox.deliver(octets)
    await rig.watcher.drain()
    rig.mailbox.remove("1")
    rig.mailbox.deliver(octets)
    down(rig, "archive")
    await rig.watcher.drain()
    assert (rig.subjects("support"), rig.subjects("archive")) == ({"twin": 2}, {"twin": 1})
    folder = next(iter(rig.ledger.store.folders.values()))[-1].folder
    await rig.ledger.begin_anew(folder, "for the test")
    up(rig, "archive")
    rig.later(minutes=5)
    await rig.watcher.drain()
    assert (rig.subjects("support"), rig.subjects("archive")) == ({"twin": 2}, {"twin": 2})


async def test_a_message_that_comes_again_while_the_first_one_waits_for_one_of_its_queues_says_what_it_repeats() -> (
    None
):
    rig = Rig(rules=[Routes("twin", "support", "archive")])
    octets = plain(subject="twin")
    down(rig, "archive")
    rig.mailbox.deliver(octets)
    await rig.watcher.drain()
    rig.mailbox.deliver(octets)
    await rig.watcher.drain()
    first, second = rig.sinks["support"].held.values()
    assert json.loads(first.event)["data"]["repeat_of"] is None
    assert json.loads(second.event)["data"]["repeat_of"] == first.mid


async def test_a_pop3_server_that_names_everything_anew_has_nothing_delivered_twice(log: list[Any]) -> None:
    rig = Rig()
    rig.mailbox.whole = True
    expected = rig.fill(4)
    assert await rig.watcher.drain()
    place = rig.mailbox.folders["INBOX"]
    for mail in place.mails.values():
        mail.uid = str(int(mail.uid) + 100)
    place.mails = {mail.uid: mail for mail in place.mails.values()}
    place.uid_next = 105
    expected += rig.fill(1, "new")
    rig.later(minutes=2)
    assert await rig.watcher.drain()
    assert events(log, "epoch.set_back")
    assert rig.subjects() == expected


# --- what a start leaves out ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("start", ["now", "since:2000-01-01"])
async def test_what_a_source_without_a_position_says_is_unwanted_is_never_delivered(
    start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(start=start)
    rig.fill(3, "old")
    pending = FakeSession.pending

    async def telling(self: FakeSession, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        everything = [page async for page in pending(self, folder, None, Start("all"))]
        refs = [ref for page in everything for ref in page.refs]
        yield Page([], None, 0, refs) if start.kind in ("now", "since") else Page(refs, None, len(refs))

    monkeypatch.setattr(FakeSession, "pending", telling)
    assert await rig.watcher.drain()
    rig.fill(2, "new")
    rig.later(minutes=2)
    await rig.ledger.complete(next(iter(rig.ledger.store.folders.values()))[-1].folder)
    assert await rig.watcher.drain()
    assert rig.subjects() == {"new 0": 1, "new 1": 1}


# --- what the server was not told -------------------------------------------------------------------------------------
async def test_what_a_lost_session_left_untold_is_the_next_pass_s_first_thing_and_no_minute_is_waited_for() -> None:
    rig = Rig(disposition="delete")
    rig.fill(2)
    rig.source.faults.fail("settle", SessionLost("the server hung up"), times=1)
    with pytest.raises(SessionLost):
        await rig.carry()
    assert len(rig.mailbox.uids()) == 2
    await rig.carry()
    assert not rig.mailbox.uids()


# --- absence --------------------------------------------------------------------------------------------------------
async def test_mail_that_waits_for_a_queue_while_the_store_is_away_is_not_lost(log: list[Any]) -> None:
    rig = Rig()
    expected = rig.fill(5)
    down(rig)
    await rig.watcher.drain()
    away, rig.mailbox.folders["INBOX"].mails = rig.mailbox.folders["INBOX"].mails, {}
    up(rig)
    for _ in range(5):
        rig.later(hours=5)
        assert not await rig.watcher.drain()
    assert events(log, "mail.absent")
    rig.mailbox.folders["INBOX"].mails = away
    rig.later(hours=5)
    assert await rig.watcher.drain()
    assert rig.subjects() == expected


@pytest.mark.parametrize("accepted", [True, False])
async def test_many_absences_are_believed_when_an_operator_says_so_or_after_a_week(accepted: bool) -> None:
    rig = Rig()
    rig.fill(5)
    down(rig)
    await rig.watcher.drain()
    rig.mailbox.folders["INBOX"].mails.clear()
    up(rig)
    await rig.watcher.drain()
    if accepted:
        rig.later(minutes=2)
        assert await rig.ledger.accept(rig.name, "absence") == 1
    else:
        rig.later(days=8)
    assert await rig.watcher.drain()
    assert (await rig.counts())["deferred"] == 0


async def test_one_message_that_is_gone_at_two_looks_is_claimed_anew_when_it_is_back() -> None:
    rig = Rig()
    expected = rig.fill(3)
    down(rig)
    await rig.watcher.drain()
    up(rig)
    away = rig.mailbox.folders["INBOX"].mails.pop("2")
    await rig.watcher.drain()
    rig.later(minutes=2)
    assert await rig.watcher.drain()
    assert (await rig.counts())["deferred"] == 0
    rig.mailbox.folders["INBOX"].mails["2"] = away
    rig.later(minutes=2)
    assert await rig.watcher.drain()
    assert rig.subjects() == expected


async def test_what_some_of_its_queues_hold_and_is_gone_reaches_the_others_when_it_is_back() -> None:
    rig = Rig(rules=[Routes("both", "support", "archive")])
    rig.fill(3, "both")
    down(rig, "archive")
    await rig.watcher.drain()
    away = rig.mailbox.folders["INBOX"].mails.pop("2")
    up(rig, "archive")
    for _ in range(3):
        rig.later(minutes=2)
        await rig.watcher.drain()
    assert (await rig.counts())["deferred"] == 0
    rig.mailbox.folders["INBOX"].mails["2"] = away
    rig.later(minutes=2)
    assert await rig.watcher.drain()
    assert rig.subjects("archive") == rig.subjects("support") == {f"both {number}": 1 for number in range(3)}


async def test_a_first_look_by_a_clock_that_was_ahead_keeps_nobody_waiting_until_then() -> None:
    rig = Rig()
    rig.fill(3)
    down(rig)
    await rig.watcher.drain()
    up(rig)
    rig.mailbox.folders["INBOX"].mails.pop("2")
    rig.later(days=10)
    await rig.watcher.drain()
    rig.later(days=-10)
    for _ in range(3):
        rig.later(minutes=2)
        done = await rig.watcher.drain()
    assert done


# --- start ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("start", "wanted"), [("now", {"new": 1}), ("unseen", {"old": 1, "new": 1})])
async def test_start_is_decided_at_first_contact_even_if_every_queue_is_down(
    start: str, wanted: dict[str, int]
) -> None:
    rig = Rig(start=start, reachable=frozenset(["support"]))
    rig.mailbox.deliver(plain(subject="old"))
    rig.mailbox.deliver(plain(subject="read"), flags=["\\Seen"])
    down(rig)
    rig.queues["support"].state = State.DOWN
    await rig.watcher.drain()
    rig.mailbox.deliver(plain(subject="new"))
    for mail in rig.mailbox.folders["INBOX"].mails.values():
        mail.flags.add("\\Seen")
    up(rig)
    rig.later(minutes=2)
    await rig.watcher.drain()
    assert rig.subjects() == wanted


# --- equal octets ----------------------------------------------------------------------------------------------------
async def test_a_second_mail_with_equal_octets_is_delivered_in_a_new_numbering() -> None:
    rig = Rig()
    octets = plain(subject="twin")
    rig.mailbox.deliver(octets)
    await rig.watcher.drain()
    rig.mailbox.renumber()
    rig.mailbox.deliver(octets)
    assert await rig.watcher.drain()
    assert rig.subjects() == {"twin": 2}


# --- routes -----------------------------------------------------------------------------------------------------------
async def test_a_recorded_queue_that_is_not_configured_any_more_never_counts_as_delivered(log: list[Any]) -> None:
    rig = Rig()
    rig.fill(1)
    down(rig)
    await rig.watcher.drain()
    connection = rig.ledger.store.connection
    connection.execute("UPDATE message SET route = '[\"vanished\"]', receipts = '{}', waits_for = NULL")
    up(rig)
    rig.later(hours=5)
    await rig.watcher.drain()
    assert rig.subjects() == {"message 0": 1}
    assert events(log, "route.changed")


async def test_what_was_brought_to_a_queue_under_its_former_name_is_not_brought_again(log: list[Any]) -> None:
    rig = Rig()
    rig.fill(1)
    down(rig)
    await rig.watcher.drain()
    connection = rig.ledger.store.connection
    connection.execute(
        'UPDATE message SET route = \'["help", "archive"]\', receipts = \'{"help": "row 1"}\', waits_for = NULL'
    )
    rig.queues["support"].formerly = "help"
    up(rig)
    rig.later(hours=5)
    await rig.watcher.drain()
    assert (rig.subjects(), rig.subjects("archive")) == ({}, {"message 0": 1})
    assert not events(log, "route.changed")


# --- octets without a proper end --------------------------------------------------------------------------------------
def doubting(rig: Rig, monkeypatch: pytest.MonkeyPatch, uid: str) -> list[int]:
    """That message's octets are in doubt; how many were asked for together with it."""
    fetch, together = FakeSession.fetch, []

    async def doubted(self: FakeSession, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        if any(claim.ref.uid == uid for claim in claims):
            together.append(len(claims))
        async for answer in fetch(self, claims, limit):
            if isinstance(answer, RawMessage) and answer.claim.ref.uid == uid:
                answer = replace(answer, doubt="its list is not closed")
            yield answer

    monkeypatch.setattr(FakeSession, "fetch", doubted)
    return together


async def test_octets_in_doubt_are_asked_for_alone_and_end_in_one_copy_while_the_original_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(disposition="delete", on_quarantine="delete")
    rig.fill(4)
    together = doubting(rig, monkeypatch, "2")
    for _ in range(5):
        await rig.watcher.drain()
        rig.later(minutes=20)
    assert together[0] == 4
    assert set(together[1:]) == {1}
    assert rig.subjects().total() == 3
    assert rig.mailbox.uids() == ["2"], "the original is untouched"
    (held,) = rig.sinks["quarantine"].held.values()
    assert (held.reason, "list is not closed" in held.detail) == ("octets-doubtful", True)
    assert await rig.watcher.drain(), "nothing is left to do"
    row = rig.ledger.message(next(iter(rig.ledger.store.messages))[0], "2")
    assert row is not None
    assert row.outcome is not None
    assert row.outcome.kind == "doubtful"


async def test_octets_that_come_whole_at_last_are_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    expected = rig.fill(3)
    with monkeypatch.context() as patch:
        doubting(rig, patch, "2")
        await rig.watcher.drain()
    rig.later(minutes=20)
    assert await rig.watcher.drain()
    assert rig.subjects() == expected
    assert not rig.sinks["quarantine"].held
