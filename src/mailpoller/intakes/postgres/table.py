"""The table at work: entries are taken in the order of their ids, and answered in their rows.

Nothing is kept at the server between two transactions, for PgBouncer may give us another connection each time. A row
that somebody holds locked is passed over, so that it keeps nobody waiting; it is taken when it is free.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection, sql

from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Clock, EntryAnswer, WaitingEntry
from mailpoller.remote.postgres.line import PostgresLine
from mailpoller.remote.postgres.server import PostgresServer

_READ_AT_ONCE = 4 << 20
"""Octets of entries beyond which no further one is read: many large ones would take all memory."""
_FORGOTTEN_AT_ONCE = 5000
_FORGET_EVERY_S = 600.0
_OCTETS_PER_S = 1_000_000

# A process of ours that is stopped inside of a transaction must not hold the locks: the server ends it.
_BEGIN = """
SELECT set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
    set_config('statement_timeout', %(ms)s, true), set_config('lock_timeout', %(ms)s, true),
    set_config('idle_in_transaction_session_timeout', %(ms)s, true), current_setting('server_encoding', true)
"""
_SIZES = """
SELECT id, token::text, octet_length(body) FROM {table} WHERE state = 'new' AND id <> ALL(%s::bigint[])
ORDER BY id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
"""
_BODIES = "SELECT id, convert_to(body, 'UTF8') FROM {table} WHERE id = ANY(%s::bigint[])"
_ANSWER = """
UPDATE {table} AS entry SET state = said.state, mail = said.mail, message_id = said.message_id, reason = said.reason,
    answered_at = clock_timestamp()
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[]) AS said (id, state, mail, message_id, reason)
WHERE entry.id = said.id AND entry.id IN
    (SELECT id FROM {table} WHERE id = ANY(%s::bigint[]) AND state = 'new' FOR NO KEY UPDATE SKIP LOCKED)
"""
_FORGET = """
DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE state <> 'new'
    AND answered_at < clock_timestamp() - %s::interval LIMIT %s FOR UPDATE SKIP LOCKED)
"""
_LACK = """
SELECT to_regclass(%(table)s) IS NULL,
    CASE WHEN to_regclass(%(table)s) IS NOT NULL THEN has_table_privilege(to_regclass(%(table)s), 'SELECT')
        AND has_table_privilege(to_regclass(%(table)s), 'DELETE')
        AND has_column_privilege(to_regclass(%(table)s), 'state', 'UPDATE') END, pg_is_in_recovery()
"""


class PostgresIntake:
    """See :class:`~mailpoller.core.ports.EntrySource`. An entry's key is its token, which no other one has, also where
    the database was put back."""

    def __init__(self, config: PostgresServer, table: str, keep: timedelta, clock: Clock) -> None:
        self._line = PostgresLine(config)
        self._place = f"{config.place} {table}"
        self._ms = str(int(config.timeout.total_seconds() * 1000))
        self._keep = keep
        self._clock = clock
        self._table = table
        name = sql.Identifier(*table.split("."))
        self._sizes, self._bodies, self._answer, self._forget = (
            sql.SQL(one).format(table=name) for one in (_SIZES, _BODIES, _ANSWER, _FORGET)
        )
        self._forget_at = 0.0

    async def waiting(self, *, limit: int, largest: int, but: Collection[int] = ()) -> Sequence[WaitingEntry]:
        """See :class:`~mailpoller.core.ports.EntrySource`."""

        async def look(connection: AsyncConnection[Any]) -> list[WaitingEntry]:
            async with self._transaction(connection):
                found = await connection.execute(self._sizes, [sorted(but), limit])
                rows = await found.fetchall()
                wanted: list[int] = []
                room = _READ_AT_ONCE
                for place, (number, _, size) in enumerate(rows):
                    if size <= largest:
                        if wanted and size > room:
                            del rows[place:]
                            break
                        room -= size
                        wanted.append(number)
                bodies: dict[int, bytes] = {}
                if wanted:
                    found = await connection.execute(self._bodies, [wanted], binary=True)
                    bodies = {number: bytes(body) for number, body in await found.fetchall()}
                return [WaitingEntry(number, token, bodies.get(number), size) for number, token, size in rows]

        return await self._line.do(look, more=max(largest, _READ_AT_ONCE) / _OCTETS_PER_S)

    async def answer(self, answers: Sequence[EntryAnswer]) -> None:
        """See :class:`~mailpoller.core.ports.EntrySource`. Then what was answered long ago is removed: a failure of
        that is raised too, and the answers stand."""
        numbers = [one.number for one in answers]
        columns = (
            numbers,
            ["accepted" if one.mail else "refused" for one in answers],
            *([getattr(one, name) or None for one in answers] for name in ("mail", "message_id", "reason")),
            numbers,
        )

        async def write(connection: AsyncConnection[Any]) -> None:
            async with self._transaction(connection):
                await connection.execute(self._answer, columns)

        await self._line.do(write)
        if self._clock.monotonic() >= self._forget_at:
            self._forget_at = self._clock.monotonic() + _FORGET_EVERY_S
            await self._line.do(self._forget_old)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.EntrySource`: connection, login, table and rights."""

        async def look(connection: AsyncConnection[Any]) -> str:
            async with self._transaction(connection):
                found = await connection.execute(_LACK, {"table": self._table})
                missing, allowed, standby = await found.fetchone() or (True, False, False)
            if missing:
                return "there is no such table: make it with mailpoller outbox intake"
            if not allowed:
                return "it refuses us: mailpoller outbox intake --print shows the rights that are needed"
            return "it is a standby, and takes no writes" if standby else ""

        if trouble := await self._line.do(look):
            raise TransientError(f"{self._place}: {trouble}")

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.EntrySource`."""
        await self._line.close()

    async def _forget_old(self, connection: AsyncConnection[Any]) -> None:
        async with self._transaction(connection):
            gone = await connection.execute(self._forget, [self._keep, _FORGOTTEN_AT_ONCE])
        if gone.rowcount == _FORGOTTEN_AT_ONCE:
            self._forget_at = 0.0

    @asynccontextmanager
    async def _transaction(self, connection: AsyncConnection[Any]) -> AsyncIterator[None]:
        """A transaction whose commit is synced. Raises :class:`TransientError` where an entry may hold what cannot be
        read: one such row would keep all others from being taken."""
        async with connection.transaction():
            found = await connection.execute(_BEGIN, {"ms": self._ms})
            row = await found.fetchone()
            if row is None or row[-1] != "UTF8":
                named = row[-1] if row is not None and row[-1] else "unknown"
                raise TransientError(f"{self._place}: the database's encoding is {named}, and it has to be UTF8")
            yield
