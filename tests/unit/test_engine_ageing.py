"""Mail that is moved or deleted some time after it was settled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_rig import Rig, Routes, log

from mailpoller.cli import check
from mailpoller.config import ConfigErrors, load
from mailpoller.core.delivery import Disposition
from mailpoller.core.literals import parse_disposition, write_disposition
from mailpoller.core.verdict import Effect, Match
from mailpoller.engine.queues import State
from mailpoller.testing.builders import plain

__all__ = ["log"]

LATER = {"seen": True, "delete": True, "after": "30d", "max_per_poll": 2}


async def polled(rig: Rig) -> list[str]:
    """What is left after the poll of another interval."""
    rig.runner._ageing._until = 0.0
    await rig.carry()
    return rig.mailbox.uids()


async def test_delivered_mail_is_seen_at_once_and_deleted_a_month_later_so_many_at_each_poll() -> None:
    rig = Rig(disposition=LATER, poll_interval="1h")
    rig.fill(5)
    await rig.carry()
    assert rig.mailbox.uids() == ["1", "2", "3", "4", "5"]
    assert all("\\Seen" in mail.flags for mail in rig.mailbox.folders["INBOX"].mails.values())
    rig.later(days=29, hours=23)
    assert len(await polled(rig)) == 5
    rig.later(hours=2)
    assert await polled(rig) == ["3", "4", "5"]
    await rig.carry()
    assert rig.mailbox.uids() == ["3", "4", "5"], "once in a poll interval"
    assert await polled(rig) == ["5"]
    assert await polled(rig) == []
    assert (await rig.counts())["undisposed"] == 0
    assert sum(rig.subjects().values()) == 5


async def test_no_more_than_the_bound_comes_due_in_an_interval_however_many_folders_there_are() -> None:
    rig = Rig(disposition=LATER, poll_interval="1h")
    names = ["INBOX", "Orders", "Returns"]
    for name in names:
        rig.mailbox.folders.setdefault(name, type(rig.mailbox.folders["INBOX"])())
        for number in range(3):
            rig.mailbox.deliver(plain(subject=f"{name} {number}"), folder=name)

    async def carry_all() -> int:
        for name in names:
            await rig.carry(name)
        return sum(len(rig.mailbox.uids(name)) for name in names)

    assert await carry_all() == 9
    rig.later(days=31)
    for left in (7, 5, 3, 1, 0):
        rig.runner._ageing._until = 0.0
        assert await carry_all() == left
        assert await carry_all() == left, "once in a poll interval"


async def test_mail_is_moved_where_that_is_what_is_wanted() -> None:
    rig = Rig(disposition={"move": "Done", "after": "1h"})
    rig.mailbox.folders["Done"] = type(rig.mailbox.folders["INBOX"])()
    rig.fill(1)
    await rig.carry()
    rig.later(hours=2)
    assert await polled(rig) == []
    assert len(rig.mailbox.uids("Done")) == 1


@pytest.mark.parametrize("word", ["quarantine", "discard"])
async def test_what_no_queue_has_is_never_deleted(word: str) -> None:
    effect = Effect(quarantine="suspicious") if word == "quarantine" else Effect(discard=True)
    rig = Rig(disposition=LATER, rules=[Always(effect)])
    rig.fill(2)
    await rig.carry()
    rig.later(days=400)
    assert len(await polled(rig)) == 2
    assert len(await polled(rig)) == 2


async def test_what_was_cut_is_never_deleted() -> None:
    rig = Rig(disposition=LATER, max_message_size="1KB")
    rig.fill(1, text="x" * 5000)
    await rig.carry()
    rig.later(days=400)
    assert len(await polled(rig)) == 1


async def test_in_shadow_nothing_is_deleted() -> None:
    rig = Rig(disposition=LATER, mode="shadow")
    rig.fill(1)
    await rig.carry()
    rig.later(days=400)
    assert len(await polled(rig)) == 1


async def test_another_message_that_bears_the_name_now_is_not_deleted() -> None:
    rig = Rig(disposition=LATER)
    rig.fill(1)
    await rig.carry()
    mail = rig.mailbox.folders["INBOX"].mails["1"]
    mail.octets = plain(subject="somebody else's", text="of another size")
    rig.later(days=31)
    await polled(rig)
    assert rig.mailbox.uids() == ["1"]


@pytest.mark.parametrize("reachable", [None, frozenset({"support"})])
async def test_nothing_is_deleted_while_a_queue_of_the_mailbox_is_down(reachable: frozenset[str] | None) -> None:
    rig = Rig(disposition=LATER, reachable=reachable, rules=[Routes("message", "support")])
    rig.fill(1)
    await rig.carry()
    rig.later(days=31)
    rig.queues["support"].availability.state = State.DOWN
    assert len(await polled(rig)) == 1
    rig.queues["support"].availability.state = State.UP
    assert await polled(rig) == []


async def test_a_queue_that_the_mail_of_the_mailbox_never_goes_to_holds_nothing_up() -> None:
    rig = Rig(disposition=LATER, reachable=frozenset({"support"}))
    rig.fill(1)
    await rig.carry()
    rig.later(days=31)
    rig.queues["archive"].availability.state = State.DOWN
    assert await polled(rig) == []


class Always:
    """A rule with one effect on everything."""

    name, needs_body = "always", False

    def __init__(self, effect: Effect) -> None:
        self._effect = effect

    def judge(self, message: Any) -> Any:
        return Match(self._effect)


# --- as it is written -----------------------------------------------------------------------------------------------
def test_it_is_read_as_it_was_written() -> None:
    found = parse_disposition(LATER)
    assert parse_disposition(write_disposition(found)) == found
    assert found.at_once == Disposition(seen=True)
    assert found.later == Disposition(seen=True, delete=True)
    assert parse_disposition("delete").later is None


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"seen": True, "after": "1d"}, "after goes with move or delete"),
        ({"delete": True, "after": "0s"}, "more than 0s"),
        ({"delete": True, "after": "soon"}, "a duration is written"),
        ({"delete": True, "max_per_poll": 3}, "goes with after"),
        ({"delete": True, "after": "1d", "max_per_poll": 0}, "1 to 10000"),
    ],
)
def test_what_makes_no_sense_is_refused(written: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_disposition(written)


async def test_check_says_how_many_messages_that_is_today(tmp_path: Path) -> None:
    path = tmp_path / "mailpoller.yaml"
    box = "type: imap, host: imap.example.com, username: u, password: p, default_queue: q"
    whole = (
        "service: {{state_directory: {0}}}\nqueues: {{q: {{type: jsonl, path: {0}/q}}}}\n"
        "mailboxes:\n  support: {{{1}, {2}}}\n"
    )
    path.write_text(whole.format(tmp_path, box, "disposition: {delete: true, after: 30d}"))
    config = load(path)
    assert check._ageing(config, None) == [], "there is no ledger yet"
    ledger = await config.ledger.open(Rig().clock)
    await ledger.close()
    assert check._ageing(config, None) == [{"mailbox": "support", "what": "delete", "messages": 0, "max_per_poll": 100}]
    path.write_text(whole.format(tmp_path, box, "on_quarantine: {delete: true, after: 30d}"))
    with pytest.raises(ConfigErrors, match="delivered mail alone"):
        load(path)


def live(rig: Rig) -> None:
    """The mailbox is in shadow no more, as after a reload."""
    ageing = rig.runner._ageing
    ageing._config = rig.config.model_copy(update={"mode": "live"})
    ageing._noted.clear()


async def test_what_was_settled_in_shadow_is_never_deleted_once_the_mailbox_is_live() -> None:
    rig = Rig(disposition=LATER, mode="shadow", poll_interval="1h")
    rig.fill(2)
    await rig.carry()
    rig.later(days=400)
    live(rig)
    assert len(await polled(rig)) == 2, "another program was to deal with it"
    rig.fill(1)
    assert len(await polled(rig)) == 3
    rig.later(days=31)
    assert await polled(rig) == ["1", "2"], "what came since is ours"
