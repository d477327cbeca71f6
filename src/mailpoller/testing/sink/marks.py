"""A queue bears one mark, and one that vanished is not begun anew."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from mailpoller.core.delivery import Receipt
from mailpoller.core.errors import QueueVanished
from mailpoller.core.ports import Marked
from mailpoller.testing.sink.ground import (
    SinkGround,
    tree_of,
)


class MarkPromises(SinkGround):
    """A queue bears one mark, and one that vanished is not begun anew."""

    async def test_a_queue_bears_one_mark_from_its_first_delivery_on(self, tmp_path: Path) -> None:
        heights = []
        identities = set()
        for uid in (1, 2, 3):
            async with self.sink(tmp_path) as sink:
                if not isinstance(sink, Marked):
                    pytest.skip("this sink's queue bears no mark")
                before = tree_of(tmp_path)
                found = await sink.mark()
                assert (found is None) == (uid == 1)
                assert tree_of(tmp_path) == before, "a look leaves no trace"
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
            before = set(tree_of(tmp_path))
            for _ in range(2):
                with pytest.raises(QueueVanished):
                    await sink.deliver([self.order(sink, 4)])
                with pytest.raises(QueueVanished):
                    await sink.check()
                with pytest.raises(QueueVanished):
                    await sink.renewed()
            assert set(tree_of(tmp_path)) <= before, "nothing was made"
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
