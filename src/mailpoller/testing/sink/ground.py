"""What a sink is asked in the tests of its promises."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from mailpoller.core.delivery import Delivery
from mailpoller.core.ports import Sink
from mailpoller.testing.deliveries import make_delivery


class SinkGround:
    """What a subclass says of its sink, and what the promises share.

    Flags say which of the optional promises it makes.
    """

    exactly_once = True
    """A repeat is held once, also after a restart. Else it may be held twice then."""
    holds_events = True
    holds_octets = True
    """The sink keeps the raw octets, beside the event or inside it."""
    largest_octets = 6_000_000
    """Octets of the largest message that it is given; the event with them is a half more."""
    fails_with_the_disk = True
    """The sink writes files in this process, so that a limit on their size makes it fail."""
    kills = 20
    """How often a process that delivers is killed at random."""
    batch_seconds = 30.0
    """The longest that a batch of many small messages may take."""
    many = 1000
    """So many messages that is."""

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


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def tree_of(directory: Path) -> dict[str, bytes | None]:
    """What lies below the directory, by name: the octets of files, None for all else."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")
    }
