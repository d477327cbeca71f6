"""What every sink promises, as tests: subclass :class:`SinkSuite` and say how to make the sink and what it holds.

    class TestMySink(SinkSuite):
        def make_sink(self, directory):
            return MySinkConfig(type="mine", path=directory / "queue").build("support", runtime)

        def held(self, directory):
            return [row.delivery_id for row in look_into(directory / "queue")]

Each test gets an empty directory; a sink that is a server's client may use its name to keep the tests apart. The file
that defines the subclass is loaded again, by its path, in a process of its own that is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import QueueVanished, TransientError
from mailpoller.core.ports import Marked, Sink, Upkept
from mailpoller.testing.deliveries import HOSTILE, make_delivery, spooled

KILLED_SIZES = (300, 9_000, 200_000)
"""Octets of the messages, in turn, that the process which is killed delivers."""

_MARK = "receipt "
"""What tells a receipt from a line of the log in the output of the process that is killed."""


class SinkSuite:
    """The promises of :class:`~mailpoller.core.ports.Sink`. Flags say which of the optional ones a sink makes."""

    exactly_once = True
    """A repeat is held once, also after a restart. Else it may be held twice then."""
    holds_events = True
    holds_octets = True
    """The sink keeps the raw octets, beside the event or inside it."""
    fails_with_the_disk = True
    """The sink writes files in this process, so that a limit on their size makes it fail."""
    kills = 20
    """How often a process that delivers is killed at random."""
    batch_seconds = 30.0
    """The longest that a batch of 1,000 small messages may take."""

    # --- what a subclass says --------------------------------------------------------------------------------------

    def make_sink(self, directory: Path) -> Sink:
        """A new sink that delivers into ``directory``, where an earlier one may have delivered."""
        raise NotImplementedError

    def held(self, directory: Path) -> Sequence[str]:
        """The delivery id of every message held there, as a consumer sees it; one that is held twice, twice."""
        raise NotImplementedError

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        """The event as a consumer sees it. Only called if ``holds_events``."""
        raise NotImplementedError

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        """The raw octets as a consumer sees them. Only called if ``holds_octets``."""
        raise NotImplementedError

    def move(self, queue: Path, to: Path) -> None:
        """What lies in one directory lies in the other from now on. To be overruled where it is not files."""
        queue.rename(to)

    def copy(self, queue: Path, to: Path) -> None:
        """What lies in one directory lies in the other too."""
        shutil.copytree(queue, to)

    @contextlib.contextmanager
    def failing_disk(self, directory: Path) -> Iterator[None]:
        """Inside, the sink cannot write. The default lets no file of this process grow beyond 100 kB."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    # --- helpers -----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def sink(self, directory: Path) -> AsyncIterator[Sink]:
        """A sink that is closed at the end."""
        sink = self.make_sink(directory)
        try:
            yield sink
        finally:
            await sink.close()

    def order(self, sink: Sink, uid: int, octets: bytes = b"Subject: x\r\n\r\nx\r\n", **more: object) -> Delivery:
        """A delivery as this sink wants it."""
        return make_delivery(uid, octets, place=sink.octets_place, **more)  # type: ignore[arg-type]

    def assert_whole(self, directory: Path, delivery: Delivery) -> None:
        """The message is held once, with its event and octets as they were given."""
        assert list(self.held(directory)).count(delivery.delivery_id) == 1
        if self.holds_events:
            assert json.loads(self.event_of(directory, delivery.delivery_id)) == json.loads(delivery.event.structured())
        if self.holds_octets:
            assert self.octets_of(directory, delivery.delivery_id) == bytes(delivery.raw.octets.view())

    # --- the promises ----------------------------------------------------------------------------------------------

    async def test_every_delivery_is_answered_in_its_place(self, tmp_path: Path) -> None:
        async with self.sink(tmp_path) as sink:
            batch = [self.order(sink, uid) for uid in (3, 1, 2)]
            answers = await sink.deliver(batch)
        assert [answer.delivery_id for answer in answers] == [one.delivery_id for one in batch]
        assert all(isinstance(answer, Receipt) and not answer.repeated for answer in answers)
        assert sorted(self.held(tmp_path)) == sorted(one.delivery_id for one in batch)

    async def test_an_empty_batch_is_no_trouble(self, tmp_path: Path) -> None:
        async with self.sink(tmp_path) as sink:
            assert list(await sink.deliver([])) == []

    async def test_a_healthy_sink_passes_its_check_and_delivers_nothing_by_it(self, tmp_path: Path) -> None:
        async with self.sink(tmp_path) as sink:
            await sink.check()
            await sink.check()
            assert list(self.held(tmp_path)) == []
            await sink.deliver([self.order(sink, 1)])
            await sink.check()
        assert len(self.held(tmp_path)) == 1

    async def test_a_check_leaves_no_trace(self, tmp_path: Path) -> None:
        before = _tree(tmp_path)
        async with self.sink(tmp_path) as sink:
            await sink.check()
        assert _tree(tmp_path) == before, "nothing was there yet"
        async with self.sink(tmp_path) as sink:
            await sink.deliver([self.order(sink, 1)])
        before = _tree(tmp_path)
        async with self.sink(tmp_path) as sink:
            await sink.check()
        assert _tree(tmp_path) == before, "everything was there"

    async def test_a_healthy_sink_doubts_nothing_and_says_beforehand_what_it_may_doubt(self, tmp_path: Path) -> None:
        async with self.sink(tmp_path) as sink:
            if not isinstance(sink, Upkept):
                assert not hasattr(sink, "upkeep"), "who has upkeep says what it may doubt, or it is never called"
                pytest.skip("this sink has no upkeep")
            before = list(sink.doubts)
            assert len({kind.name for kind in before}) == len(before)
            await sink.deliver([self.order(sink, 1)])
            assert list(await sink.upkeep()) == []
            assert list(sink.doubts) == before
            assert len(self.held(tmp_path)) == 1, "its upkeep takes nothing away"

    async def test_a_queue_bears_one_mark_from_its_first_delivery_on(self, tmp_path: Path) -> None:
        heights = []
        identities = set()
        for uid in (1, 2, 3):
            async with self.sink(tmp_path) as sink:
                if not isinstance(sink, Marked):
                    pytest.skip("this sink's queue bears no mark")
                before = _tree(tmp_path)
                found = await sink.mark()
                assert (found is None) == (uid == 1)
                assert _tree(tmp_path) == before, "a look leaves no trace"
                await sink.deliver([self.order(sink, uid)])
                for mark in (await sink.mark(), await sink.renewed()):
                    assert mark is not None
                    heights.append(mark.height)
                    identities.add(mark.identity)
        assert len(identities) == 1
        assert heights == sorted(heights)
        assert len(set(heights)) >= 3, "it grows as the queue is delivered to"
        async with self.sink(tmp_path / "another") as sink:
            await sink.deliver([self.order(sink, 1)])
            assert isinstance(sink, Marked)
            other = await sink.mark()
            assert other is not None
            assert other.identity not in identities

    @pytest.mark.parametrize("how", ["gone", "another", "an older copy"])
    @pytest.mark.parametrize("running", [False, True], ids=["down", "running"])
    async def test_a_vanished_queue_is_not_begun_anew(self, tmp_path: Path, how: str, running: bool) -> None:
        queue, other, copy = tmp_path / "queue", tmp_path / "other", tmp_path / "copy"
        async with self.sink(queue) as sink:
            if not isinstance(sink, Marked):
                pytest.skip("this sink's queue bears no mark")
            await sink.deliver([self.order(sink, 1)])
            await sink.renewed()
        async with self.sink(other) as sink:
            await sink.deliver([self.order(sink, uid) for uid in range(10, 20)])
        self.copy(queue, copy)
        async with contextlib.AsyncExitStack() as stack:
            sink = await stack.enter_async_context(self.sink(queue))
            await sink.deliver([self.order(sink, 2)])
            assert isinstance(sink, Marked)
            mark = await sink.renewed()
            if not running:
                await stack.aclose()
                sink = await stack.enter_async_context(self.sink(queue))
            assert isinstance(sink, Marked)
            sink.expect(mark)
            if running:
                await sink.deliver([self.order(sink, 3)])
            self.move(queue, tmp_path / "aside")
            if how != "gone":
                self.move(other if how == "another" else copy, queue)
            before = set(_tree(tmp_path))
            for _ in range(2):
                with pytest.raises(QueueVanished):
                    await sink.deliver([self.order(sink, 4)])
                with pytest.raises(QueueVanished):
                    await sink.check()
                with pytest.raises(QueueVanished):
                    await sink.renewed()
            assert set(_tree(tmp_path)) <= before, "nothing was made"
            if how == "gone":
                self.move(tmp_path / "aside", queue)
                await sink.check()
                assert isinstance((await sink.deliver([self.order(sink, 4)]))[0], Receipt), "it is back"
                return
            sink.expect(None)
            assert isinstance((await sink.deliver([self.order(sink, 4)]))[0], Receipt), "it was adopted"
            found = await sink.mark()
            assert found is not None and mark is not None
            assert (found.identity == mark.identity) == (how == "an older copy")

    async def test_a_repeat_is_receipted_and_said_to_be_one(self, tmp_path: Path) -> None:
        async with self.sink(tmp_path) as sink:
            await sink.deliver([self.order(sink, 1)])
            first, second = await sink.deliver([self.order(sink, 1), self.order(sink, 2)])
        assert isinstance(first, Receipt)
        assert isinstance(second, Receipt)
        assert (first.repeated, second.repeated) == (True, False)
        assert len(self.held(tmp_path)) == 2

    async def test_a_repeat_within_a_batch_is_held_once(self, tmp_path: Path) -> None:
        async with self.sink(tmp_path) as sink:
            answers = await sink.deliver([self.order(sink, 1), self.order(sink, 2), self.order(sink, 1)])
        assert [isinstance(answer, Receipt) and answer.repeated for answer in answers] == [False, False, True]
        assert len(self.held(tmp_path)) == 2

    async def test_a_repeat_after_a_restart_is_held_once(self, tmp_path: Path) -> None:
        if not self.exactly_once:
            pytest.skip("this sink promises at least once")
        for _ in range(2):
            async with self.sink(tmp_path) as sink:
                answers = await sink.deliver([self.order(sink, 1), self.order(sink, 2, octets=HOSTILE * 2000)])
                assert all(isinstance(answer, Receipt) for answer in answers)
        assert len(self.held(tmp_path)) == 2

    async def test_two_messages_with_equal_octets_stay_two(self, tmp_path: Path) -> None:
        async with self.sink(tmp_path) as sink:
            await sink.deliver([self.order(sink, 1), self.order(sink, 2)])
        assert len(self.held(tmp_path)) == 2

    @pytest.mark.parametrize("times", [0, 1, 1000, 12_000], ids=["empty", "small", "medium", "large"])
    async def test_octets_are_held_bit_for_bit(self, tmp_path: Path, times: int) -> None:
        async with self.sink(tmp_path) as sink:
            delivery = self.order(sink, 1, octets=HOSTILE * times)
            await sink.deliver([delivery])
        self.assert_whole(tmp_path, delivery)

    async def test_a_spooled_message_is_held_after_its_spool_file_is_gone(self, tmp_path: Path) -> None:
        octets = random.Random(1).randbytes(6_000_000)
        (tmp_path / "spool").mkdir()
        async with self.sink(tmp_path) as sink:
            held = spooled(octets, tmp_path / "spool")
            delivery = make_delivery(1, held, place=sink.octets_place)
            (answer,) = await sink.deliver([delivery])
            held.close()
        assert isinstance(answer, Receipt)
        if self.holds_octets:
            assert self.octets_of(tmp_path, delivery.delivery_id) == octets

    async def test_one_spooled_message_goes_to_two_queues(self, tmp_path: Path) -> None:
        octets = random.Random(2).randbytes(2_000_000)
        (tmp_path / "spool").mkdir()
        held = spooled(octets, tmp_path / "spool")
        for queue in ("one", "two"):
            async with self.sink(tmp_path / queue) as sink:
                delivery = make_delivery(1, held, place=sink.octets_place)
                await sink.deliver([delivery])
                if self.holds_octets:
                    assert self.octets_of(tmp_path / queue, delivery.delivery_id) == octets

    async def test_the_event_is_held_as_it_was_written(self, tmp_path: Path) -> None:
        if not self.holds_events:
            pytest.skip("this sink holds no events")
        text = 'line\nline\r\n\0 "quoted" \\ Grüße 日本 🎈 \u2028 \ufffd </script>'
        async with self.sink(tmp_path) as sink:
            deliveries = [self.order(sink, 1, text=text), self.order(sink, 2, text=text * 20_000)]
            await sink.deliver(deliveries)
        for delivery in deliveries:
            self.assert_whole(tmp_path, delivery)

    async def test_a_thousand_messages_are_one_batch_like_any_other(self, tmp_path: Path) -> None:
        async with self.sink(tmp_path) as sink:
            batch = [self.order(sink, uid) for uid in range(1000)]
            async with asyncio.timeout(self.batch_seconds):
                answers = await sink.deliver(batch)
        assert [answer.delivery_id for answer in answers] == [one.delivery_id for one in batch]
        assert sorted(self.held(tmp_path)) == sorted(one.delivery_id for one in batch)

    async def test_batches_delivered_at_once_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        async with self.sink(tmp_path) as sink:
            batches = [
                [self.order(sink, n * 10 + i, octets=bytes([n]) * (100_000 if i == 5 else 50)) for i in range(10)]
                for n in range(8)
            ]
            answers = await asyncio.gather(*(sink.deliver(batch) for batch in batches))
        for batch, answered in zip(batches, answers, strict=True):
            assert [answer.delivery_id for answer in answered] == [one.delivery_id for one in batch]
        everything = [one for batch in batches for one in batch]
        assert sorted(self.held(tmp_path)) == sorted(one.delivery_id for one in everything)
        for delivery in (everything[5], everything[76]):
            self.assert_whole(tmp_path, delivery)

    async def test_a_second_sink_finds_what_the_first_one_held(self, tmp_path: Path) -> None:
        for uid in (1, 2):
            async with self.sink(tmp_path) as sink:
                await sink.deliver([self.order(sink, uid)])
        assert len(self.held(tmp_path)) == 2

    async def test_closing_twice_is_harmless(self, tmp_path: Path) -> None:
        unused = self.make_sink(tmp_path / "unused")
        await unused.close()
        sink = self.make_sink(tmp_path)
        await sink.deliver([self.order(sink, 1)])
        await sink.close()
        await sink.close()
        assert len(self.held(tmp_path)) == 1

    async def test_a_cancelled_delivery_leaves_messages_whole_or_not_there(self, tmp_path: Path) -> None:
        async with self.sink(tmp_path) as sink:
            batches = [
                [self.order(sink, n * 10 + i, octets=HOSTILE * (300 if i % 2 else 2)) for i in range(10)]
                for n in range(12)
            ]
            for number, batch in enumerate(batches):
                task = asyncio.create_task(sink.deliver(batch))
                await asyncio.sleep(0.0006 * number)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            for delivery_id in self.held(tmp_path):
                (delivery,) = (one for batch in batches for one in batch if one.delivery_id == delivery_id)
                self.assert_whole(tmp_path, delivery)
            for batch in batches:
                assert all(isinstance(answer, Receipt) for answer in await sink.deliver(batch))
        assert sorted(self.held(tmp_path)) == sorted(one.delivery_id for batch in batches for one in batch)

    async def test_a_disk_that_fails_costs_time_and_no_mail(self, tmp_path: Path) -> None:
        if not self.fails_with_the_disk:
            pytest.skip("this sink writes no files here")
        async with self.sink(tmp_path) as sink:
            before = self.order(sink, 1)
            await sink.deliver([before])
            batch = [self.order(sink, 2), self.order(sink, 3, octets=HOSTILE * 4000), self.order(sink, 4)]
            many = [self.order(sink, uid, octets=HOSTILE * 20) for uid in range(10, 70)]
            receipts: set[str] = {before.delivery_id}
            failures = 0
            with self.failing_disk(tmp_path):
                for attempt in (batch, batch, many):
                    try:
                        answers = await sink.deliver(attempt)
                    except TransientError as error:
                        assert str(error)
                        failures += 1
                        continue
                    assert [answer.delivery_id for answer in answers] == [one.delivery_id for one in attempt]
                    refused = [answer for answer in answers if isinstance(answer, Refusal)]
                    assert not any(answer.permanent for answer in refused)
                    failures += bool(refused)
                    receipts.update(answer.delivery_id for answer in answers if isinstance(answer, Receipt))
            assert failures, "the disk did not fail"
            assert set(self.held(tmp_path)) == receipts, "what has no receipt is seen by nobody"
            # The same sink goes on once there is room again.
            for attempt in (batch, many):
                assert all(isinstance(answer, Receipt) for answer in await sink.deliver(attempt))
        assert len(self.held(tmp_path)) == 1 + len(batch) + len(many)
        for delivery in (before, *batch, many[0], many[-1]):
            self.assert_whole(tmp_path, delivery)

    async def test_a_disk_that_is_full_costs_time_and_no_mail(self, tmp_path: Path) -> None:
        with self.small_disk(tmp_path) as directory:
            ballast = directory / "ballast"
            receipts: set[str] = set()
            octets = random.Random(5).randbytes(150_000)
            failures = 0
            async with self.sink(directory) as sink:
                ballast.write_bytes(bytes(2_000_000))
                batches = [[self.order(sink, n * 3 + i, octets=octets) for i in range(3)] for n in range(20)]
                for batch in batches:
                    try:
                        answers = await sink.deliver(batch)
                    except TransientError:
                        failures += 1
                    else:
                        receipts.update(answer.delivery_id for answer in answers if isinstance(answer, Receipt))
                        failures += any(isinstance(answer, Refusal) for answer in answers)
                assert failures, "the disk did not fill up"
                assert set(self.held(directory)) == receipts
                ballast.unlink()
                (answer,) = await sink.deliver([batches[-1][0]])
                assert isinstance(answer, Receipt)
                self.assert_whole(directory, batches[-1][0])

    async def test_a_disk_that_turns_read_only_is_noticed_and_so_is_its_recovery(self, tmp_path: Path) -> None:
        with self.small_disk(tmp_path) as directory:
            async with self.sink(directory) as sink:
                await sink.deliver([self.order(sink, 1)])
            # A sink of its own: no file system turns read-only by command while files on it are open for writing.
            async with self.sink(directory) as sink:
                _mount("-o", "remount,ro", str(directory))
                for call in (sink.check(), sink.deliver([self.order(sink, 2)])):
                    with pytest.raises(TransientError):
                        await call
                _mount("-o", "remount,rw", str(directory))
                await sink.check()
                await sink.deliver([self.order(sink, 2)])
            assert len(self.held(directory)) == 2

    @contextlib.contextmanager
    def small_disk(self, directory: Path) -> Iterator[Path]:
        """A file system of 4 MB in the directory. Skips the test where none can be mounted."""
        if not self.fails_with_the_disk:
            pytest.skip("this sink writes no files here")
        disk = directory / "disk"
        disk.mkdir()
        try:
            _mount("-t", "tmpfs", "-o", "size=4m", "mailpoller-test", str(disk))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a small disk needs root")
        try:
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)

    def test_what_was_receipted_survives_a_kill_at_the_next_instant(self, tmp_path: Path) -> None:
        with self._process(tmp_path, first=0) as process:
            receipts = _lines(process, at_least=1)
            process.kill()
            receipts += _lines(process)
        assert set(receipts) <= set(self.held(tmp_path))

    def test_kills_at_random_lose_nothing_that_was_receipted(self, tmp_path: Path) -> None:
        chance = random.Random(4)
        receipts: list[str] = []
        for number in range(self.kills):
            # Every process starts where the one before was, and so repeats what that one may have delivered.
            with self._process(tmp_path, first=max(0, len(set(receipts)) - 5)) as process:
                found = _lines(process, at_least=1)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.random() * 0.15)
                process.kill()
                receipts += found + _lines(process)
            assert found, f"process {number} delivered nothing"
        held = list(self.held(tmp_path))
        assert set(receipts) <= set(held)
        if self.exactly_once:
            assert len(held) == len(set(held))
        if self.holds_octets:
            for delivery_id in chance.sample(held, min(20, len(held))):
                octets = self.octets_of(tmp_path, delivery_id)
                assert len(octets) in KILLED_SIZES
                assert octets == octets[:1] * len(octets)

    @contextlib.contextmanager
    def _process(self, directory: Path, first: int) -> Iterator[subprocess.Popen[str]]:
        module = sys.modules[type(self).__module__].__file__
        command = [sys.executable, "-m", __name__, str(module), type(self).__name__, str(directory), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGKILL)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _tree(directory: Path) -> dict[str, bytes | None]:
    """What lies below the directory, by name: the octets of files, None for all else."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")
    }


def _lines(process: subprocess.Popen[str], at_least: int | None = None) -> list[str]:
    """Delivery ids from the process: so many, or all until its end. A line that the kill tore is none."""
    assert process.stdout is not None
    lines: list[str] = []
    while (at_least is None or len(lines) < at_least) and (line := process.stdout.readline()):
        if line.startswith(_MARK) and line.endswith("\n"):
            lines.append(line.removeprefix(_MARK).strip())
    return lines


async def _deliver_for_ever(suite: SinkSuite, directory: Path, uid: int) -> None:
    """Deliver batch after batch and print each delivery id when its receipt is there."""
    sink = suite.make_sink(directory)
    while True:
        batch = []
        for _ in range(3):
            octets = bytes([uid % 256]) * KILLED_SIZES[uid % len(KILLED_SIZES)]
            batch.append(suite.order(sink, uid, octets=octets))
            uid += 1
        for answer in await sink.deliver(batch):
            if isinstance(answer, Receipt):
                sys.stdout.write(f"{_MARK}{answer.delivery_id}\n")
        sys.stdout.flush()


def _main(file: str, name: str, directory: str, first: str) -> None:
    spec = importlib.util.spec_from_file_location("suite", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["suite"] = module
    spec.loader.exec_module(module)
    asyncio.run(_deliver_for_ever(getattr(module, name)(), Path(directory), int(first)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
