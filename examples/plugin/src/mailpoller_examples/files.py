"""The queue type ``files``: a file for each event, durable before the receipt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mailpoller.core.component import Runtime, SinkConfig
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import OctetsPlace, Sink
from mailpoller.core.seals.sink import SealedReceipt


class FilesQueueConfig(SinkConfig):
    """Hold events as files in a directory."""

    type: Literal["files"]
    path: Path
    """The directory."""

    def build(self, name: str, runtime: Runtime) -> Sink:
        return FilesQueue(self.path)


class FilesQueue:
    octets_place: OctetsPlace = "inside"  # the event is all it holds; wanted octets are to be inside of it

    def __init__(self, path: Path) -> None:
        self.path = path

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        return await asyncio.to_thread(self._write, batch)

    def _write(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            answers = [self._hold(delivery) for delivery in batch]
            # The names are durable only when the directory is.
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise TransientError(f"cannot write to {self.path}: {error.strerror}") from error
        return answers

    def _hold(self, delivery: Delivery) -> Receipt | Refusal:
        target = self.path / f"{delivery.delivery_id}.json"
        if target.exists():
            return SealedReceipt(delivery.delivery_id, target.name, repeated=True)
        partial = target.with_suffix(f".{os.urandom(4).hex()}.partial")  # a cancelled delivery may still write its own
        try:
            with partial.open("wb") as file:
                file.write(delivery.event.structured())
                file.flush()
                os.fsync(file.fileno())
            partial.rename(target)
        except OSError as error:  # those before it are held, so it is refused alone
            partial.unlink(missing_ok=True)
            return Refusal(delivery.delivery_id, error.strerror or str(error))
        return SealedReceipt(delivery.delivery_id, target.name)

    async def check(self) -> None:
        if not os.access(self.path if self.path.exists() else self.path.parent, os.W_OK):
            raise TransientError(f"{self.path} is not writable")

    async def close(self) -> None:
        pass
