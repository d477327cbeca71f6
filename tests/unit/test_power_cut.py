"""What a receipt is worth in a power cut is said by every sink, and is never better than where it lies."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailpoller.core.component import Runtime
from mailpoller.core.durability import Durability
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Durable
from mailpoller.core.spool import Spool
from mailpoller.engine.availability import State
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.queues import Queue
from mailpoller.sinks.command import CommandQueueConfig
from mailpoller.sinks.jsonl import JsonlQueueConfig
from mailpoller.sinks.maildir import MaildirQueueConfig
from mailpoller.sinks.smtp.lmtp import LmtpQueueConfig
from mailpoller.sinks.sqlite import SqliteQueueConfig
from mailpoller.storage.power_cut import durability_of
from mailpoller.testing.fake_sink import FakeSink

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /run rw,nosuid shared:2 - tmpfs tmpfs rw,size=1g
31 22 0:26 / /srv/mail rw - nfs4 nas:/mail rw,hard
32 22 8:1 / /data rw,noatime - ext4 /dev/sda1 rw,nobarrier
33 30 8:2 / /run/with\\040space rw - xfs /dev/sdb rw
34 22 0:27 / /merged rw - overlay overlay rw,lowerdir=/a,upperdir=/b,volatile
35 22 0:28 / /hidden rw - xfs /dev/sdc rw
36 22 0:29 / /hidden rw - tmpfs tmpfs rw
not a mount at all
"""


@pytest.mark.parametrize(
    ("path", "finding"),
    [
        ("/var/lib/queue.db", "synced"),
        ("/run/queue.db", "volatile"),
        ("/running/queue.db", "synced"),
        ("/srv/mail/box", "unknown"),
        ("/data/queue.db", "volatile"),
        ("/run/with space/queue.db", "synced"),
        ("/merged/queue.db", "volatile"),
        ("/hidden/queue.db", "volatile"),
    ],
)
def test_where_a_file_lies_says_what_its_sync_is_worth(path: str, finding: str, tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    found = durability_of(Path(path), tmp_path / "mountinfo")
    assert found.finding == finding
    assert bool(found.mend) == (finding != "synced")


def test_a_changed_root_is_believed_what_every_file_system_promises(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("30 22 0:25 / /proc rw - proc proc rw\n")
    assert durability_of(Path("/var/lib/queue.db"), tmp_path / "mountinfo").finding == "promised"


def test_a_system_that_does_not_tell_its_mounts_is_no_proof(tmp_path: Path) -> None:
    assert durability_of(tmp_path, tmp_path / "nothing").finding == "unknown"
    (tmp_path / "empty").write_text("")
    assert durability_of(tmp_path, tmp_path / "empty").finding == "unknown"


def test_every_sink_says_what_its_receipts_are_worth(tmp_path: Path) -> None:
    runtime = Runtime(clock=SystemClock(), spool=Spool(tmp_path / "spool"), state_directory=tmp_path)
    blocks = [
        (SqliteQueueConfig(type="sqlite", path=tmp_path / "q.db"), None),
        (JsonlQueueConfig(type="jsonl", path=tmp_path / "q.jsonl"), None),
        (MaildirQueueConfig(type="maildir", path=tmp_path / "box"), None),
        (LmtpQueueConfig(type="lmtp", socket=tmp_path / "lmtp", to=["a@example.com"]), "promised"),
        (CommandQueueConfig(type="command", command=["true"]), "promised"),
    ]
    for block, finding in blocks:
        sink = block.build("support", runtime)
        assert isinstance(sink, Durable)
        assert sink.durability is not None
        assert sink.durability.finding == finding or finding is None


class Server(FakeSink):
    """One whose setting is read when it is asked for the first time."""

    def __init__(self, found: Durability | None) -> None:
        super().__init__()
        self.durability: Durability | None = None
        self._found = found

    async def check(self) -> None:
        self.durability = self._found
        if self._found is None:
            raise TransientError("nobody there")
        if refusal := self._found.refusal("strict"):
            raise TransientError(refusal)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (Durability("synced", "it syncs"), State.UP),
        (Durability.promised("an OK"), State.UP),
        (Durability("volatile", "it has appendfsync no", "CONFIG SET appendfsync always"), State.DOWN),
        (Durability("unknown", "it does not say", "GRANT"), State.DOWN),
        (None, State.UP),
    ],
    ids=["synced", "promised", "volatile", "unknown", "away"],
)
async def test_a_server_that_answers_too_soon_is_told_of_before_there_is_mail(
    found: Durability | None, state: State
) -> None:
    told: list[str] = []

    async def listener(queue: Queue, up: bool, reason: str) -> None:
        told.append(reason)

    queue = Queue(
        "q",
        Server(found),
        payload="parsed",
        octets_wanted=False,
        retry_interval=timedelta(minutes=1),
        clock=SystemClock(),
        listener=listener,
    )
    tending = asyncio.create_task(queue.tend())
    async with asyncio.timeout(20):
        while queue.durability is not found:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    tending.cancel()
    assert queue.state is state
    if state is State.DOWN:
        assert found is not None
        (reason,) = told
        assert found.mend in reason
        assert re.search(r"durability: (declared|warn)$", reason)


async def test_a_queue_in_memory_says_so_at_the_start() -> None:
    sink = Server(None)
    sink.durability = Durability("volatile", "it lies in memory", "put it onto a disk")
    queue = Queue(
        "q", sink, payload="parsed", octets_wanted=False, retry_interval=timedelta(minutes=1), clock=SystemClock()
    )
    with capture_logs() as log:
        tending = asyncio.create_task(queue.tend())
        async with asyncio.timeout(20):
            while not any(line["event"] == "queue.doubted" for line in log):
                await asyncio.sleep(0.01)
        tending.cancel()
    assert queue.state is State.UP
