"""Octets that events refer to: held before an event names them, and kept as long as somebody may ask for them."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
import pytest

from mailpoller.blobs.filesystem import FilesystemBlobsConfig, store
from mailpoller.blobs.filesystem.store import FilesystemBlobs
from mailpoller.config import ConfigErrors, load
from mailpoller.config.registry import Registry
from mailpoller.core.attributes import NONE_SAID
from mailpoller.core.component import SinkConfig
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import MachineTrouble, TransientError
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.ports import BlobReference, OctetsPlace
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.core.spool import Octets
from mailpoller.core.verdict import Deliver
from mailpoller.engine.blob_sweeper import Sweeper
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.delivering import delivery_to
from mailpoller.engine.queues import Queue, State
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.parser import parse
from mailpoller.sinks.sqlite import SqliteQueueConfig
from mailpoller.sinks.sqlite.consumer import open_queue
from mailpoller.testing.deliveries import SAMPLE, spooled
from unit.sink_runtime import HandClock, disk_steps, make_runtime

LARGE = SAMPLE + b"x" * 5000
KEEP = timedelta(days=30)
Make = Callable[..., FilesystemBlobs]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def make(tmp_path: Path, clock: HandClock) -> AsyncIterator[Make]:
    """Makes stores of one directory, as several processes would have them."""
    made: list[FilesystemBlobs] = []

    def make(**settings: object) -> FilesystemBlobs:
        more = {"type": "filesystem", "path": tmp_path / "blobs", "min_free": 0, **settings}
        made.append(FilesystemBlobsConfig.model_validate(more).build(make_runtime(tmp_path, clock)))
        return made[-1]

    yield make
    for one in made:
        await one.close()


class Consumer:
    """A sink that looks, whenever it is brought something, for what the event refers to. As one that can be looked
    into it holds ``ids``."""

    def __init__(self, place: OctetsPlace = "inside") -> None:
        self.octets_place: OctetsPlace = place
        self.found: list[bytes | None] = []
        self.events: list[dict[str, Any]] = []
        self.ids: set[str] = set()
        self.trouble: TransientError | None = None

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        for one in batch:
            data = orjson.loads(one.event.structured())["data"]
            self.events.append(data)
            href = data.get("raw_blob", {}).get("href")
            self.found.append(None if href is None else Path(urlsplit(href).path).read_bytes())
        return [SealedReceipt(one.delivery_id) for one in batch]

    async def still_holds(self, delivery_ids: Collection[str]) -> Collection[str]:
        if self.trouble is not None:
            raise self.trouble
        return [one for one in delivery_ids if one in self.ids]

    async def check(self) -> None: ...

    async def close(self) -> None: ...


class Owing:
    """A ledger that owes these messages."""

    def __init__(self) -> None:
        self.mids: set[str] = set()

    async def still_owed(self, mids: Collection[str]) -> Collection[str]:
        return self.mids.intersection(mids)


def queue_of(sink: Any, blobs: FilesystemBlobs | None, *, above: int = 1000, name: str = "support") -> Queue:
    return Queue(
        name,
        sink,
        payload="summary",
        octets_wanted=True,
        retry_interval=timedelta(seconds=60),
        clock=SystemClock(),
        blobs=blobs,
        blobs_above=above,
    )


def delivery(queue: Queue, octets: bytes | Octets, uid: int = 1) -> Delivery:
    held = Octets.of(octets) if isinstance(octets, bytes) else octets
    claim = Claim(MessageRef(Folder("m", "INBOX", "epoch"), str(uid), held.size), f"mid-{uid}")
    raw = RawMessage(claim, held)
    renderer = EventRenderer(parse(raw), verdict=Deliver((queue.name,)), source="s", now=HandClock().now())
    return delivery_to(queue, queue.name, renderer, raw, f"id-{uid}", NONE_SAID)


def blob_path(tmp_path: Path, octets: bytes) -> Path:
    return tmp_path / "blobs" / Octets.of(octets).digest.hex()


def referring(octets: bytes, uid: int = 1, queue: str = "support") -> tuple[list[Octets], list[BlobReference]]:
    held = Octets.of(octets)
    return [held], [BlobReference(held.digest, queue, f"id-{uid}", f"mid-{uid}")]


# --- referring ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["inside", "beside"])
async def test_an_event_names_octets_that_lie_there_already(make: Make, place: OctetsPlace, tmp_path: Path) -> None:
    sink, blobs = Consumer(place), make()
    queue = queue_of(sink, blobs)
    one = delivery(queue, LARGE)
    (answer,) = await queue.deliver([one])
    (data,) = sink.events
    assert isinstance(answer, Receipt)
    assert sink.found == [LARGE]
    assert data["raw_blob"] == {
        "sha256": data["sha256"],
        "size": len(LARGE),
        "href": blob_path(tmp_path, LARGE).as_uri(),
    }
    assert "raw" not in data
    assert not one.octets_wanted, "a sink that holds octets beside the event need not hold these"


async def test_a_message_below_the_threshold_brings_its_octets_itself(make: Make, tmp_path: Path) -> None:
    sink, blobs = Consumer(), make()
    queue = queue_of(sink, blobs, above=len(LARGE))
    await queue.deliver([delivery(queue, LARGE)])
    assert "raw" in sink.events[0]
    assert "raw_blob" not in sink.events[0]
    assert not (tmp_path / "blobs").exists()


async def test_a_blob_is_synced_then_named_then_its_name_is_synced_before_the_row_of_its_reference(make: Make) -> None:
    blobs = make()
    await blobs.refer(*referring(b"first"))
    with disk_steps() as steps:
        await blobs.refer(*referring(LARGE))
    part = next(step.removeprefix("sync ") for step in steps if ".part-" in step)
    assert [step for step in steps if step != "sync index.db"] == [f"sync {part}", f"move {part}", "sync blobs"]


async def test_a_spooled_message_is_held_when_its_spool_file_is_gone(make: Make, tmp_path: Path) -> None:
    octets, blobs = spooled(LARGE, tmp_path), make()
    await blobs.refer([octets], [BlobReference(octets.digest, "support", "id", "mid")])
    octets.close()
    assert blob_path(tmp_path, LARGE).read_bytes() == LARGE


async def test_the_group_reads_blobs_and_nobody_else_does_and_none_but_us_writes(make: Make, tmp_path: Path) -> None:
    former = os.umask(0o077)
    try:
        blobs = make()
        await blobs.refer(*referring(LARGE))
    finally:
        os.umask(former)
    assert stat.S_IMODE(blob_path(tmp_path, LARGE).stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "blobs").stat().st_mode) & 0o777 == 0o750
    assert stat.S_IMODE((tmp_path / "blobs" / "index.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("lying", [b"", LARGE[:-1], b"y" * len(LARGE)], ids=["empty", "cut", "others"])
async def test_what_lies_there_is_believed_only_if_it_is_what_its_name_says(
    make: Make, tmp_path: Path, lying: bytes
) -> None:
    blobs = make()
    await blobs.refer(*referring(b"first"))
    blob_path(tmp_path, LARGE).write_bytes(lying)
    await blobs.refer(*referring(LARGE))
    assert blob_path(tmp_path, LARGE).read_bytes() == LARGE


async def test_a_link_in_a_blobs_place_is_replaced_and_never_followed(make: Make, tmp_path: Path) -> None:
    blobs, other = make(), tmp_path / "other"
    other.write_bytes(b"precious")
    await blobs.refer(*referring(b"first"))
    blob_path(tmp_path, LARGE).symlink_to(other)
    await blobs.refer(*referring(LARGE))
    assert other.read_bytes() == b"precious"
    assert blob_path(tmp_path, LARGE).read_bytes() == LARGE


async def test_a_messages_octets_are_read_by_its_mid_if_they_are_what_their_name_says(
    make: Make, tmp_path: Path
) -> None:
    blobs = make()
    seen: list[bytes] = []

    async def read(mid: str) -> bool:
        return await blobs.read(mid, lambda octets: seen.append(bytes(octets)))

    assert not await read("mid-1")
    queue = queue_of(Consumer(), blobs)
    await queue.deliver([delivery(queue, LARGE)])
    assert await read("mid-1")
    assert not await read("mid-2")
    assert seen == [LARGE]
    blob = blob_path(tmp_path, LARGE)
    blob.write_bytes(LARGE[:-1] + b"y")
    assert not await read("mid-1")
    blob.unlink()
    assert not await read("mid-1")
    assert seen == [LARGE]


async def test_a_directory_that_others_may_write_to_is_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs").chmod(0o770)
    blobs = make()
    with pytest.raises(MachineTrouble, match="nobody else may write"):
        await blobs.refer(*referring(LARGE))
    with pytest.raises(TransientError):
        await blobs.check()


async def test_a_disk_without_room_for_blobs_is_the_queues_trouble_and_no_messages(make: Make, tmp_path: Path) -> None:
    sink, blobs = Consumer(), make(min_free="1000000GB")
    queue, other = queue_of(sink, blobs), queue_of(Consumer(), None, name="other")
    with pytest.raises(TransientError, match="nearly full"):
        await queue.deliver([delivery(queue, LARGE)])
    assert queue.state is State.DOWN
    assert sink.events == [], "no event names what is not held"
    assert await queue.trouble() is not None, "it does not take the next message for a sign that there is room"
    (answer,) = await other.deliver([delivery(other, LARGE)])
    assert isinstance(answer, Receipt)
    assert os.listdir(tmp_path / "blobs") in ([], ["index.db"])


async def test_a_cancelled_reference_leaves_nothing_unfinished(make: Make, tmp_path: Path) -> None:
    blobs = make()
    await blobs.refer(*referring(b"first"))
    task = asyncio.create_task(blobs.refer(*referring(LARGE)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await blobs.close()
    assert [name for name in os.listdir(tmp_path / "blobs") if ".part-" in name] == []


# --- removing -----------------------------------------------------------------------------------------------------


class World:
    """A store, a queue that can be looked into, and a ledger."""

    def __init__(self, blobs: FilesystemBlobs, clock: HandClock) -> None:
        self.sink, self.ledger, self.clock = Consumer(), Owing(), clock
        self.queue = queue_of(self.sink, blobs)
        self.sweeper = Sweeper(blobs, KEEP, lambda: [self.queue], self.ledger, clock)  # type: ignore[arg-type]


@pytest.fixture
def world(make: Make, clock: HandClock) -> World:
    return World(make(), clock)


async def test_a_blob_goes_when_it_was_not_referred_to_for_as_long_as_it_is_kept(
    make: Make, tmp_path: Path, clock: HandClock, world: World
) -> None:
    blobs = make()
    await blobs.refer(*referring(LARGE))
    clock.advance(KEEP - timedelta(hours=1))
    await blobs.refer(*referring(b"later", 2))
    assert await world.sweeper.sweep() == 0
    clock.advance(timedelta(hours=2))
    assert await world.sweeper.sweep() == 1
    assert not blob_path(tmp_path, LARGE).exists()
    assert blob_path(tmp_path, b"later").exists()


async def test_a_blob_stays_while_a_queue_holds_its_event(
    make: Make, tmp_path: Path, clock: HandClock, world: World
) -> None:
    blobs = make()
    await blobs.refer(*referring(LARGE))
    world.sink.ids = {"id-1"}
    for _ in range(3):
        clock.advance(KEEP * 2)
        assert await world.sweeper.sweep() == 0
    world.sink.ids = set()
    assert await world.sweeper.sweep() == 0, "it was needed a moment ago"
    clock.advance(KEEP * 2)
    assert await world.sweeper.sweep() == 1


async def test_a_blob_stays_while_a_queue_holds_its_event_that_had_another_name_long_ago(
    make: Make, clock: HandClock, world: World
) -> None:
    await make().refer(*referring(LARGE))
    world.sink.ids = {"id-1"}
    world.queue.name, world.queue.formerly = "third", "second"
    clock.advance(KEEP * 2)
    assert await world.sweeper.sweep() == 0


async def test_a_blob_that_cannot_be_removed_keeps_no_other(
    make: Make, tmp_path: Path, clock: HandClock, world: World
) -> None:
    blobs = make()
    await blobs.refer(*referring(LARGE))
    blob_path(tmp_path, LARGE).unlink()
    blob_path(tmp_path, LARGE).mkdir()
    clock.advance(timedelta(minutes=1))
    await blobs.refer(*referring(b"later", 2))
    clock.advance(KEEP * 2)
    assert await world.sweeper.sweep() == 1
    assert not blob_path(tmp_path, b"later").exists()


async def test_a_blob_stays_while_the_ledger_owes_its_message(make: Make, clock: HandClock, world: World) -> None:
    blobs = make()
    await blobs.refer(*referring(LARGE))
    world.ledger.mids = {"mid-1"}
    clock.advance(KEEP * 2)
    assert await world.sweeper.sweep() == 0


async def test_a_blob_stays_while_its_queue_cannot_be_asked(make: Make, clock: HandClock, world: World) -> None:
    blobs = make()
    await blobs.refer(*referring(LARGE))
    world.sink.trouble = TransientError("away")
    clock.advance(KEEP * 2)
    assert await world.sweeper.sweep() == 0


async def test_a_blob_stays_for_one_of_two_that_refer_to_it(make: Make, clock: HandClock, world: World) -> None:
    blobs = make()
    await blobs.refer(*referring(LARGE, 1))
    await blobs.refer(*referring(LARGE, 2))
    world.sink.ids = {"id-1"}
    clock.advance(KEEP * 2)
    assert await world.sweeper.sweep() == 0


async def test_what_is_referred_to_while_it_is_about_to_be_removed_stays(
    make: Make, tmp_path: Path, clock: HandClock
) -> None:
    removing, referrer = make(), make()  # as two processes have it
    await referrer.refer(*referring(LARGE))
    clock.advance(KEEP * 2)
    before = clock.now() - KEEP
    (idle,) = await removing.idle(before, limit=10)
    await referrer.refer(*referring(LARGE, 2))
    assert await removing.remove([idle.sha256], before) == 0
    assert blob_path(tmp_path, LARGE).read_bytes() == LARGE


async def test_what_was_removed_while_it_is_referred_to_is_written_again(
    make: Make, tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = make()
    await blobs.refer(*referring(LARGE))
    clock.advance(KEEP * 2)
    real, looked = blobs._write, []

    def look_and_lose(wanted: Any, written: Any) -> None:
        real(wanted, written)
        if not looked:
            blob_path(tmp_path, LARGE).unlink()  # between the look and the transaction
        looked.append(1)

    monkeypatch.setattr(blobs, "_write", look_and_lose)
    await blobs.refer(*referring(LARGE, 2))
    assert len(looked) == 2
    assert blob_path(tmp_path, LARGE).read_bytes() == LARGE


async def test_blobs_of_an_index_that_was_lost_are_kept_as_if_they_were_new(
    make: Make, tmp_path: Path, clock: HandClock, world: World
) -> None:
    blobs = make()
    await blobs.refer(*referring(LARGE))
    await blobs.close()  # so that nothing has the index open
    clock.advance(KEEP * 2)
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        (tmp_path / "blobs" / name).unlink(missing_ok=True)
    assert await world.sweeper.sweep() == 0
    clock.advance(KEEP * 2)
    assert await world.sweeper.sweep() == 1
    assert not blob_path(tmp_path, LARGE).exists()


async def test_only_what_a_killed_process_left_is_tidied_away(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = make()
    await blobs.refer(*referring(LARGE))
    old, foreign = (tmp_path / "blobs" / name for name in ("a" * 64 + ".part-1-0", "x"))
    for one in (old, foreign):
        one.write_bytes(b"")
    await blobs.tidy()
    assert old.exists(), "somebody may be at it"
    monkeypatch.setattr(store.time, "time", lambda: old.stat().st_ctime + 4000)
    await blobs.tidy()
    assert not old.exists()
    assert foreign.exists(), "it is none of ours"
    assert blob_path(tmp_path, LARGE).exists()


# --- the configuration --------------------------------------------------------------------------------------------


class KeptQueueConfig(SinkConfig):
    """A queue at a server that keeps events for forty days."""

    type: Literal["kept"]
    blobs_above: int | None = 1_000_000

    def events_kept(self) -> timedelta:
        return timedelta(days=40)


BLOBS = "blobs: {type: filesystem, path: /var/lib/mailpoller/blobs%s}\n"
SQLITE = "queues: {support: {type: sqlite, path: /q/a.db, raw: true, blobs_above: 1MB}}\n"
KEPT = "queues: {support: {type: kept, raw: true}}\n"


def told(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    registry = Registry({("sinks", "kept"): KeptQueueConfig})
    try:
        return [one.message for one in load(path, registry=registry).warnings if "blobs" in one.message]
    except ConfigErrors as errors:
        return [f"error: {one.message}" for one in errors.problems if one.severity == "error"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SQLITE, "error: there is no block blobs:"),
        (BLOBS % "" + KEPT, "error: the queue keeps events for 40d, and blobs.keep is 30d"),
        (BLOBS % ", keep: 5m" + SQLITE, "error: keep is at least 1h"),
        (BLOBS % ", href: 'https://files.example.com'" + SQLITE, "error: href is a URI"),
    ],
)
def test_check_refuses_what_would_name_octets_that_are_not_there(tmp_path: Path, text: str, expected: str) -> None:
    assert any(one.startswith(expected) for one in told(tmp_path, text)), told(tmp_path, text)


@pytest.mark.parametrize("text", [BLOBS % "" + SQLITE, BLOBS % ", keep: 40d" + KEPT, KEPT, BLOBS % "" + "queues: {}\n"])
def test_check_takes_blobs_that_outlive_their_events(tmp_path: Path, text: str) -> None:
    assert told(tmp_path, text) == []


def _warnings(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return [one.message for one in load(path).warnings if "octets" in one.message]


def test_check_says_that_a_queue_without_octets_needs_no_threshold(tmp_path: Path) -> None:
    (warning,) = _warnings(tmp_path, BLOBS % "" + SQLITE.replace(", raw: true", ""))
    assert "does not get the octets" in warning


async def test_an_sqlite_queue_says_which_events_it_still_holds(tmp_path: Path, clock: HandClock) -> None:
    config = SqliteQueueConfig.model_validate({"type": "sqlite", "path": tmp_path / "q.db", "min_free": 0})
    sink = config.build("support", make_runtime(tmp_path, clock))
    queue = queue_of(sink, None)
    await sink.deliver([delivery(queue, SAMPLE, 1), delivery(queue, SAMPLE, 2)])
    with open_queue(tmp_path / "q.db") as opened:
        taken = opened.take(1)
        opened.ack([one.entry.delivery_id for one in taken.messages], taken.token)
    assert list(await sink.still_holds(["id-1", "id-2", "id-3"])) == ["id-2"]
    assert set(await sink.holds(["id-1", "id-2", "id-3"])) == {"id-1", "id-2"}
    await sink.close()
