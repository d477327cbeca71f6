"""Consumers of an SQLite queue: whoever takes a message has it alone, until the time is over or it is done."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.delivery import Delivery
from mailpoller.core.errors import MessageGone, TransientError
from mailpoller.sinks.sqlite import SqliteQueueConfig
from mailpoller.sinks.sqlite.consumer import Queue, open_queue
from mailpoller.testing.deliveries import HOSTILE, make_delivery, spooled
from servers.command import mailpoller
from unit.sink_runtime import make_runtime

LARGE = HOSTILE * 1000


async def fill(path: Path, *deliveries: Delivery) -> None:
    sink = SqliteQueueConfig(type="sqlite", path=path, raw=True, min_free=0).build("support", make_runtime(path.parent))
    await sink.deliver(deliveries)
    await sink.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue" / "support.db"


@pytest.fixture
async def queue(path: Path) -> AsyncIterator[Queue]:
    """A queue of five: low, normal, high, normal with large octets, normal without octets."""
    await fill(
        path,
        make_delivery(1, priority="low"),
        make_delivery(2, octets=HOSTILE, topic="billing", tags=("vip", "Größe"), reason="poison", detail="why"),
        make_delivery(3, priority="high"),
        make_delivery(4, octets=LARGE),
        make_delivery(5, octets_wanted=False),
    )
    with open_queue(path) as queue:
        yield queue


def id_of(uid: int) -> str:
    return make_delivery(uid).delivery_id


def backdate(path: Path) -> None:
    """Let the time of everything that is taken be over."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE message SET taken_until = taken_until - 100000 WHERE taken_until > 0")
    connection.close()


def test_highest_priority_is_taken_first_and_then_the_oldest(queue: Queue) -> None:
    taken = queue.take(4)
    assert [one.entry.delivery_id for one in taken.messages] == [id_of(uid) for uid in (3, 2, 4, 5)]
    assert [one.entry.delivery_id for one in queue.take(4).messages] == [id_of(1)]
    assert queue.take(4).messages == []


def test_a_taken_message_holds_event_and_octets_as_they_were(queue: Queue) -> None:
    by_id = {one.entry.delivery_id: one for one in queue.take(5).messages}
    for uid, octets in ((2, HOSTILE), (4, LARGE), (5, None)):
        assert by_id[id_of(uid)].octets() == octets
        assert (
            json.loads(by_id[id_of(uid)].event)
            == json.loads(make_delivery(uid, octets or b"Hello.").event.structured())
            or uid == 5
        )
    entry = by_id[id_of(2)].entry
    assert (entry.topic, entry.tags, entry.reason, entry.detail) == ("billing", ("vip", "Größe"), "poison", "why")
    assert (entry.octets_size, by_id[id_of(5)].entry.octets_size) == (len(HOSTILE), None)
    assert by_id[id_of(4)].octets_path is not None


def test_what_is_acknowledged_is_gone_and_remembered(queue: Queue) -> None:
    taken = queue.take(2)
    ids = [one.entry.delivery_id for one in taken.messages]
    assert sorted(queue.ack(ids, taken.token)) == sorted(ids)
    assert queue.ack(ids, taken.token) == []
    counts = queue.counts()
    assert (counts.ready, counts.taken, counts.acknowledged) == (3, 0, 2)


async def test_what_was_acknowledged_is_not_accepted_again(queue: Queue, path: Path) -> None:
    taken = queue.take(5)
    queue.ack([one.entry.delivery_id for one in taken.messages], taken.token)
    await fill(path, make_delivery(1), make_delivery(4, octets=LARGE))
    assert queue.counts().ready == 0


def test_a_taker_that_died_loses_the_message_to_the_next_when_its_time_is_over(queue: Queue, path: Path) -> None:
    dead = queue.take(1, taker="dead")
    assert queue.list(state="taken")[0].taker == "dead"
    backdate(path)
    alive = queue.take(1, taker="alive")
    assert alive.messages[0].entry.delivery_id == dead.messages[0].entry.delivery_id
    assert alive.messages[0].entry.attempts == 2


@pytest.mark.parametrize("act", ["ack", "return_", "extend"])
def test_who_comes_too_late_touches_nothing_of_the_next_taker(queue: Queue, path: Path, act: str) -> None:
    late = queue.take(1)
    ids = [late.messages[0].entry.delivery_id]
    backdate(path)
    queue.take(1, taker="next")
    assert getattr(queue, act)(ids, late.token) == []
    (entry,) = queue.list(state="taken")
    assert (entry.delivery_id, entry.taker) == (ids[0], "next")


def test_who_is_late_but_nobody_came_may_still_acknowledge(queue: Queue, path: Path) -> None:
    late = queue.take(1)
    ids = [late.messages[0].entry.delivery_id]
    backdate(path)
    assert queue.ack(ids, late.token) == ids


def test_a_returned_message_is_there_at_once_or_after_its_delay(queue: Queue) -> None:
    taken = queue.take(2)
    first, second = (one.entry.delivery_id for one in taken.messages)
    assert queue.return_([first], taken.token) == [first]
    assert queue.return_([second], taken.token, delay=timedelta(hours=1)) == [second]
    assert queue.ack([first], taken.token) == [], "the lease ended with the return"
    again = [one.entry.delivery_id for one in queue.take(5).messages]
    assert first in again
    assert second not in again


