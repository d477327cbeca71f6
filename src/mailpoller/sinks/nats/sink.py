"""The sink of a JetStream stream: a message of the stream for each of ours, and an answer for each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Literal

from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import PubAck, StreamInfo
from nats.js.errors import APIError, NoStreamResponseError

from mailpoller.core.answers import in_order, sifted
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import QueueVanished, TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.parts import parts
from mailpoller.core.ports import Clock, Mark, OctetsPlace, SinkDoubt
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.sinks.nats import durability
from mailpoller.sinks.nats.client import Connection, NoStream, words
from mailpoller.sinks.nats.config import NatsQueueSettings
from mailpoller.wire.cloudevents import Content, body_size, content_of, written
from mailpoller.wire.worth import Worth

PART_OCTETS = 4 << 20
"""Octets that are published and not yet answered for; one message may be more."""
PART_MESSAGES = 200
_OCTETS_PER_S = 1_000_000
_TOO_LARGE = frozenset({10054})
"""JetStream's error codes for what is the message's own fault (nats-server, server/errors.json)."""
_HEADER_OCTETS = 100
"""``NATS/1.0``, the empty line, the content type, and the name of the field that says which stream is meant."""


class NatsQueue:
    """The sink. The stream is looked at before each batch, and its servers' settings at each connection and hourly."""

    doubts = (NOT_DURABLE,)
    sifts: Literal[True] = True

    def __init__(self, name: str, config: NatsQueueSettings, clock: Clock) -> None:
        self.name = name
        self.octets_place: OctetsPlace = "beside" if config.mode == "raw" else "inside"
        self._config = config
        self._seconds = config.timeout.total_seconds()
        self._connection = Connection(config, self._greet)
        self._expected: Mark | None = None
        self._worth = Worth(name, config.durability, clock, self.place)

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. A repeat is known within the stream's ``duplicate_window``."""
        if not batch:
            return []
        context, info = await self._look()
        answers, fresh = sifted(batch, lambda _: False, lambda one: self._too_large(one, info), self._repeated)
        trouble: TransientError | None = None
        for part in parts(fresh.values(), self._size, octets=PART_OCTETS, messages=PART_MESSAGES):
            if trouble is not None:
                break
            more = sum(map(self._size, part)) / _OCTETS_PER_S
            told = await asyncio.gather(*(self._publish(context, one, more) for one in part))
            for one, answer in zip(part, told, strict=True):
                if isinstance(answer, TransientError):
                    trouble = trouble or answer
                else:
                    answers[one.delivery_id] = answer
        return in_order(batch, answers, trouble, self._repeated)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`: connection, login, the stream, and what its answers are worth. The
        right to publish is known by publishing alone."""
        _, info = await self._look()
        config, state = info.config, info.state
        if config.no_ack:
            raise TransientError(f"{self._where}: it answers nobody (no_ack), so that nothing is ever held for sure")
        if config.mirror is not None or config.sealed:
            raise TransientError(f"{self._where}: a mirror, or sealed: nobody can publish to it")
        full = (config.max_msgs or -1, state.messages), (config.max_bytes or -1, state.bytes)
        if any(0 < most <= now for most, now in full):
            raise TransientError(f"{self._where}: it is full", advice="Let consumers take, or raise its limits.")
        if not any(_matches(pattern, self._subject("")) for pattern in config.subjects or []):
            subjects = ", ".join(config.subjects or []) or "none"
            raise TransientError(f"{self._where}: its subjects are {subjects}, and not {self._config.subject}")

    async def upkeep(self) -> Sequence[SinkDoubt]:
        """What the configuration accepts though it may lose mail."""
        if self._worth.found is not None or self._expected is not None:
            await self._look()
        return self._worth.doubts()

    async def mark(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`: when the stream was made, and the number of its last message,
        which no consumer lowers."""
        try:
            _, info = await self._connection.stream()
        except NoStream:
            return None
        return self._mark_of(info)

    async def renewed(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`. The number grows with each message, so it needs no more."""
        found = await self.mark()
        self._compare(found)
        return found

    def expect(self, mark: Mark | None) -> None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        self._expected = mark

    def place(self) -> str:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return self._where

    @property
    def durability(self) -> Durability | None:
        """See :class:`~mailpoller.core.ports.Durable`."""
        return self._worth.found

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._connection.close()

    # --- the stream ----------------------------------------------------------------------------------------------
    @property
    def _where(self) -> str:
        return f"{self._connection.place} {self._config.stream}"

    async def _look(self) -> tuple[JetStreamContext, StreamInfo]:
        """The stream as it is now. Raises :class:`TransientError`, also if its answers are not worth enough, and
        :class:`QueueVanished`."""
        try:
            context, info = await self._connection.stream()
        except NoStream:
            self._compare(None)
            raise
        if self._worth.due:
            await self._judge(info)
        self._compare(self._mark_of(info))
        return context, info

    async def _greet(self, context: JetStreamContext) -> None:
        self._worth.forget()

    async def _judge(self, info: StreamInfo) -> None:
        """Read what the stream's answers are worth. Raises :class:`TransientError` if we do not take that."""
        found = await durability.read(info, self._connection.server, self._config.monitoring, self._seconds)
        self._worth.note(found)

    def _mark_of(self, info: StreamInfo) -> Mark | None:
        if not info.state.last_seq or info.created is None:
            return None
        return Mark(info.created.isoformat(), info.state.last_seq, self._where)

    def _compare(self, found: Mark | None) -> None:
        if self._expected is not None and (trouble := self._expected.unlike(found, self._where)):
            raise QueueVanished(trouble)
        if self._expected is not None and found is not None and found.height > self._expected.height:
            self._expected = found

    # --- publishing ----------------------------------------------------------------------------------------------
    async def _publish(
        self, context: JetStreamContext, one: Delivery, more: float
    ) -> Receipt | Refusal | TransientError:
        """Publish one message and wait for the stream's answer."""
        config = self._config
        content = content_of(one, config.mode)
        subject = self._subject(one.attributes.topic)
        seconds = self._seconds + more
        try:
            async with asyncio.timeout(seconds):
                fields = headers_of(one, content)
                answer = await self._connection.answered(
                    context.publish(subject, content.body, timeout=seconds, stream=config.stream, headers=fields)
                )
        except APIError as error:
            if error.err_code in _TOO_LARGE:
                return Refusal(one.delivery_id, f"{self._where}: {words(error, config, seconds)}", permanent=True)
            return TransientError(f"{self._where}: {words(error, config, seconds)}", advice=_advice(error))
        except NoStreamResponseError:
            return TransientError(f"{self._where}: no stream takes the subject {subject}")
        except (Error, OSError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                await self._connection.close()
            return TransientError(f"{self._where}: {words(error, config, seconds)}")
        return self._receipt(one, answer)

    def _receipt(self, one: Delivery, answer: PubAck) -> Receipt | TransientError:
        """What the answer says, if it says that the message is held where it belongs."""
        if answer.stream != self._config.stream or not answer.seq:
            return TransientError(f"{self._where}: an answer that names no message of this stream")
        return SealedReceipt(one.delivery_id, f"{answer.stream} {answer.seq}", repeated=bool(answer.duplicate))

    def _repeated(self, delivery_id: str) -> Receipt:
        return SealedReceipt(delivery_id, self._where, repeated=True)

    def _size(self, one: Delivery) -> int:
        return body_size(one, self._config.mode)

    def _subject(self, topic: str) -> str:
        return self._config.subject.replace("{topic}", re.sub(r"[\s.*>\x00-\x20\x7f]", "_", topic) or "_")

    def _too_large(self, one: Delivery, info: StreamInfo) -> str:
        """Why it is not sent at all; empty if it is. A server ends the connection at which it is sent too much."""
        size = self._size(one)
        if size > self._config.max_size:
            return f"the message has {size:,} octets here, and max_size is {self._config.max_size:,}"
        beside = Content("", one.event.context() if self._config.mode != "structured" else {}, b"")
        whole = size + _HEADER_OCTETS + len(self._config.stream) + _octets(headers_of(one, beside))
        limits = (self._connection.max_payload, "max_payload"), (info.config.max_msg_size or -1, "max_msg_size")
        for most, whose in limits:
            if 0 < most < whole:
                return f"the message has {whole:,} octets here with its headers, and the server's {whose} is {most:,}"
        return ""


def headers_of(one: Delivery, content: Content) -> dict[str, str]:
    """What goes beside the payload: the attributes (NATS binding, section 3.1.3), and by what a repeat is known."""
    fields = {f"ce-{name}": written(value) for name, value in content.attributes.items()}
    return {**fields, "content-type": content.content_type, "Nats-Msg-Id": one.delivery_id}


def _octets(fields: dict[str, str]) -> int:
    return sum(len(name) + len(value.encode()) + 4 for name, value in fields.items())


def _advice(error: APIError) -> str:
    if error.err_code in (10077, 10047):
        return "Let consumers take what waits, or raise the stream's limits."
    return ""


def _matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one of the pattern's: ``*`` is a word, ``>`` at the end all that follow."""
    wanted, found = pattern.split("."), subject.split(".")
    for place, one in enumerate(wanted):
        if one == ">":
            return len(found) > place
        if place >= len(found) or one not in ("*", found[place]):
            return False
    return len(wanted) == len(found)
