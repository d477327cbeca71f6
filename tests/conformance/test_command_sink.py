"""The queue that is a program keeps the promises of the sink's port, with a program that holds what it is given."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Receipt
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.command import CommandQueueConfig
from mailpoller.testing.deliveries import HOSTILE
from mailpoller.testing.sink_suite import SinkSuite

_HOLDS = 'd=$1/held; t=$1/t.$$; [ -d "$d" ] || mkdir -p "$d"; cat > "$t" && mv "$t" "$d/$MAILPOLLER_DELIVERY_ID.$$"'


class TestCommandQueue(SinkSuite):
    """Each directory is where a program puts its files. It is asked once more after a restart, and after a call that
    was cancelled."""

    exactly_once = False
    fails_with_the_disk = False
    kills = 2

    def make_sink(self, directory: Path) -> Sink:
        runtime = Runtime(SystemClock(), Spool(directory / "spool"), directory)
        return CommandQueueConfig(
            type="command", command=["sh", "-c", _HOLDS, "sh", str(directory)], stdin="event", raw=True, concurrency=2
        ).build("support", runtime)

    def held(self, directory: Path) -> Sequence[str]:
        return [path.name.split(".")[0] for path in (directory / "held").glob("*")]

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        return next((directory / "held").glob(f"{delivery_id}.*")).read_bytes()

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        return base64.b64decode(json.loads(self.event_of(directory, delivery_id))["data"]["raw"])

    async def test_many_messages_are_one_batch_like_any_other(self, tmp_path: Path) -> None:
        """As in the suite, with fewer: each is three processes of a shell."""
        async with self.sink(tmp_path) as sink:
            batch = [self.order(sink, uid) for uid in range(150)]
            answers = await sink.deliver(batch)
        assert [answer.delivery_id for answer in answers] == [one.delivery_id for one in batch]
        assert sorted(self.held(tmp_path)) == sorted(one.delivery_id for one in batch)

    async def test_a_cancelled_delivery_leaves_messages_whole_or_not_there(self, tmp_path: Path) -> None:
        """As in the suite; but what a program was killed at may be there already, and comes again."""
        async with self.sink(tmp_path) as sink:
            batches = [
                [self.order(sink, n * 10 + i, octets=HOSTILE * (300 if i % 2 else 2)) for i in range(4)]
                for n in range(8)
            ]
            for number, batch in enumerate(batches):
                task = asyncio.ensure_future(sink.deliver(batch))
                await asyncio.sleep(0.003 * number)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            everything = [one for batch in batches for one in batch]
            for batch in batches:
                assert all(isinstance(answer, Receipt) for answer in await sink.deliver(batch))
        assert set(self.held(tmp_path)) == {one.delivery_id for one in everything}
        wanted = {one.delivery_id: one.event.structured() for one in everything}
        for path in (tmp_path / "held").glob("*"):
            assert path.read_bytes() == wanted[path.name.split(".")[0]]
