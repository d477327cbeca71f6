"""A disk that fails, is full or read-only costs time and no mail."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailpoller.core.delivery import Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.testing.deliveries import HOSTILE
from mailpoller.testing.sink.ground import (
    SinkGround,
    mount,
)


class DiskPromises(SinkGround):
    """A disk that fails, is full or read-only costs time and no mail."""

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
                mount("-o", "remount,ro", str(directory))
                for call in (sink.check(), sink.deliver([self.order(sink, 2)])):
                    with pytest.raises(TransientError):
                        await call
                mount("-o", "remount,rw", str(directory))
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
            mount("-t", "tmpfs", "-o", "size=4m", "mailpoller-test", str(disk))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a small disk needs root")
        try:
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
