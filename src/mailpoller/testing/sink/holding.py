"""What is held, how often, and octet for octet."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from mailpoller.core.delivery import Receipt
from mailpoller.testing.deliveries import HOSTILE, make_delivery, spooled
from mailpoller.testing.sink.ground import (
    SinkGround,
)


class HoldingPromises(SinkGround):
    """What is held, how often, and octet for octet."""

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
            delivery = self.order(sink, 1, octets=(HOSTILE * times)[: self.largest_octets])
            await sink.deliver([delivery])
        self.assert_whole(tmp_path, delivery)

    async def test_a_spooled_message_is_held_after_its_spool_file_is_gone(self, tmp_path: Path) -> None:
        octets = random.Random(1).randbytes(self.largest_octets)
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
        octets = random.Random(2).randbytes(min(2_000_000, self.largest_octets))
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
            long = text * min(20_000, self.largest_octets // 80)
            deliveries = [self.order(sink, 1, text=text), self.order(sink, 2, text=long)]
            await sink.deliver(deliveries)
        for delivery in deliveries:
            self.assert_whole(tmp_path, delivery)

    async def test_many_messages_are_one_batch_like_any_other(self, tmp_path: Path) -> None:
        async with self.sink(tmp_path) as sink:
            batch = [self.order(sink, uid) for uid in range(self.many)]
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
        held = list(self.held(tmp_path))
        assert set(held) == {one.delivery_id for batch in batches for one in batch}
        if self.exactly_once:
            assert len(held) == len(set(held))
