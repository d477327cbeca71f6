"""The stream at work: entries are taken as a consumer of a group, and acknowledged with their answers."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any, TypeVar

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Clock, EntryAnswer, WaitingEntry
from mailpoller.intakes.redis.script import ANSWER, TAKE
from mailpoller.remote.redis.client import ask, close_pool, make_client, place_of
from mailpoller.remote.redis.server import RedisServer

_T = TypeVar("_T")

_READ_AT_ONCE = 4 << 20
"""Octets of entries beyond which no further one is read: many large ones would take all memory."""
_RECLAIM_EVERY_S = 30.0
_OCTETS_PER_S = 1_000_000


class RedisIntake:
    """See :class:`~mailpoller.core.ports.EntrySource`. An entry's key is its id and a digest of its content, so that
    one of a stream that was begun anew is not taken for another."""

    def __init__(
        self,
        server: RedisServer,
        *,
        stream: str,
        group: str,
        consumer: str | None,
        reclaim: timedelta,
        keep: timedelta,
        clock: Clock,
    ) -> None:
        self._client = make_client(server, _greet)
        self._place = place_of(server)
        self._seconds = server.timeout.total_seconds()
        self._stream = stream
        self._answers = stream if re.search(r"\{[^}]+\}", stream) else f"{{{stream}}}"
        self._group = group
        self._consumer = consumer or socket.gethostname()
        self._reclaim = str(max(1, int(reclaim.total_seconds() * 1000)))
        self._keep = max(1, int(keep.total_seconds() * 1000))
        self._clock = clock
        self._reclaim_at = 0.0

    async def waiting(self, *, limit: int, largest: int, but: Collection[int] = ()) -> Sequence[WaitingEntry]:
        """See :class:`~mailpoller.core.ports.EntrySource`. Makes stream and group if they are missing."""
        due = self._clock.monotonic() >= self._reclaim_at
        words: list[str | int] = [
            self._group,
            self._consumer,
            limit,
            largest,
            _READ_AT_ONCE,
            self._reclaim if due else "",
        ]
        words += [_id(number) for number in but]

        async def take() -> list[Any]:
            found: list[Any] = await self._client.eval(TAKE, 1, self._stream, *words)
            return found

        async def take_in_group() -> list[Any]:
            try:
                return await take()
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
            await self._begin()
            return await take()

        found = await self._ask(take_in_group, max(largest, _READ_AT_ONCE) / _OCTETS_PER_S)
        if due:
            self._reclaim_at = self._clock.monotonic() + _RECLAIM_EVERY_S
        return [_entry(id.decode(), size, body) for id, size, body in found]

    async def answer(self, answers: Sequence[EntryAnswer]) -> None:
        """See :class:`~mailpoller.core.ports.EntrySource`: the answer can be read, and the entry is acknowledged and
        removed, in one step."""
        keys = [self._stream]
        words: list[Any] = [self._group, self._keep]
        for one in answers:
            keys.append(f"{self._answers}:answer:{_id(one.number)}")
            state = "accepted" if one.mail else "refused"
            words += [_id(one.number), state, one.mail, one.message_id, one.reason]
        await self._ask(lambda: self._client.eval(ANSWER, len(keys), *keys, *words))

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.EntrySource`: connection, login, the right to run scripts, and that the
        key is a stream or nothing."""
        kind = await self._ask(lambda: self._client.type(self._stream))
        if kind not in (b"none", b"stream"):
            raise TransientError(f"{self._place}: the key {self._stream} is there and is no stream")
        await self._ask(lambda: self._client.eval(TAKE, 1, self._stream, self._group, self._consumer, 0, 0, 0, ""))

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.EntrySource`."""
        await close_pool(self._client.connection_pool)

    async def _begin(self) -> None:
        try:
            await self._client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):  # somebody came first
                raise

    async def _ask(self, work: Callable[[], Awaitable[_T]], more: float = 0) -> _T:
        return await ask(self._client, self._place, self._seconds + more, work)


async def _greet(connection: AbstractConnection) -> None:
    await connection.on_connect()


def _entry(id: str, size: int, body: bytes | None) -> WaitingEntry:
    milliseconds, _, sequence = id.partition("-")
    digest = sha256(body or b"").hexdigest()[:16]
    return WaitingEntry(int(milliseconds) << 64 | int(sequence), f"{id}-{digest}", body, size)


def _id(number: int) -> str:
    return f"{number >> 64}-{number & (1 << 64) - 1}"
