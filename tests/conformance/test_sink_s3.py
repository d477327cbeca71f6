"""The queue that is a bucket keeps the promises of the sink's port, against SeaweedFS."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.s3 import S3QueueConfig
from mailpoller.testing.sink_suite import SinkSuite
from servers import s3 as servers

pytest.importorskip("aiobotocore", reason="the extra aws is not installed")
pytestmark = pytest.mark.skipif(bool(servers.missing), reason=servers.missing)

_PORT = "MAILPOLLER_TEST_S3_PORT"


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """One server for all tests, also for those of other processes."""
    with servers.S3Server() as started, pytest.MonkeyPatch.context() as patch:
        servers.make_bucket(started.port, "mail")
        patch.setenv(_PORT, str(started.port))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield


class TestS3Queue(SinkSuite):
    """Each directory is a prefix of one bucket."""

    fails_with_the_disk = False
    kills = 3
    names: dict[str, str] | None = None
    """Of what this test ordered: where its octets lie. None in a process that is to be killed."""
    many = 100

    @pytest.fixture(autouse=True)
    def _server(self, server: None) -> None:
        self.names = {}

    def make_sink(self, directory: Path) -> Sink:
        config = S3QueueConfig(
            type="s3", bucket="mail", prefix=_prefix(directory), endpoint=f"http://127.0.0.1:{os.environ[_PORT]}",
            region="us-east-1", access_key_id=servers.KEY, secret_access_key=servers.SECRET, durability="declared",
        )  # fmt: skip
        return config.build("support", Runtime(SystemClock(), Spool(directory / "spool"), directory))

    async def test_a_healthy_sink_doubts_nothing_and_says_beforehand_what_it_may_doubt(self, tmp_path: Path) -> None:
        """But for what a store that is not AWS's cannot say: what its answers are worth."""
        async with self.sink(tmp_path) as sink:
            await sink.deliver([self.order(sink, 1)])
            assert [one.kind for one in await sink.upkeep()] == [NOT_DURABLE]  # type: ignore[attr-defined]
            assert list(sink.doubts) == [NOT_DURABLE]  # type: ignore[attr-defined]

    def held(self, directory: Path) -> Sequence[str]:
        prefix = _prefix(directory)
        names = servers.objects_of(os.environ[_PORT], "mail", prefix)
        return [one.removeprefix(prefix).removesuffix(".json") for one in names if one.endswith(".json")]

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        return servers.object_of(os.environ[_PORT], "mail", f"{_prefix(directory)}{delivery_id}.json")

    def order(self, sink: Sink, uid: int, octets: bytes = b"Subject: x\r\n\r\nx\r\n", **more: object) -> Delivery:
        delivery = super().order(sink, uid, octets, **more)
        if self.names is not None:
            self.names[delivery.delivery_id] = f"{delivery.raw.octets.digest.hex()}.eml"
        return delivery

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        """A real event names them in ``data.sha256``; those of the suite say how many they are."""
        if name := (self.names or {}).get(delivery_id):
            return servers.object_of(os.environ[_PORT], "mail", _prefix(directory) + name)
        size = json.loads(self.event_of(directory, delivery_id))["data"]["size"]
        for name, held in servers.sizes_of(os.environ[_PORT], "mail", _prefix(directory)).items():
            if name.endswith(".eml") and held == size:
                octets = servers.object_of(os.environ[_PORT], "mail", name)
                assert name.endswith(f"/{sha256(octets).hexdigest()}.eml")
                return octets
        raise AssertionError("no octets beside it")


def _prefix(directory: Path) -> str:
    return sha256(str(directory).encode()).hexdigest()[:20] + "/"
