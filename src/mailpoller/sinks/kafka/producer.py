"""A producer of librdkafka, and its errors in words.

The library has threads of its own; what they have to tell is told where somebody polls, which one thread of ours does
as long as a message is under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mailpoller.core.errors import TransientError
from mailpoller.sinks.kafka.config import KafkaQueueSettings
from mailpoller.storage.thread import Pool

_TURN = 0.05
"""Seconds that one poll waits at most."""
_QUIET = logging.getLogger("mailpoller.kafka")
_QUIET.setLevel(logging.CRITICAL)  # what goes wrong is told by whoever asked
_QUEUED = 64 << 10
"""KiB that the library holds at most: a batch is larger in no case, one message may be."""

Told = tuple[int, int] | KafkaError
"""Partition and offset of a message that is held, or why it is not."""


class _Made:
    """One producer of the library. ``waiting``: messages that are not answered for; as long as there are any, somebody
    polls, also when another one has taken its place."""

    def __init__(self, library: Producer, pool: Pool) -> None:
        self.library = library
        self.waiting = 0
        self._pool = pool
        self._polling: asyncio.Future[int] | None = None

    def poll(self) -> None:
        """See to it that somebody polls. Raises :class:`RuntimeError` if there is no thread to be had."""
        if self._polling is None or self._polling.done():
            self._polling = asyncio.wrap_future(self._pool.submit(self.library.poll, _TURN))
            self._polling.add_done_callback(self._polled)

    def _polled(self, turn: asyncio.Future[int]) -> None:
        if self.waiting and not turn.cancelled() and turn.exception() is None:
            with suppress(RuntimeError):  # closed meanwhile; whoever waits gives up in time
                self.poll()


class KafkaProducer:
    """Produces with ``acks=all``, so that an answer means that every replica in sync has the message, and with
    idempotence, so that the library's own repeats are none. Made anew after an error that it calls fatal."""

    def __init__(self, name: str, config: KafkaQueueSettings) -> None:
        self._config = config
        self._pool = Pool(f"kafka {name}", 2)
        self._made: _Made | None = None
        self.seconds = config.timeout.total_seconds()
        self.place = place_of(config)
        self.trouble = ""
        """What the library said last of a connection."""

    async def produce(self, key: str, value: bytes, headers: Sequence[tuple[str, bytes]]) -> tuple[int, int]:
        """Partition and offset of the message, which is held. Raises :class:`KafkaException`; :class:`BufferError` if
        too much is under way; :class:`RuntimeError` if there is no thread to be had."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Told] = loop.create_future()

        def told(error: KafkaError | None, message: Message) -> None:
            found: Told = error if error is not None else (message.partition() or 0, message.offset() or 0)
            loop.call_soon_threadsafe(_settle, answer, found)

        made = self._live()
        made.library.produce(self._config.topic, value, key.encode(), headers=list(headers), on_delivery=told)
        made.waiting += 1
        try:
            made.poll()
            async with asyncio.timeout(self.seconds + 5):  # the library gives up before
                found = await answer
        finally:
            made.waiting -= 1
        if isinstance(found, KafkaError):
            if found.fatal() and self._made is made:
                self._made = None
            raise KafkaException(found)
        return found

    async def ask(self, question: Callable[[dict[str, Any]], Any]) -> Any:
        """What ``question`` finds out, in a thread, with these settings of a client. Raises
        :class:`TransientError`."""
        try:
            async with asyncio.timeout(self.seconds + 5):
                return await asyncio.wrap_future(self._pool.submit(question, self._settings()))
        except (KafkaException, TimeoutError, RuntimeError) as error:
            raise TransientError(f"{self.place}: {self.words(error)}") from None

    def words(self, error: BaseException) -> str:
        """What went wrong, for an operator."""
        if isinstance(error, TimeoutError):
            return f"no answer within {self.seconds:.0f} s" + (f" ({self.trouble})" if self.trouble else "")
        found = error.args[0] if error.args else None
        if not isinstance(found, KafkaError):
            return " ".join(str(error).split())[:300] or type(error).__name__
        if found.code() in (KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
            return self.trouble or f"no answer within {self.seconds:.0f} s"
        if found.code() == KafkaError.UNKNOWN_TOPIC_OR_PART or found.code() == KafkaError._UNKNOWN_TOPIC:
            return f"there is no topic {self._config.topic}"
        said = " ".join(found.str().split())[:300]
        refused = found.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._AUTHENTICATION)
        return f"it refuses us: {said}" if refused else said

    async def close(self) -> None:
        """Give up what is under way, and the connections."""
        made, self._made = self._made, None
        if made is not None:
            made.library.purge()
        self._pool.shutdown()

    # --- inside ------------------------------------------------------------------------------------------------
    def _live(self) -> _Made:
        if self._made is None:
            self._made = _Made(Producer(self._settings(), logger=_QUIET), self._pool)
        return self._made

    def _settings(self) -> dict[str, Any]:
        config = self._config
        found: dict[str, Any] = {
            "bootstrap.servers": ",".join(config.servers),
            "client.id": "mailpoller",
            "acks": "all",
            "enable.idempotence": True,
            "allow.auto.create.topics": False,
            "message.timeout.ms": int(self.seconds * 1000),
            "message.max.bytes": min(1_000_000_000, config.max_size + 65_536),
            "queue.buffering.max.kbytes": max(_QUEUED, 2 * config.max_size >> 10),
            "linger.ms": 0,  # a batch is handed over whole: nothing that comes later is worth waiting for
            "socket.timeout.ms": int(self.seconds * 1000),
            "security.protocol": self._protocol(),
            "error_cb": self._heard,
        }
        if config.tls == "tls":
            found["ssl.ca.location"] = str(config.ca_file) if config.ca_file is not None else "probe"
            if config.client_certificate is not None:
                found["ssl.certificate.location"] = str(config.client_certificate)
                found["ssl.key.location"] = str(config.client_key)
        if config.password is not None:
            found["sasl.mechanism"] = config.mechanism.upper()
            found["sasl.username"] = config.username
            found["sasl.password"] = config.password.reveal()
        return found

    def _protocol(self) -> str:
        line = "SSL" if self._config.tls == "tls" else "PLAINTEXT"
        return f"SASL_{line}" if self._config.password is not None else line

    def _heard(self, error: KafkaError) -> None:
        self.trouble = " ".join(error.str().split())[:300]


def _settle(answer: asyncio.Future[Told], found: Told) -> None:
    if not answer.done():
        answer.set_result(found)


def place_of(config: KafkaQueueSettings) -> str:
    """Where the cluster is, for errors and logs."""
    return f"kafka {config.servers[0]}"
