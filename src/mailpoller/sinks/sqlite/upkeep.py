"""What an SQLite queue needs now and then: old ids forgotten, space given back, files removed that no row names."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from functools import partial

import structlog

from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Clock
from mailpoller.sinks.sqlite.octets import OctetsDirectory
from mailpoller.storage.sqlite import Database
from mailpoller.storage.thread import Worker

log = structlog.get_logger(__name__)

INTERVAL = timedelta(seconds=60)
SWEEP_INTERVAL = timedelta(hours=1)
STEPS = 50
"""Steps of each kind that one run takes at most; deliveries go in between."""
IDS_A_STEP = 500
PAGES_A_STEP = 500
FILES_A_STEP = 500
SPARE_PAGES = 1000
"""Free pages (8 KiB each) that stay in the file for the next messages; of a larger file, a tenth of its pages."""


class Upkeep:
    """All of it in small steps, so that a delivery never waits long. ``remember``: how long acknowledged ids are kept;
    ``longest_lease``: how long a message may be taken for at most."""

    def __init__(
        self,
        name: str,
        database: Database,
        octets: OctetsDirectory,
        worker: Worker,
        clock: Clock,
        *,
        remember: timedelta,
        longest_lease: timedelta,
    ) -> None:
        self._name = name
        self._database = database
        self._octets = octets
        self._worker = worker
        self._clock = clock
        self._remember = remember
        self._longest_lease = longest_lease
        self._ran_at = self._swept_at = float("-inf")

    async def run(self) -> None:
        """Do what there is to do, at most :data:`STEPS` of each kind. Raises :class:`TransientError`."""
        await self._run(STEPS)

    async def glance(self) -> None:
        """One step of each kind, if the last was :data:`INTERVAL` ago: hardly felt in a delivery. Never raises a
        :class:`TransientError`: the messages are held, and what is in the way will be in that of the next delivery."""
        if self._clock.monotonic() - self._ran_at < INTERVAL.total_seconds():
            return
        try:
            await self._run(1)
        except TransientError as error:
            log.warning("queue.upkeep_failed", queue=self._name, reason=str(error))

    async def _run(self, steps: int) -> None:
        self._ran_at = self._clock.monotonic()
        if self._ran_at - self._swept_at >= SWEEP_INTERVAL.total_seconds():
            self._swept_at = self._ran_at
            await self._sweep()
        await _repeat(steps, self._remove_strays)
        now = self._clock.now()
        latest = (now + self._longest_lease).timestamp()
        if await self._database.read(lambda connection: _overlong(connection, latest)):
            cut = await self._database.write(lambda connection: _cut(connection, latest))
            log.warning("queue.leases_cut", queue=self._name, count=cut)
        before = (now - self._remember).timestamp()
        await _repeat(
            steps, lambda: self._database.write(lambda connection: _forget(connection, before, now.timestamp()))
        )
        await _repeat(steps, lambda: self._database.write(_give_back))

    async def _remove_strays(self) -> bool:
        """Remove the files of acknowledged messages: first the file, then the note of it. True if there are more."""
        strays = await self._database.read(_strays)
        if strays:
            await self._worker.do(self._octets.remove, strays)
            await self._database.write(partial(_forget_strays, names=strays))
        return len(strays) == FILES_A_STEP

    async def _sweep(self) -> None:
        """Remove files that a crash left without a row."""
        abandoned = await self._worker.do(self._octets.abandoned)
        if not abandoned:
            return
        named = await self._database.read(partial(_named, names=abandoned))
        orphans = [name for name in abandoned if name not in named]
        if orphans:
            await self._worker.do(partial(self._octets.remove, orphans, abandoned=True))
            log.info("queue.orphans_removed", queue=self._name, count=len(orphans))


async def _repeat(steps: int, step: Callable[[], Awaitable[bool]]) -> None:
    """Take a step until it says that nothing is left, at most so many."""
    for _ in range(steps):
        if not await step():
            return


def _overlong(connection: sqlite3.Connection, latest: float) -> bool:
    return connection.execute("SELECT 1 FROM message WHERE taken_until > ? LIMIT 1", (latest,)).fetchone() is not None


def _cut(connection: sqlite3.Connection, latest: float) -> int:
    """Leases that end later than any may were given while the clock was ahead: nobody waits for that day. Their
    number."""
    return connection.execute("UPDATE message SET taken_until = ?1 WHERE taken_until > ?1", (latest,)).rowcount


def _forget(connection: sqlite3.Connection, before: float, now: float) -> bool:
    """Forget a few of the oldest acknowledged ids; True if there may be more. Those that were acknowledged while the
    clock was ahead are taken for those of now: else they would stand before all that come after them until that
    day."""
    connection.execute(
        "UPDATE acknowledged SET acknowledged_at = ?1 WHERE acknowledged_at > ?1 "
        "AND seq IN (SELECT seq FROM acknowledged ORDER BY seq LIMIT ?2)",
        (int(now) + 1, IDS_A_STEP),
    )
    done = connection.execute(
        "DELETE FROM acknowledged WHERE acknowledged_at < ?1 AND seq IN (SELECT seq FROM acknowledged ORDER BY seq "
        "LIMIT ?2)",
        (before, IDS_A_STEP),
    )
    return done.rowcount == IDS_A_STEP


def _give_back(connection: sqlite3.Connection) -> bool:
    """Cut a few free pages off the file, beyond those that the next messages will use; True if there are more."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    excess = free - max(SPARE_PAGES, pages // 10)
    for _ in range(min(excess, PAGES_A_STEP)):
        # One at a time: a larger number would be asked for in steps, of which the driver takes the first only.
        connection.execute("PRAGMA incremental_vacuum(1)")
    return bool(excess > PAGES_A_STEP)


def _strays(connection: sqlite3.Connection) -> Sequence[str]:
    """A few files whose message was acknowledged, and is not here again since its id was forgotten."""
    found = connection.execute(
        "SELECT octets_file FROM stray WHERE NOT EXISTS "
        "(SELECT 1 FROM message WHERE delivery_id = substr(stray.octets_file, 1, 36)) LIMIT ?",
        (FILES_A_STEP,),
    )
    return [name for (name,) in found]


def _forget_strays(connection: sqlite3.Connection, names: Collection[str]) -> None:
    connection.executemany("DELETE FROM stray WHERE octets_file = ?", [(name,) for name in names])


def _named(connection: sqlite3.Connection, names: Sequence[str]) -> frozenset[str]:
    """Those of the files that a message names; a file is named after its delivery id."""
    found = connection.execute(
        "SELECT octets_file FROM message WHERE octets_file IS NOT NULL "
        "AND delivery_id IN (SELECT substr(value, 1, 36) FROM json_each(?))",
        (json.dumps(names),),
    )
    return frozenset(name for (name,) in found)