def test_an_extended_take_outlasts_its_first_time(queue: Queue, path: Path) -> None:
    taken = queue.take(1, duration=timedelta(seconds=1))
    ids = [taken.messages[0].entry.delivery_id]
    assert queue.extend(ids, taken.token, duration=timedelta(days=2)) == ids
    backdate(path)
    assert queue.list(state="taken")[0].delivery_id == ids[0]


def test_an_operator_may_act_without_the_lease(queue: Queue) -> None:
    ids = [queue.take(1).messages[0].entry.delivery_id]
    assert queue.return_(ids, None) == ids
    assert queue.ack(ids, None) == ids


def test_messages_are_listed_in_the_order_they_would_be_taken(queue: Queue) -> None:
    assert [entry.delivery_id for entry in queue.list()] == [id_of(uid) for uid in (3, 2, 4, 5, 1)]
    queue.take(1)
    assert [entry.delivery_id for entry in queue.list(limit=2, state="ready")] == [id_of(2), id_of(4)]
    assert [entry.state for entry in queue.list(state="taken")] == ["taken"]


def test_a_message_is_shown_by_delivery_id_mid_or_number_and_stays(queue: Queue) -> None:
    delivery = make_delivery(4)
    for name in (delivery.delivery_id, delivery.mid, "4"):
        assert queue.show(name).octets() == LARGE
    assert queue.counts().ready == 5
    with pytest.raises(MessageGone, match="does not hold nothing"):
        queue.show("nothing")


def test_counts_say_when_the_oldest_arrived(queue: Queue) -> None:
    assert queue.counts().oldest_at == min(entry.arrived_at for entry in queue.list())


def test_takers_at_once_never_share_a_message(queue: Queue, path: Path) -> None:
    got: list[str] = []

    def consume() -> None:
        with open_queue(path) as mine:
            while (taken := mine.take(1)).messages:
                ids = [one.entry.delivery_id for one in taken.messages]
                got.extend(ids)
                assert mine.ack(ids, taken.token) == ids

    threads = [threading.Thread(target=consume) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(id_of(uid) for uid in range(1, 6))


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be taken for one" * 20])
def test_what_is_no_queue_is_not_opened(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.db").write_bytes(content)
    with pytest.raises(TransientError):
        open_queue(tmp_path / "other.db")


def test_a_queue_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="there is no queue"):
        open_queue(tmp_path / "missing.db")
    assert list(tmp_path.iterdir()) == []


def test_a_locked_queue_is_said_to_be_locked(queue: Queue, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with open_queue(path, busy_timeout=timedelta(milliseconds=20)) as impatient:
        with pytest.raises(TransientError, match="locked"):
            impatient.take(1)
        assert len(impatient.list()) == 5, "readers wait for nobody"
    other.close()


def test_a_row_that_names_a_file_elsewhere_is_not_followed(queue: Queue, path: Path) -> None:
    secret = path.parent.parent / "secret"
    secret.write_text("secret")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE message SET octets_file = '../../secret' WHERE octets_file IS NOT NULL")
    connection.close()
    with pytest.raises(TransientError, match="cannot be its own"):
        queue.show("4")


def test_a_link_in_place_of_an_octets_file_is_not_followed(queue: Queue) -> None:
    held = queue.show("4")
    assert held.octets_path is not None
    held.octets_path.rename(held.octets_path.with_name("elsewhere"))
    held.octets_path.symlink_to("elsewhere")
    with pytest.raises(TransientError, match="cannot read"):
        held.octets()


async def test_a_spooled_message_is_read_whole(path: Path, tmp_path: Path) -> None:
    octets = random.Random(3).randbytes(3_000_000)
    held = spooled(octets, tmp_path)
    await fill(path, make_delivery(1, octets=held))
    held.close()
    with open_queue(path) as queue:
        assert queue.take(1).messages[0].octets() == octets


async def test_what_came_is_peeked_at_in_its_order_and_what_comes_later_follows(path: Path, queue: Queue) -> None:
    assert [entry.delivery_id for entry in queue.latest(2)] == [id_of(4), id_of(5)]
    last = queue.latest(1)[0].seq
    assert queue.after(last) == []
    queue.ack([id_of(5)], None)
    await fill(path, make_delivery(6), make_delivery(7, priority="high"))
    assert [entry.delivery_id for entry in queue.after(last)] == [id_of(6), id_of(7)], "no number is given twice"
    assert queue.counts().taken == 0
    said = mailpoller("queue", "peek", str(path), "-n", "2", "--json")
    assert [json.loads(line)["delivery_id"] for line in said.out.splitlines()] == [id_of(6), id_of(7)]


async def test_peek_follows_until_it_is_interrupted(path: Path, queue: Queue) -> None:
    command = [sys.executable, "-m", "mailpoller", "queue", "peek", str(path), "-n", "0", "--follow", "--json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        coming = asyncio.create_task(process.stdout.readline())
        came = []
        while not coming.done():  # what came before its first look is nothing new
            came.append(id_of(len(came) + 6))
            await fill(path, make_delivery(len(came) + 5))
            await asyncio.wait([coming], timeout=1)
            assert len(came) < 60
        assert json.loads(coming.result())["delivery_id"] in came
    finally:
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
