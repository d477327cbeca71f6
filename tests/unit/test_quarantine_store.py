"""The quarantine's store: what is held, by what it is found, when it expires, and what it does when it is full."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.delivery import Receipt, Refusal
from mailpoller.core.errors import MailpollerError, MessageGone, QueueVanished, TransientError
from mailpoller.core.quarantined import Quarantined, Selection
from mailpoller.quarantine import Store, StoreConfig
from mailpoller.quarantine.store import DAMAGED, EXPIRING
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from unit.sink_runtime import HandClock, make_runtime

ALL = Selection()


class Site:
    """A quarantine on the disk, which may be opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path / "quarantine"
        self.clock = HandClock()
        self.opened: list[Store] = []

    def store(self, **settings: object) -> Store:
        block = StoreConfig.model_validate({"path": self.path, "min_free": 0, **settings})
        store = block.build("quarantine", make_runtime(self.path.parent, self.clock))
        (self.path.parent / "spool").mkdir(exist_ok=True)
        self.opened.append(store)
        return store

    def files(self) -> list[Path]:
        return sorted((self.path / "held").iterdir())


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    for store in made.opened:
        await store.close()


async def only(store: Store, wanted: Selection = ALL) -> Quarantined:
    (held,) = await store.find(wanted, limit=100)
    return held


