"""A batch is answered in its place; a check and doubts leave no trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailpoller.core.delivery import Receipt
from mailpoller.core.ports import Upkept
from mailpoller.testing.sink.ground import (
    SinkGround,
    tree_of,
)


class AnsweringPromises(SinkGround):
    """A batch is answered in its place; a check and doubts leave no trace."""

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
        before = tree_of(tmp_path)
        async with self.sink(tmp_path) as sink:
            await sink.check()
        assert tree_of(tmp_path) == before, "nothing was there yet"
        async with self.sink(tmp_path) as sink:
            await sink.deliver([self.order(sink, 1)])
        before = tree_of(tmp_path)
        async with self.sink(tmp_path) as sink:
            await sink.check()
        assert tree_of(tmp_path) == before, "everything was there"

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
