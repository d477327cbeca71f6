"""A name is believed only with its witness, an absence only at the second look, octets only with a proper end."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from engine_rig import Rig, Routes, log

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, MessageRef, Page, Position, RawMessage, Survey
from mailpoller.core.ports import Start
from mailpoller.engine.availability import State
from mailpoller.engine.numbering import HEAD
from mailpoller.testing.builders import plain
from mailpoller.testing.fake_source import SURVEYED, FakeSession

__all__ = ["log"]


def events(log: Sequence[Any], name: str) -> list[Any]:
    return [entry for entry in log if entry["event"] == name]


def down(rig: Rig, queue: str = "support") -> None:
    rig.sinks[queue].faults.fail("deliver", TransientError("down"), times=1000)


def up(rig: Rig, queue: str = "support") -> None:
    rig.sinks[queue].faults.clear()
    rig.queues[queue].availability.state = State.UP


# --- a numbering that was set back ------------------------------------------------------------------------------------
def bear_another(rig: Rig, uid: str, subject: bytes, other: bytes) -> None:
    """Another message, of another size or date, bears this name from now on."""
    mail = rig.mailbox.folders["INBOX"].mails[uid]
    mail.octets = mail.octets.replace(subject, other)
    mail.received += timedelta(minutes=1)


@contextlib.contextmanager
def no_headers(monkeypatch: pytest.MonkeyPatch, *, lost: bool, uid: str = "") -> Iterator[list[str]]:
    """What is fetched to see whose it is does not come; or, if it is the one that is named, the session is ``lost``
    by it."""
    given = FakeSession.fetch
    asked: list[str] = []

    async def fetch(self: FakeSession, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        if limit == HEAD:
            asked.extend(claim.ref.uid for claim in claims)
            if not lost:
                raise TransientError("not now")
            if any(claim.ref.uid == uid for claim in claims):
                self.lost = "the server hung up"
                raise SessionLost(self.lost)
        async for answer in given(self, claims, limit):
            yield answer

    with monkeypatch.context() as changed:
        changed.setattr(FakeSession, "fetch", fetch)
        yield asked


def hangs_up_at(monkeypatch: pytest.MonkeyPatch, uid: str) -> None:
    """The server hangs up whenever this message is asked for."""
    given = FakeSession.fetch

    async def fetch(self: FakeSession, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        for claim in claims:
            if claim.ref.uid == uid:
                self.lost = "the server hung up"
                raise SessionLost(self.lost)
            async for answer in given(self, [claim], limit):
                yield answer

    monkeypatch.setattr(FakeSession, "fetch", fetch)


def only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before is neither listed again, nor surveyed more than once."""
    pending, survey = FakeSession.pending, FakeSession.survey
    surveyed: set[int] = set()

    async def nothing(self: FakeSession, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        async for page in pending(self, folder, since, start):
            yield page if since is None and not self._mailbox.whole else replace(page, refs=())

    async def once(self: FakeSession, folder: Folder, position: Position | None) -> Survey:
        if id(self) in surveyed:
            return Survey()
        surveyed.add(id(self))
        return await survey(self, folder, position)

    monkeypatch.setattr(FakeSession, "pending", nothing)
    monkeypatch.setattr(FakeSession, "survey", once)


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
    rig.later(minutes=5)
    again = Rig(ledger=rig.ledger.restarted(), sinks=rig.sinks)
    again.mailbox.folders, again.clock.ahead = rig.mailbox.folders, rig.clock.ahead
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


async def test_the_position_passes_no_question_however_many_messages_come_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    rig.fill(3)
    await rig.watcher.drain()
    rig.ledger.store.connection.execute("UPDATE folder SET position = '3'")
    bear_another(rig, "3", b"message 2", b"another 2")
    came = rig.fill(2 * SURVEYED, "behind")
    with no_headers(monkeypatch, lost=False):
        rig.later(minutes=2)
        assert not await rig.watcher.drain()
    assert came <= rig.subjects(), "the others go on"
    assert rig.ledger.store.folders["support", "INBOX"][-1].position == "3"
    rig.later(minutes=2)
    await rig.watcher.drain()
    assert rig.subjects()["another 2"] == 1


@pytest.mark.parametrize("whole", [False, True], ids=["numbers", "names"])
async def test_a_known_name_of_which_no_header_comes_is_asked_about_until_one_does(
    monkeypatch: pytest.MonkeyPatch, log: list[Any], whole: bool
) -> None:
    """The source shows what is behind a position once a session; a server that keeps a session for days must not hide
    it by that."""
    rig = Rig(poll_interval="1m")
    rig.mailbox.whole = whole
    rig.fill(3)
    await rig.watcher.drain()
    bear_another(rig, "3", b"message 2", b"another mail 2")
    only_once(monkeypatch)
    session = await rig.source.connect()
    with no_headers(monkeypatch, lost=False):
        for _ in range(3):
            rig.later(minutes=2)
            await rig.watcher._poll(session, ["INBOX"], ["INBOX"])
    assert "another mail 2" not in rig.subjects()
    assert [one.ref.uid for one in rig.health.mailboxes["support"].questioned["INBOX"]] == ["3"], "somebody is told"
    assert len(events(log, "message.questioned")) == 1
    await rig.watcher._poll(session, ["INBOX"], ["INBOX"])
    assert rig.subjects() == {"message 0": 1, "message 1": 1, "message 2": 1, "another mail 2": 1}
    await rig.watcher._poll(session, ["INBOX"], ["INBOX"])
    assert not rig.health.mailboxes["support"].questioned


async def test_a_drain_is_not_done_while_a_known_name_may_be_another_message_s(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.fill(3)
    await rig.watcher.drain()
    bear_another(rig, "3", b"message 2", b"another mail 2")
    with no_headers(monkeypatch, lost=False):
        assert not await rig.watcher.drain()
    assert "whether names stand for other messages cannot be told" in str(rig.watcher.remainder)
    assert await rig.watcher.drain()
    assert rig.subjects()["another mail 2"] == 1


async def test_a_header_that_costs_the_session_stops_no_other_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(poll_interval="1m")
    rig.fill(3)
    await rig.watcher.drain()
    for uid in ("1", "3"):
        rig.mailbox.folders["INBOX"].mails[uid].received += timedelta(minutes=1)
    with no_headers(monkeypatch, lost=True, uid="3") as asked:
        for number in range(8):
            rig.fill(1, f"new {number}")
            rig.later(minutes=2)
            await rig.watcher.drain()
    assert rig.subjects().total() == 11
    assert asked == ["1", "3", "1", "3"], "together, then each alone, and what costs the session not at every poll"
    rig.later(hours=2)
    await rig.watcher.drain()
    assert not rig.watcher._polls._numbering.unanswered()


async def test_a_pop3_server_that_gives_a_name_anew_hides_no_mail_behind_a_position(
    monkeypatch: pytest.MonkeyPatch, log: list[Any]
) -> None:
    """Within a process POP3 lists what is new by name alone."""
    rig = Rig()
    rig.mailbox.whole = True
    rig.fill(3)
    await rig.watcher.drain()
    only_once(monkeypatch)
    bear_another(rig, "2", b"message 1", b"another mail")
    await rig.watcher.drain()
    assert rig.subjects()["another mail"] == 1
    assert not events(log, "epoch.set_back"), "it tells of this name alone"


async def test_mail_under_numbers_that_were_never_listed_is_not_hidden_by_a_server_that_stays_behind(
    log: list[Any],
) -> None:
    rig = Rig(poll_interval="1m")
    rig.fill(1)
    copy = rig.mailbox.copy()
    rig.fill(2, "removed before it was listed")
    for uid in ("2", "3"):
        rig.mailbox.remove(uid)
    rig.fill(9, "lost with the server")
    await rig.watcher.drain()
    rig.mailbox.put_back(copy)
    rig.fill(2, "new")
    for _ in range(3):
        rig.later(minutes=2)
        assert not await rig.watcher.drain(), "it is not done while something stands there that it does not know"
    assert not events(log, "epoch.set_back"), "a replica may lag for so long"
    rig.later(days=1)
    await rig.watcher.drain()
    assert (rig.subjects()["new 0"], rig.subjects()["new 1"]) == (1, 1)
    assert rig.subjects()["message 0"] == 1


@pytest.mark.parametrize(("start", "wanted"), [("all", 1), ("since:2020-01-01", 1), ("now", 0)])
async def test_mail_that_was_removed_before_the_first_run_is_new_if_it_comes_back_with_a_copy(
    start: str, wanted: int
) -> None:
    rig = Rig(start=start)
    long_ago = rig.clock.now() - timedelta(days=10)
    for number in range(3):
        rig.mailbox.deliver(plain(subject=f"old {number}"), received=long_ago)
    copy = rig.mailbox.copy()
    rig.mailbox.remove("2")
    await rig.watcher.drain()
    rig.fill(2)
    await rig.watcher.drain()
    before = rig.downloads()
    rig.mailbox.put_back(copy)
    rig.fill(1, "of another size", text="after the accident")
    rig.later(minutes=2)
    await rig.watcher.drain()
    assert rig.subjects()["old 1"] == wanted
    assert rig.subjects()["of another size 0"] == 1
    assert set(rig.subjects().values()) == {1}
    assert rig.downloads()["1"] == before["1"], "what is known keeps its name and is not fetched again"


async def test_who_is_to_blame_for_lost_sessions_is_asked_for_last_in_a_new_numbering_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(poll_interval="1m")
    rig.fill(2)
    await rig.watcher.drain()
    hangs_up_at(monkeypatch, "3")
    rig.fill(1, "the end of a session")
    await rig.watcher.drain()
    rig.fill(1, "fourth")
    await rig.watcher.drain()
    copy = rig.mailbox.copy()
    rig.fill(1, "fifth")
    await rig.watcher.drain()
    assert rig.subjects().total() == 4
    rig.mailbox.put_back(copy)
    rig.fill(1, "of another size", text="after the accident")
    rig.later(hours=5)
    again = Rig(ledger=rig.ledger.restarted(), sinks=rig.sinks, poll_interval="1m")
    again.clock.ahead, again.mailbox.folders = rig.clock.ahead, rig.mailbox.folders
    assert not await again.watcher.drain()
    assert again.subjects()["of another size 0"] == 1, "before the session is lost again"


async def test_who_is_to_blame_for_lost_sessions_comes_last_whenever_he_is_due_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(poll_interval="1m")
    hangs_up_at(monkeypatch, "1")
    rig.fill(1, "the end of a session")
    for _ in range(3):
        await rig.watcher.drain()
    for number in range(3):
        rig.fill(1, f"new {number}")
        rig.later(hours=5)
        assert not await rig.watcher.drain()
        assert rig.subjects()[f"new {number} 0"] == 1, "before the session is lost again"


async def test_who_is_put_off_is_to_blame_still_after_a_pass_that_did_not_ask_for_him(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    hangs_up_at(monkeypatch, "1")
    rig.fill(1)
    for _ in range(3):
        await rig.watcher.drain()
    again = Rig(ledger=rig.ledger.restarted(), sinks=rig.sinks)
    again.mailbox.folders = rig.mailbox.folders
    assert not await again.watcher.drain()
    folder = Folder("support", "INBOX", "fake fake.example support 1")
    assert [ref.uid for ref, _ in await rig.ledger.blamed(folder)] == ["1"]


async def test_who_was_in_doubt_beside_the_one_who_is_to_blame_is_not_in_doubt_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    hangs_up_at(monkeypatch, "1")
    rig.fill(3)
    folder = Folder("support", "INBOX", "fake fake.example support 1")
    for _ in range(3):
        await rig.watcher.drain()
    assert [ref.uid for ref, _ in await rig.ledger.blamed(folder)] == ["1"]
    assert rig.subjects().total() == 2


async def test_who_came_is_not_in_doubt_any_more_and_his_name_is_nobody_s_once_it_is_free() -> None:
    """A name that was asked for again after its message was deleted would be claimed for another one, which nobody
    ever sees."""
    rig = Rig(batch=50, disposition="delete", poll_interval="1m")
    rig.mailbox.whole = True
    expected = rig.fill(1, "first")
    assert await rig.watcher.drain()
    expected += rig.fill(40)
    rig.source.faults.fail("fetch", SessionLost("the server hung up"))
    await rig.watcher.drain()
    rig.source.faults.fail("fetch:1", SessionLost("the server hung up"))
    await rig.watcher.drain()
    rig.source.faults.fail(
        "fetch", SessionLost("the server hung up"), after=2
    )  # the header of what is to be deleted, and one alone
    await rig.watcher.drain()
    assert len(rig.source.faults.met) == 3
    rig.later(hours=5)
    assert await rig.watcher.drain()
    assert rig.subjects() == expected
    assert {row.bearer for row in rig.ledger.store.messages.values()} == {0}


async def test_who_is_to_blame_comes_after_those_that_a_process_died_with(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.fill(3)
    session = await rig.source.connect()
    folder = await session.open("INBOX")
    await rig.ledger.open_folder(folder, rig.source.account)
    await rig.ledger.claim([MessageRef(folder, uid) for uid in ("1", "2", "3")])
    await rig.ledger.blame([MessageRef(folder, "1")])
    again = Rig(ledger=rig.ledger.restarted())
    again.mailbox.folders = rig.mailbox.folders
    hangs_up_at(monkeypatch, "1")
    assert not await again.watcher.drain()
    assert again.subjects() == {"message 1": 1, "message 2": 1}, "before the session is lost again"


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


async def test_a_store_that_is_away_is_noticed_though_more_mail_waits_than_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, log: list[Any]
) -> None:
    monkeypatch.setattr("mailpoller.engine.absence.LOOKED_FOR", 5)
    rig = Rig(rules=[Routes("filed", "archive")])
    rig.fill(30)
    rig.fill(1, "filed")
    down(rig)
    down(rig, "archive")
    await rig.watcher.drain()
    away, rig.mailbox.folders["INBOX"].mails = rig.mailbox.folders["INBOX"].mails, {}
    up(rig, "archive")
    for _ in range(3):
        rig.later(hours=1)
        await rig.watcher.drain()
    assert events(log, "mail.absent")
    assert (await rig.counts())["deferred"] == 31, "none counts as gone"
    rig.mailbox.folders["INBOX"].mails = away
    rig.later(hours=1)
    await rig.watcher.drain()
    assert rig.subjects("archive") == Counter(["filed 0"])


async def test_what_ended_as_gone_long_ago_is_asked_for_though_much_has_gone_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mailpoller.engine.numbering.LOOKED_FOR", 2)
    rig = Rig()
    old, new = rig.fill(3, "old"), rig.fill(7, "new", start=3)
    down(rig)
    await rig.watcher.drain()
    up(rig)
    mails = rig.mailbox.folders["INBOX"].mails
    away = {uid: mails.pop(uid) for uid in ("1", "2", "3")}
    await rig.watcher.drain()
    rig.later(days=9)
    assert await rig.watcher.drain()
    assert rig.subjects() == new
    rig.fill(5, "deleted by a person")
    down(rig)
    await rig.watcher.drain()
    up(rig)
    for uid in [uid for uid in mails if int(uid) > 10]:
        del mails[uid]
    for _ in range(2):
        await rig.watcher.drain()
        rig.later(days=9)
    assert (await rig.counts())["deferred"] == 0
    mails.update(away)
    for _ in range(20):  # where it begins is left to chance, and a round takes four
        rig.later(minutes=11)
        await rig.watcher.drain()
    assert rig.subjects() == old + new


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
    rig.queues["support"].availability.state = State.DOWN
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
async def test_a_message_that_some_of_its_queues_hold_stays_itself_in_a_new_numbering() -> None:
    """Under another mid the queue that holds it would have it twice, and could not know it again."""
    rig = Rig(rules=[Routes("two", "support", "archive")])
    down(rig, "archive")
    expected = rig.fill(3, "two")
    await rig.watcher.drain()
    assert rig.subjects() == expected
    mids = {held.mid for held in rig.sinks["support"].held.values()}
    rig.mailbox.renumber()
    await rig.watcher.drain()
    up(rig, "archive")
    rig.later(hours=1)
    await rig.watcher.drain()
    assert rig.subjects() == rig.subjects("archive") == expected
    assert {held.mid for held in rig.sinks["archive"].held.values()} == mids


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