async def test_what_is_held_is_ours_alone_and_no_path_is_of_the_mail(site: Site) -> None:
    before = os.umask(0)
    try:
        store = site.store()
        await store.deliver([make_delivery(1, b"Subject: ../../etc\r\n\r\n", mailbox="../up", reason="rule")])
    finally:
        os.umask(before)
    for path in (site.path, *site.path.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        expected = 0o700 if path.is_dir() else 0o600
        assert mode == expected or path.name == ".mailpoller-quarantine", path
    (file,) = site.files()
    assert file.name == f"{(await only(store)).delivery_id}.owed"


async def test_octets_and_reason_come_back_as_they_were_also_without_the_index(site: Site) -> None:
    for killed in (False, True):
        store = site.store()
        delivery = make_delivery(1, HOSTILE * 100, reason="auto-reply", detail="it says so")
        (answer,) = await store.deliver([delivery])
        assert isinstance(answer, Receipt) and answer.repeated is killed
        held = await only(store)
        assert (held.mid, held.reason, held.detail) == (delivery.mid, "auto-reply", "it says so")
        octets = await store.octets(held)
        assert bytes(octets.view()) == HOSTILE * 100
        octets.close()
        await store.close()
        for name in ("index.db", "index.db-wal", "index.db-shm"):
            (site.path / name).unlink(missing_ok=True)


async def test_a_message_larger_than_the_whole_quarantine_keeps_no_other_out_of_it(site: Site) -> None:
    store = site.store(max_size=1_000_000)
    (answer,) = await store.deliver([make_delivery(1, b"x" * 1_000_000)])
    assert isinstance(answer, Refusal) and not answer.permanent and answer.blame == "message"
    await store.check()
    (answer,) = await store.deliver([make_delivery(2, b"x")])
    assert isinstance(answer, Receipt)


async def test_a_row_of_the_index_that_makes_no_sense_is_read_anew_from_its_file(site: Site) -> None:
    store = site.store()
    await store.deliver([make_delivery(uid) for uid in (1, 2)])
    with closing(sqlite3.connect(site.path / "index.db", isolation_level=None)) as index:
        index.execute("UPDATE held SET line = X'7B7D' WHERE id = (SELECT min(id) FROM held)")
    with pytest.raises(TransientError):
        await store.owed(HandClock().now() + timedelta(days=9), but=[], limit=9)
    assert len(await store.owed(HandClock().now() + timedelta(days=9), but=[], limit=9)) == 2


async def test_a_damaged_index_is_made_anew_from_the_files(site: Site) -> None:
    store = site.store()
    await store.deliver([make_delivery(uid) for uid in range(1, 8)])
    await store.close()
    (site.path / "index.db").write_bytes(b"no database" * 1000)
    assert len(await site.store().find(ALL, limit=100)) == 7


async def test_a_file_that_was_removed_is_no_receipt(site: Site) -> None:
    store = site.store()
    await store.deliver([make_delivery(1)])
    site.files()[0].unlink()
    (answer,) = await store.deliver([make_delivery(1)])
    assert isinstance(answer, Receipt) and not answer.repeated
    assert len(site.files()) == 1


async def test_octets_that_changed_on_the_disk_are_never_given_out(site: Site) -> None:
    store = site.store()
    await store.deliver([make_delivery(1)])
    held = await only(store)
    (file,) = site.files()
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(MailpollerError, match="digest"):
        await store.octets(held)
    assert [doubt.kind for doubt in await store.upkeep()] == [DAMAGED]
    file.unlink()
    with pytest.raises(MessageGone):
        await store.octets(held)


async def test_a_file_that_is_none_of_ours_is_told_and_left(site: Site) -> None:
    store = site.store()
    await store.deliver([make_delivery(1), make_delivery(2)])
    await store.close()
    (site.path / "index.db").unlink()
    for junk in (b"", b"{}\n", b"x" * 3_000_000, json.dumps({"version": 1}).encode() + b"\n"):
        site.files()[0].write_bytes(junk)
        store = site.store()
        assert [doubt.kind for doubt in await store.upkeep()] == [DAMAGED]
        assert len(await store.find(ALL, limit=9)) == 1
        await store.close()
    assert len(site.files()) == 2


async def test_a_quarantine_that_vanished_is_not_begun_anew(site: Site) -> None:
    store = site.store()
    await store.deliver([make_delivery(1)])
    store.expect(await store.mark())
    site.path.rename(site.path.with_name("elsewhere"))
    for work in (store.check, lambda: store.find(ALL, limit=1), lambda: store.deliver([make_delivery(2)])):
        with pytest.raises(QueueVanished):
            await work()
    assert not site.path.exists()


async def test_every_selection_finds_what_it_names(site: Site) -> None:
    store = site.store()
    await store.deliver([make_delivery(1, mailbox="a", reason="auto-reply")])
    site.clock.advance(timedelta(hours=2))
    await store.deliver([make_delivery(2, mailbox="b", reason="bounce")])
    first, second = await store.find(ALL, limit=9)
    for wanted, expected in (
        (Selection(ids=(first.mid,)), [first]),
        (Selection(ids=(second.delivery_id, first.mid)), [first, second]),
        (Selection(reason="bounce"), [second]),
        (Selection(mailbox="a"), [first]),
        (Selection(mailbox="a", reason="bounce"), []),
        (Selection(older_than=timedelta(hours=1)), [first]),
        (Selection(newer_than=timedelta(hours=1)), [second]),
        (Selection(sender="nobody@example.com"), []),
        (Selection(sender=first.sender.upper()), [first, second]),
        (Selection(sender=first.sender.rpartition("@")[2]), [first, second]),
        (Selection(sender="@" + first.sender.rpartition("@")[2]), [first, second]),
        (Selection(sender="other.example"), []),
    ):
        assert await store.find(wanted, limit=9) == expected, wanted
    assert await store.find(ALL, limit=1) == [first]


async def test_when_it_is_full_it_is_down_until_there_is_room_for_what_waits(site: Site) -> None:
    store = site.store(max_size=20_000)
    mails = [make_delivery(uid, b"x" * 9_000) for uid in (1, 2, 3)]
    answers = await store.deliver(mails)
    assert [type(answer) for answer in answers] == [*([type(answers[0])] * 2), Refusal]
    assert isinstance(answers[2], Refusal) and answers[2].blame == "queue" and not answers[2].permanent
    with pytest.raises(TransientError, match="full"):
        await store.deliver(mails[2:])
    with pytest.raises(TransientError, match="full"):
        await store.check()
    assert len(site.files()) == 2
    await store.remove([mails[0].delivery_id])
    await store.check()
    (answer,) = await store.deliver(mails[2:])
    assert isinstance(answer, Receipt)
    await store.close()
    with pytest.raises(TransientError, match="full"):  # what lies there counts after a restart, too
        await site.store(max_size=20_000).deliver(mails[:1])


async def test_what_expires_was_told_seven_days_before_and_its_notice_was_taken(site: Site) -> None:
    store = site.store(keep="90d")
    await store.deliver([make_delivery(1), make_delivery(2)])
    owed, told = await store.find(ALL, limit=9)
    await store.notified({told.delivery_id: ""})
    site.clock.advance(timedelta(days=82))
    assert await store.upkeep() == []
    site.clock.advance(timedelta(days=1, minutes=1))
    (doubt,) = await store.upkeep()
    assert doubt.kind == EXPIRING and doubt.detail == "2 messages within 7 days"
    site.clock.advance(timedelta(days=6, hours=23))
    await store.upkeep()
    assert len(site.files()) == 2
    site.clock.advance(timedelta(hours=2))
    await store.upkeep()
    assert await only(store) == owed
    site.clock.advance(timedelta(days=80))
    await store.upkeep()
    assert await only(store) == owed
    await store.notified({owed.delivery_id: ""})
    await store.upkeep()
    assert await store.find(ALL, limit=9) == []


async def test_a_notice_that_is_owed_for_ever_keeps_its_message_twice_as_long_and_no_longer(site: Site) -> None:
    """Its mailbox may be disabled for good."""
    store = site.store(keep="90d")
    await store.deliver([make_delivery(1)])
    site.clock.advance(timedelta(days=179))
    assert [doubt.kind for doubt in await store.upkeep()] == [EXPIRING]
    site.clock.advance(timedelta(days=8))
    await store.upkeep()
    assert site.files() == []


async def test_what_is_to_be_kept_for_longer_is_told_of_once_more_before_it_expires(site: Site) -> None:
    store = site.store(keep="90d")
    await store.deliver([make_delivery(1)])
    await store.notified({(await only(store)).delivery_id: ""})
    site.clock.advance(timedelta(days=84))
    assert await store.upkeep()
    store.limit(timedelta(days=365), 1_000_000)
    assert await store.upkeep() == []
    site.clock.advance(timedelta(days=300))  # nobody was told meanwhile: the service was stopped
    assert await store.upkeep()
    assert len(site.files()) == 1
    site.clock.advance(timedelta(days=8))
    await store.upkeep()
    assert site.files() == []


async def test_a_clock_that_jumps_ahead_or_a_long_stop_removes_nothing_before_it_was_told(site: Site) -> None:
    store = site.store(keep="90d")
    await store.deliver([make_delivery(1)])
    await store.notified({(await only(store)).delivery_id: ""})
    site.clock.advance(timedelta(days=400))
    (doubt,) = await store.upkeep()
    assert doubt.kind == EXPIRING
    site.clock.advance(timedelta(days=-400))
    assert await store.upkeep() == []
    site.clock.advance(timedelta(days=91))
    await store.upkeep()
    assert len(site.files()) == 1
    site.clock.advance(timedelta(days=8))
    await store.upkeep()
    assert site.files() == [], "what was told by a wrong clock is told again, and not kept for ever"


async def test_a_notice_is_owed_until_it_is_taken_also_after_a_restart(site: Site) -> None:
    store = site.store()
    await store.deliver([make_delivery(1, mailbox="a"), make_delivery(2, mailbox="b")])
    assert store.news.is_set()
    now = site.clock.now()
    assert [one.mailbox for one in await store.owed(now, but=["b"], limit=9)] == ["a"]
    (held,) = await store.owed(now, but=["b"], limit=9)
    await store.put_off([held.delivery_id], now + timedelta(minutes=1), "550 no", counted=True)
    assert await store.owed(now, but=["b"], limit=9) == []
    (again,) = await store.owed(now + timedelta(minutes=2), but=["b"], limit=9)
    assert (again.notice_tries, again.notice_trouble) == (1, "550 no")
    await store.notified({held.delivery_id: ""})
    await store.close()
    (site.path / "index.db").unlink()
    assert [one.mailbox for one in await site.store().owed(now + timedelta(1), but=[], limit=9)] == ["b"]
