"""The queue that is a delivery agent keeps the promises of the sink's port, against Dovecot."""

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
from mailpoller.core.delivery import Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.mail.delivered import FIELD
from mailpoller.sinks.smtp.lmtp import LmtpQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from mailpoller.testing.sink_suite import SinkSuite
from servers.dovecot import Dovecot

_SOCKET = "MAILPOLLER_TEST_LMTP_SOCKET"


@pytest.fixture(scope="module")
def agent() -> Iterator[Dovecot]:
    """One server for all tests, also for those of other processes."""
    with Dovecot(lmtp=True) as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_SOCKET, str(started.directory / "lmtp"))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield started


class TestLmtpQueue(SinkSuite):
    """Each directory is a user of one server. It knows no delivery ids, so a repeat after a restart is a second
    message, with the same field of ours. It keeps messages with line ends of its own."""

    exactly_once = False
    holds_events = False
    holds_octets = False
    fails_with_the_disk = False
    kills = 4
    agent: Dovecot

    @pytest.fixture(autouse=True)
    def _agent(self, agent: Dovecot) -> None:
        self.agent = agent

    def make_sink(self, directory: Path) -> Sink:
        block = LmtpQueueConfig(type="lmtp", socket=Path(os.environ[_SOCKET]), to=[_user(directory)])
        return block.build("support", Runtime(SystemClock(), Spool(directory / "spool"), directory))

    def held(self, directory: Path) -> Sequence[str]:
        return [_delivery_id(octets) for octets in _held(self.agent, _user(directory))]

    async def test_a_cancelled_delivery_leaves_messages_whole_or_not_there(self, tmp_path: Path) -> None:
        """As in the suite; but a message whose answer was not waited for comes once more."""
        async with self.sink(tmp_path) as sink:
            batches = [
                [self.order(sink, n * 10 + i, octets=HOSTILE * (300 if i % 2 else 2)) for i in range(10)]
                for n in range(8)
            ]
            for number, batch in enumerate(batches):
                task = asyncio.ensure_future(sink.deliver(batch))
                await asyncio.sleep(0.001 * number)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            for batch in batches:
                assert all(isinstance(answer, Receipt) for answer in await sink.deliver(batch))
        assert set(self.held(tmp_path)) == {one.delivery_id for batch in batches for one in batch}


async def test_dovecot_holds_what_was_sent_for_each_recipient(tmp_path: Path, agent: Dovecot) -> None:
    octets = b"From: ada@example.com\r\nSubject: x\r\n\r\n.\r\n..x\r\n\xff\r\n" + b"y" * 998 + b"\r\n"
    users = [f"each{number}@example.com" for number in range(3)]
    block = LmtpQueueConfig(type="lmtp", host="127.0.0.1", port=agent.lmtp_port, to=users)
    sink = block.build("support", Runtime(SystemClock(), Spool(tmp_path / "spool"), tmp_path))
    await sink.check()
    delivery = make_delivery(1, octets)
    (answer,) = await sink.deliver([delivery])
    await sink.close()
    assert isinstance(answer, Receipt)
    for user in users:
        (held,) = _held(agent, user)
        ours, below = held.replace(b"\n", b"\r\n").split(FIELD.encode(), 1)[1].split(b"\r\n", 1)
        assert ours == f": {delivery.delivery_id}".encode()
        assert below == octets


async def test_dovecot_is_spoken_to_through_tls_and_only_if_it_is_the_right_one(tmp_path: Path, agent: Dovecot) -> None:
    runtime = Runtime(SystemClock(), Spool(tmp_path / "spool"), tmp_path)
    block = {"type": "lmtp", "host": "localhost", "port": agent.lmtp_port, "to": "tls@example.com"}
    safe = {**block, "tls": "starttls-required", "ca_file": agent.ca_file}
    sink = LmtpQueueConfig.model_validate(safe).build("support", runtime)
    assert isinstance((await sink.deliver([make_delivery()]))[0], Receipt)
    await sink.close()
    assert len(_held(agent, "tls@example.com")) == 1
    sink = LmtpQueueConfig.model_validate({**block, "tls": "starttls-required", "pin": "0" * 64}).build("q", runtime)
    for call in (sink.check(), sink.deliver([make_delivery()])):
        with pytest.raises(TransientError, match="pin"):
            await call
    await sink.close()


async def test_a_mailbox_that_is_full_is_waited_for(tmp_path: Path) -> None:
    extra = "plugin {\n quota = maildir:User\n quota_rule = *:storage=2k\n}\nmail_plugins = quota\n"
    with Dovecot(lmtp=True, extra=extra) as agent:
        block = LmtpQueueConfig(type="lmtp", socket=agent.directory / "lmtp", to=["full@example.com"])
        sink = block.build("support", Runtime(SystemClock(), Spool(tmp_path / "spool"), tmp_path))
        (answer,) = await sink.deliver([make_delivery(1, b"Subject: x\r\n\r\n" + b"x\r\n" * 4000)])
        await sink.close()
    assert isinstance(answer, Refusal)
    assert "5.2.2" in answer.reason
    assert (answer.permanent, answer.blame) == (False, "queue"), "a mailbox that is full is not the message's fault"


def _user(directory: Path) -> str:
    return f"{sha256(str(directory).encode()).hexdigest()[:20]}@example.com"


def _held(agent: Dovecot, user: str) -> list[bytes]:
    return [path.read_bytes() for path in (agent.directory / "mail" / user).glob("[nc]*/*,*")]


def _delivery_id(octets: bytes) -> str:
    found = re.search(rf"^{FIELD}: (\S+)\r?$".encode(), octets, re.MULTILINE)
    assert found is not None
    return found[1].decode()
