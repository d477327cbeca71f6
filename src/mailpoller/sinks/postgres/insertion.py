"""The transactions of a queue: each says itself how it commits, and reads what its commit is worth.

Nothing is kept at the server between two of them, for PgBouncer may give us another one each time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import uuid4

import psycopg
from psycopg import sql

from mailpoller.core.delivery import Delivery
from mailpoller.core.durability import Durability
from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.core.record import record
from mailpoller.sinks.postgres import jobs
from mailpoller.sinks.postgres.schema import PRIORITIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from psycopg import AsyncConnection, AsyncCursor

FORGOTTEN_AT_ONCE = 10_000
"""Ids that a turn of the upkeep forgets at most."""

# A process of ours that is stopped inside of a transaction must not hold the locks: the server ends it.
_BEGIN = """
SELECT set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
    set_config('statement_timeout', %(most)s, true), set_config('lock_timeout', %(ms)s, true),
    set_config('idle_in_transaction_session_timeout', %(ms)s, true),
    current_setting('fsync', true), current_setting('full_page_writes', true), pg_is_in_recovery(),
    current_setting('server_encoding', true),
    (SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
        WHERE oid IN (to_regclass(%(table)s), to_regclass(%(known)s)) AND relpersistence <> 'p'),
    (SELECT identity FROM {mark} LIMIT 1), (SELECT height FROM {mark} LIMIT 1)
"""

_INSERT: LiteralString = (
    "INSERT INTO {table} (delivery_id, mid, topic, priority, tags, reason, detail, event, octets) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %b)"
)
_COPY: LiteralString = (
    "COPY {table} (delivery_id, mid, topic, priority, tags, reason, detail, event, octets) FROM STDIN"
)
COPIED = 5
"""So many rows and more are copied, which costs the server less, and two answers more that are waited for."""
COPIED_OCTETS = 4 << 20
"""More are not copied: a copy has octets as text, which is twice as long."""


@record
class Begun:
    """What was found at the begin of a transaction: what its commit is worth, the database's encoding, and the
    queue's mark as identity and height."""

    durability: Durability
    encoding: str
    mark: tuple[str, int] | None


