"""The queue that is a mail address keeps the promises of the sink's port, against a real relay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Receipt
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.outgoings.smtp import SmtpConfig
from mailpoller.sinks.smtp import SmtpQueueConfig
from mailpoller.testing.deliveries import HOSTILE
from mailpoller.testing.sink_suite import SinkSuite
from servers.smtp import Received, Relay, original_in, relay_in_a_thread

_PORT = "MAILPOLLER_TEST_RELAY_PORT"


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    """One relay for all tests, also for those of other processes."""
    with relay_in_a_thread() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_PORT, str(started.port))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield started


class TestSmtpQueue(SinkSuite):
    """Each directory is a mail address at one relay. A relay knows no delivery ids, so a repeat after a restart is a
    second mail."""

    exactly_once = False
    holds_events = False
    fails_with_the_disk = False
    kills = 8
    relay: Relay

    @pytest.fixture(autouse=True)
    def _relay(self, relay: Relay) -> None:
        self.relay = relay

    def make_sink(self, directory: Path) -> Sink:
        relay = SmtpConfig(
            type="smtp", host="127.0.0.1", port=int(os.environ[_PORT]), tls="none", sender="m@example.com"
        )
        spool = Spool(directory / "spool")
        runtime = Runtime(SystemClock(), spool, directory)
        outgoing = relay.build("relay", runtime)
        runtime = Runtime(SystemClock(), spool, directory, {"relay": outgoing})
        return SmtpQueueConfig(type="smtp", outgoing="relay", to=[_address(directory)]).build("support", runtime)

    def held(self, directory: Path) -> Sequence[str]:
        return [_delivery_id(mail) for mail in self._mails(directory)]

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        return next(original_in(mail.octets) for mail in self._mails(directory) if _delivery_id(mail) == delivery_id)

    def _mails(self, directory: Path) -> list[Received]:
        return [mail for mail in list(self.relay.received) if mail.recipients == (_address(directory),)]

    async def test_a_cancelled_delivery_leaves_messages_whole_or_not_there(self, tmp_path: Path) -> None:
        """As in the suite; but a mail whose answer was not waited for is sent once more."""
        async with self.sink(tmp_path) as sink:
            batches = [
                [self.order(sink, n * 10 + i, octets=HOSTILE * (800 if i % 2 else 2)) for i in range(10)]
                for n in range(12)
            ]
            for number, batch in enumerate(batches):
                task = asyncio.ensure_future(sink.deliver(batch))
                await asyncio.sleep(0.0006 * number)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            everything = [one for batch in batches for one in batch]
            for batch in batches:
                assert all(isinstance(answer, Receipt) for answer in await sink.deliver(batch))
        assert set(self.held(tmp_path)) == {one.delivery_id for one in everything}
        for delivery in everything:
            assert self.octets_of(tmp_path, delivery.delivery_id) == bytes(delivery.raw.octets.view())


def _address(directory: Path) -> str:
    return f"{sha256(str(directory).encode()).hexdigest()[:20]}@example.com"


def _delivery_id(mail: Received) -> str:
    found = re.search(rb"^Message-ID: <([^@]+)@", mail.octets, re.MULTILINE)
    assert found is not None
    return found[1].decode()
