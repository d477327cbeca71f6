"""The queue that is a stream of JetStream keeps the promises of the sink's port, against a real server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.nats import NatsQueueConfig
from mailpoller.testing.sink_suite import SinkSuite
from servers import nats as servers

nats = pytest.importorskip("nats", reason="the extra nats is not installed")
pytestmark = pytest.mark.skipif(bool(servers.missing), reason=servers.missing)

_PORT, _PAGE = "MAILPOLLER_TEST_NATS_PORT", "MAILPOLLER_TEST_NATS_PAGE"
_T = TypeVar("_T")


@pytest.fixture(scope="module")
def server() -> Iterator[servers.NatsServer]:
    """One server for all tests, also for those of other processes."""
    with servers.NatsServer("max_payload: 33554432") as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_PORT, str(started.port))
        patch.setenv(_PAGE, started.page)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield started


def at_the_server(work: Callable[[object], Awaitable[_T]]) -> _T:
    """What ``work`` returns, given a JetStream context; in a thread, for a test may have a loop already."""

    async def run() -> _T:
        client = await nats.connect(f"nats://127.0.0.1:{os.environ[_PORT]}")
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run())).result()


class TestNatsQueue(SinkSuite):
    """Each directory is a stream at one server."""

    fails_with_the_disk = False
    kills = 3

    @pytest.fixture(autouse=True)
    def _server(self, server: servers.NatsServer, request: pytest.FixtureRequest) -> Iterator[None]:
        self.server = server
        if "vanished" not in request.node.name:
            yield
            return
        with servers.NatsServer() as self.server, pytest.MonkeyPatch.context() as patch:  # it is stopped and changed
            patch.setenv(_PORT, str(self.server.port))
            patch.setenv(_PAGE, self.server.page)
            yield

    def make_sink(self, directory: Path) -> Sink:
        name = _stream(directory)

        async def make(stream: object) -> None:
            await stream.add_stream(name=name, subjects=[f"{name}.>"], discard="new")  # type: ignore[attr-defined]

        at_the_server(make)
        config = NatsQueueConfig(
            type="nats", host="127.0.0.1", port=int(os.environ[_PORT]), tls="none", stream=name,
            subject=f"{name}.mail", monitoring=[os.environ[_PAGE]],
        )  # fmt: skip
        return config.build("support", Runtime(SystemClock(), Spool(directory / "spool"), directory))

    def move(self, queue: Path, to: Path) -> None:
        """As a server does that was put back from a copy: its files are changed while it is down."""
        if queue.name == "other":  # what another one made under this name
            octets = [(body, {"Nats-Msg-Id": fields["Nats-Msg-Id"]}) for body, fields in self._messages(queue)]

            async def make_anew(stream: object) -> None:
                name = _stream(to)
                await stream.add_stream(name=name, subjects=[f"{name}.>"], discard="new")  # type: ignore[attr-defined]
                for body, fields in octets:
                    await stream.publish(f"{name}.mail", body, headers=fields)  # type: ignore[attr-defined]

            at_the_server(make_anew)
            return
        self._put(queue, to, shutil.move)

    def copy(self, queue: Path, to: Path) -> None:
        self._put(queue, to, shutil.copytree)

    def _put(self, queue: Path, to: Path, how: Callable[[str, str], object]) -> None:
        """A stream's files go aside, under any name, and come back where they were: the name is in them."""
        place = self.server.streams / _stream(to if to.name == "queue" else queue)
        aside = self.server.directory / (queue.name if to.name == "queue" else to.name)
        source, target = (aside, place) if to.name == "queue" else (place, aside)
        self.server.kill()
        how(str(source), str(target))
        self.server.start()

    def _messages(self, directory: Path) -> list[tuple[bytes, dict[str, str]]]:
        name = _stream(directory)

        async def read(stream: object) -> list[tuple[bytes, dict[str, str]]]:
            last = (await stream.stream_info(name)).state.last_seq  # type: ignore[attr-defined]
            found = [await stream.get_msg(name, seq=number) for number in range(1, last + 1)]  # type: ignore[attr-defined]
            return [(one.data, dict(one.headers or {})) for one in found]

        return at_the_server(read)

    def held(self, directory: Path) -> Sequence[str]:
        return [fields["Nats-Msg-Id"] for _, fields in self._messages(directory)]

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        (found,) = (body for body, fields in self._messages(directory) if fields["Nats-Msg-Id"] == delivery_id)
        return found

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        return base64.b64decode(json.loads(self.event_of(directory, delivery_id))["data"]["raw"])


def _stream(directory: Path) -> str:
    return sha256(str(directory).encode()).hexdigest()[:20]