class Tables:
    """The statements of one queue. ``seconds``: how long the server waits for a lock, or for us inside of a
    transaction; ``most``: for a statement of the largest message. ``job``: what is held are jobs of procrastinate's,
    and no rows of ours."""

    def __init__(
        self, table: str, notify: str | None, *, seconds: float, most: float, job: jobs.Job | None = None
    ) -> None:
        self.name = table
        self._row = _row if job is None else job.row
        self._job = job
        names = {
            "table": _identifier(table),
            "known": _identifier(f"{table}_known"),
            "mark": _identifier(f"{table}_mark"),
        }
        self._begin_all = sql.SQL(_BEGIN).format(**names)
        self._mark = sql.SQL("SELECT identity, height FROM {mark} LIMIT 1").format(**names)
        self._first = sql.SQL("INSERT INTO {mark} VALUES (%s, %s) RETURNING identity, height").format(**names)
        self._raise = sql.SQL("UPDATE {mark} SET height = height + %s RETURNING identity, height").format(**names)
        self._begin = {
            "ms": str(int(seconds * 1000)),
            "most": str(int(most * 1000)),
            "table": table if job is None else jobs.TABLE,
            "known": f"{table}_known",
        }
        self._notify = notify
        self._know = sql.SQL(
            "INSERT INTO {known} (delivery_id) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING RETURNING delivery_id"
        ).format(**names)
        self._insert = sql.SQL(_INSERT if job is None else jobs.DEFER).format(**names)
        self._copy = sql.SQL(_COPY).format(**names) if job is None else None
        self._holds = sql.SQL("SELECT delivery_id FROM {known} WHERE delivery_id = ANY(%s)").format(**names)
        self._still_holds = sql.SQL("SELECT delivery_id FROM {table} WHERE delivery_id = ANY(%s)").format(**names)
        old = sql.SQL("known_at < clock_timestamp() - %s::interval")
        # What became of a job only its workers know: it counts as gone.
        there = "EXISTS (SELECT 1 FROM {table} WHERE delivery_id = {known}.delivery_id)" if job is None else "false"
        here = sql.SQL(there).format(**names)
        self._gone = sql.SQL(
            "UPDATE {known} SET gone_at = clock_timestamp() WHERE delivery_id IN "
            "(SELECT delivery_id FROM {known} WHERE gone_at IS NULL AND {old} AND NOT {here} LIMIT %s)"
        ).format(**names, old=old, here=here)
        self._forget = sql.SQL(
            "DELETE FROM {known} WHERE delivery_id IN (SELECT delivery_id FROM {known} "
            "WHERE {old} AND gone_at < clock_timestamp() - %s::interval LIMIT %s)"
        ).format(**names, old=old)

    @asynccontextmanager
    async def transaction(self, connection: AsyncConnection[Any]) -> AsyncIterator[Begun]:
        """A transaction whose commit is synced, and what was found at its begin."""
        async with connection.transaction():
            found = await connection.execute(self._begin_all, self._begin)
            yield _begun(await found.fetchone())

    async def mark(self, connection: AsyncConnection[Any]) -> tuple[str, int] | None:
        """The queue's mark: identity and height."""
        found = await connection.execute(self._mark)
        return await found.fetchone()

    async def hold(
        self, connection: AsyncConnection[Any], part: Sequence[Delivery], judge: Callable[[Begun], None]
    ) -> tuple[Collection[str], tuple[str, int] | None]:
        """A transaction that inserts what is not known. Returns the ids of what was inserted, all others were held
        before; and the queue's mark then. ``judge`` raises if nothing may be committed.

        The server is waited for twice, once with :data:`COPIED` rows and more four times: before the first row, and
        for the commit.
        """
        # In one order, so that two of us that bring the same wait for one another in no circle.
        wanted = {one.delivery_id: one for one in sorted(part, key=lambda one: one.delivery_id)}
        try:
            async with connection.pipeline():
                await connection.execute("BEGIN")
                found = await connection.execute(self._begin_all, self._begin)
                known = await connection.execute(self._know, [list(wanted)])
                try:
                    begun = _begun(await found.fetchone())
                    judge(begun)
                except MailpollerError:
                    with suppress(psycopg.Error):  # what the next statement met is no news then
                        await known.fetchall()
                    raise
                taken = {row[0] for row in await known.fetchall()}
            fresh = [one for one in part if one.delivery_id in taken and wanted[one.delivery_id] is one]
            rows = [self._row(one) for one in fresh]
            into = self._copy if len(rows) >= COPIED and _octets(fresh) <= COPIED_OCTETS else None
            if into is not None:
                async with connection.cursor() as cursor, cursor.copy(into) as copy:
                    for row in rows:
                        await copy.write_row(row)
            async with connection.pipeline():
                if rows and into is None:
                    async with connection.cursor() as cursor:
                        await cursor.executemany(self._insert, rows)
                raised = await self._raised(connection, begun.mark, len(rows)) if rows else None
                ended = await connection.execute("COMMIT")
                mark = begun.mark if raised is None else await raised.fetchone()
            if ended.statusmessage != "COMMIT":  # what a server says to the end of a transaction that failed
                raise TransientError(f"the server ended the transaction with {ended.statusmessage}")
        except Exception:
            if not connection.closed:
                await connection.rollback()
            raise
        return taken, mark

    async def _raised(
        self, connection: AsyncConnection[Any], mark: tuple[str, int] | None, count: int
    ) -> AsyncCursor[Any]:
        """Raise the queue's mark by so many, and tell who listens. The cursor will have the mark then."""
        if self._notify is not None:
            await connection.execute("SELECT pg_notify(%s, '')", [self._notify])
        if mark is None:
            return await connection.execute(self._first, [uuid4().hex, count])
        return await connection.execute(self._raise, [count])

    async def holds(self, connection: AsyncConnection[Any], wanted: Collection[str]) -> Collection[str]:
        """Which of these ids are known."""
        found = await connection.execute(self._holds, [list(wanted)])
        return [row[0] for row in await found.fetchall()]

    async def still_holds(self, connection: AsyncConnection[Any], wanted: Collection[str]) -> Collection[str]:
        """Of which of these ids there is a row of ours."""
        if self._job is not None:
            return []
        found = await connection.execute(self._still_holds, [list(wanted)])
        return [row[0] for row in await found.fetchall()]

    async def forget(self, connection: AsyncConnection[Any], remember: Any) -> None:
        """Forget ids whose message was deleted ``remember`` ago, counted from when that was noticed. In a
        transaction."""
        await connection.execute(self._forget, [remember, remember, FORGOTTEN_AT_ONCE])
        await connection.execute(self._gone, [remember, FORGOTTEN_AT_ONCE])

    def copy_no_more(self) -> None:
        """What is named as the table cannot be copied to: row by row from now on."""
        self._copy = None

    async def lack(self, connection: AsyncConnection[Any]) -> str:
        """What keeps us from inserting, in words; else empty."""
        found = await connection.execute(
            "SELECT name, to_regclass(name) IS NULL, CASE WHEN to_regclass(name) IS NOT NULL THEN "
            "has_table_privilege(to_regclass(name), 'INSERT') AND has_table_privilege(to_regclass(name), 'SELECT') END "
            "FROM unnest(%s::text[]) AS name",
            [[*([self.name] if self._job is None else []), f"{self.name}_known", f"{self.name}_mark"]],
        )
        for name, missing, allowed in await found.fetchall():
            if missing:
                return f"there is no table {name}: make it with mailpoller queue create"
            if not allowed:
                return f"it refuses us: no right to insert into {name}"
        if self._job is None:
            return ""
        row = await (await connection.execute(jobs.LACK)).fetchone()
        assert row is not None
        return jobs.lack_in_words(*row)


def _begun(row: Sequence[Any] | None) -> Begun:
    assert row is not None
    commit, _, _, _, fsync, full_page_writes, standby, encoding, unlogged, identity, height = row
    durability = _judged(commit, fsync, full_page_writes, standby, unlogged)
    return Begun(durability, encoding or "", None if identity is None else (identity, height))


def _octets(deliveries: Sequence[Delivery]) -> int:
    return sum(one.event.size + (one.raw.octets.size if one.octets_wanted else 0) for one in deliveries)


def _identifier(table: str) -> sql.Identifier:
    return sql.Identifier(*table.split("."))


def _row(one: Delivery) -> tuple[Any, ...]:
    said = one.attributes
    octets = bytes(one.raw.octets.view()) if one.octets_wanted else None
    return (
        one.delivery_id, one.mid, said.topic, PRIORITIES.index(said.priority), list(said.tags), said.reason,
        said.detail, one.event.structured().decode("utf-8"), octets,
    )  # fmt: skip


def _judged(
    commit: str, fsync: str | None, full_page_writes: str | None, standby: bool, unlogged: str | None
) -> Durability:
    wrong: Mapping[str, str | None] = {"fsync": fsync, "full_page_writes": full_page_writes}
    off = [name for name, value in wrong.items() if value == "off"]
    if commit not in ("on", "remote_apply"):
        off.append("synchronous_commit")
    if standby:
        return Durability("volatile", "it is a standby, and takes no writes", "SELECT pg_promote()")
    if off:
        commands = "; ".join(f"ALTER SYSTEM SET {name} = on" for name in off)
        return Durability("volatile", f"it has {' off, '.join(off)} off", f"{commands}; SELECT pg_reload_conf()")
    if unlogged:
        commands = "; ".join(f"ALTER TABLE {name} SET LOGGED" for name in unlogged.split(", "))
        return Durability("volatile", f"not logged: {unlogged}", commands)
    if fsync is None or full_page_writes is None:
        return Durability("unknown", "it does not show fsync and full_page_writes", "SHOW fsync")
    return Durability("synced", "it has fsync on, full_page_writes on, and each commit asks for synchronous_commit on")
