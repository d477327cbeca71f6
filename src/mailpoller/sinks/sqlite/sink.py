"""The sink of an SQLite queue: a batch is one transaction, and a delivery id is held once."""

from __future__ import annotations

import functools
import sqlite3
import stat
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal
from uuid import uuid4

import structlog
from pydantic import Field

from mailpoller.core.channel import Channel
from mailpoller.core.component import Runtime, SinkConfig
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import QueueVanished, TransientError
from mailpoller.core.literals import Duration, Size
from mailpoller.core.ports import Clock, Depth, DoubtKind, Mark, OctetsPlace, SinkDoubt
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.core.spool import Octets
from mailpoller.sinks.sqlite.answers import LARGEST_ROW, answers_to, known_of, too_large
from mailpoller.sinks.sqlite.consumption import Consumption, depth
from mailpoller.sinks.sqlite.insertion import Contents, Messages
from mailpoller.sinks.sqlite.inspection import find_mark, inspect, read_mark
from mailpoller.sinks.sqlite.octets import OctetsDirectory
from mailpoller.sinks.sqlite.schema import MARK, QUEUE, octets_directory
from mailpoller.sinks.sqlite.upkeep import Upkeep
from mailpoller.storage.disk import (
    SHARED_DIRECTORY,
    WRITABLE_FILE,
    create_file,
    group_id,
    in_words,
    make_directory,
    of_the_disk,
    require_room,
    require_writable,
    sync_file,
    transient,
)
from mailpoller.storage.power_cut import durability_of
from mailpoller.storage.sqlite import Database, SqliteUnavailable
from mailpoller.storage.thread import Worker

log = structlog.get_logger(__name__)
WAL_GROWING = DoubtKind(
    "wal-growing",
    "A reader keeps the file of the queue {subject} growing",
    "The file of the queue {subject} shrinks again",
    "Somebody holds a read transaction open on it: end that program, or let it commit.",
    timedelta(minutes=5),
)


class SqliteQueueConfig(SinkConfig):
    """Hold messages in an SQLite file: the embedded default."""

    type: Literal["sqlite"]
    path: Path
    """The database file. Created, with its directory, if it is missing."""
    group: str | None = None
    """The group that may consume: given to what is created. Without one it is the service's own, or that of a
    set-group-id directory above."""
    inline: Size = 65_536
    """Raw octets of a message up to this size lie in the database, those of a larger one in a file beside it."""
    remember: Duration = timedelta(days=180)
    """How long the ids of acknowledged messages are kept to recognise a repeat: longer than the mailboxes' ``keep``."""
    busy_timeout: Duration = timedelta(seconds=5)
    """How long to wait for a consumer that holds the database's lock."""
    wal_warning: Size = Field(default=128 << 20)
    """Raise an alarm when the write-ahead log is larger: some reader keeps an old state of the database open."""
    untaken_warning: Duration = timedelta(hours=1)
    """Raise an alarm when messages wait and nobody has taken or acknowledged any for so long. ``36500d`` for a queue
    that nobody is to take from."""
    longest_lease: Duration = timedelta(days=1)
    """A message that was taken, or given back with a delay, is there again after so long at most, whatever the clock
    said then."""
    min_free: Size = 64_000_000
    """Octets of the disk that are left free: below this nothing is delivered."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return True

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        return Channel("sqlite", "localhost", str(self.path), "fields", fields=("delivery_id", "event", "octets"))

    def build(self, name: str, runtime: Runtime) -> SqliteQueue:
        """The sink. Opens nothing."""
        return SqliteQueue(name, self, runtime.clock)


class SqliteQueue:
    """The sink. Its own upkeep (forgetting old ids, giving space back, removing files that consumers are done with)
    goes on a step at a time while it delivers, and as a whole in :meth:`upkeep`."""

    octets_place: OctetsPlace = "beside"
    doubts = (WAL_GROWING,)

    def __init__(self, name: str, config: SqliteQueueConfig, clock: Clock) -> None:
        self.name = name
        self.path = config.path
        self._config = config
        self._clock = clock
        self._database = Database(
            config.path,
            QUEUE,
            file_mode=WRITABLE_FILE,
            directory_mode=SHARED_DIRECTORY,
            busy_timeout=config.busy_timeout,
            incremental_vacuum=True,
        )
        self._octets = OctetsDirectory(octets_directory(config.path))
        self._worker = Worker(f"queue-{name}")
        self._ready = self._seen = False
        self._expected: Mark | None = None
        self._group = -1
        self._grown = False
        self._consumption = Consumption(config.untaken_warning, clock)
        self._upkeep = Upkeep(
            name,
            self._database,
            self._octets,
            self._worker,
            clock,
            remember=config.remember,
            longest_lease=config.longest_lease,
        )

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. Rows are all of a batch or none; a message whose file fails is
        refused for now. If the disk lets all of them fail: :class:`TransientError`."""
        await self._prepare()
        refusals = {one.delivery_id: too_large(one) for one in batch if one.event.size > LARGEST_ROW}
        files = await self._write_files(batch, refusals)
        rows = [one for one in batch if one.delivery_id not in refusals]
        receipts: dict[str, Receipt] = {}
        if rows:
            receipts = await self._write(rows, files)
        await self._upkeep.glance()
        self.trouble()
        return answers_to(batch, receipts, refusals)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`: directory, room, and the lock that a delivery needs. Before the
        first delivery it only looks: nothing is made or migrated."""
        if not self._seen:
            config = self._config
            look = functools.partial(
                inspect, self.path, group=config.group, min_free=config.min_free, busy_timeout=config.busy_timeout
            )
            await self._worker.do(self._require_expected)
            await self._worker.do(look)
            return
        self._ready = False
        await self._prepare()
        await self._worker.do(self._require_disk)
        await self._database.write(lambda connection: None)

    async def upkeep(self) -> Sequence[SinkDoubt]:
        """Forget ids that are old enough, give space back, remove files that no row names; then :meth:`trouble`.

        To be called every minute or so, also when nothing is delivered. Raises :class:`TransientError`.
        """
        await self._prepare()
        await self._upkeep.run()
        trouble = self.trouble()
        return [] if trouble is None else [SinkDoubt(WAL_GROWING, trouble)]

    async def untaken(self) -> str | None:
        """See :class:`~mailpoller.core.ports.Consumed`."""
        return await self._database.read(self._consumption.untaken) if self._ready else None

    async def depth(self) -> Depth | None:
        """See :class:`~mailpoller.core.ports.Deep`."""
        now = self._clock.now()
        return await self._database.read(lambda connection: depth(connection, now)) if self._ready else None

    def trouble(self) -> str | None:
        """What an operator should know though deliveries succeed, or None: a reader lets the write-ahead log grow."""
        size = self._database.wal_bytes
        if size <= self._config.wal_warning:
            if self._grown:
                log.info("queue.wal_shrunk", queue=self.name, size_bytes=size)
            self._grown = False
            return None
        if not self._grown:
            log.warning("queue.wal_grown", queue=self.name, size_bytes=size, limit_bytes=self._config.wal_warning)
        self._grown = True
        return (
            f"the write-ahead log of {self.path} has grown to {size:,} octets: a reader keeps a transaction open; "
            f"find it with: fuser -v {self.path}"
        )

    async def holds(self, delivery_ids: Collection[str]) -> Collection[str]:
        """See :class:`~mailpoller.core.ports.Recalling`."""
        await self._prepare()
        return await self._database.read(lambda connection: list(known_of(connection, delivery_ids)))

    async def still_holds(self, delivery_ids: Collection[str]) -> Collection[str]:
        """See :class:`~mailpoller.core.ports.Inspectable`."""
        await self._prepare()
        return await self._database.read(lambda connection: [*known_of(connection, delivery_ids, taken=False)])

    async def mark(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return await self._worker.do(self._find_mark)

    async def renewed(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`. The height is written with every message, so it needs no more."""
        if not self._ready:
            await self._worker.do(self._require_expected)
            return await self.mark()
        found = await self._database.read(lambda connection: read_mark(connection, self.path))
        if self._expected is not None and (trouble := self._expected.unlike(found, str(self.path))):
            raise QueueVanished(trouble)
        return found

    def expect(self, mark: Mark | None) -> None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        self._expected = mark
        if mark is None:
            self._ready = self._seen = False
            self._database.let_go()

    def place(self) -> str:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return str(self.path)

    @property
    def durability(self) -> Durability:
        """See :class:`~mailpoller.core.ports.Durable`: what a sync is worth where it lies."""
        return durability_of(self.path)

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._database.close()
        await self._worker.close()
        self._octets.close()

    # --- delivering ----------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Have directory and file with the right group and mode. Once; after trouble, again."""
        if not self._ready:
            await self._worker.do(self._make_file)
            self._ready = True

    def _find_mark(self) -> Mark | None:
        return find_mark(self.path, busy_timeout=self._config.busy_timeout)

    def _require_expected(self) -> None:
        """Raise :class:`QueueVanished` unless the queue that is expected lies there. Makes nothing."""
        if self._expected is not None and (trouble := self._expected.unlike(self._find_mark(), str(self.path))):
            raise QueueVanished(trouble)

    def _make_file(self) -> None:
        """Create directory and file for the group; the database gives its log the mode of the file. What exists is left
        as it is, but a link is refused: the group could make us write to another of our databases. A queue that was
        delivered to, or is known from before, is never made."""
        self._group = group_id(self._config.group)
        if self._expected is not None:
            self._require_expected()
            if self._seen:
                # It may be another file by now: moved away and back by copying, say.
                self._database.let_go()
        elif self._seen and not self.path.exists():
            raise QueueVanished(f"{self.path} was removed or replaced while it was in use")
        with transient(f"create {self.path}"):
            make_directory(self.path.parent, group=self._group)
            if not self._seen and self._expected is None:
                create_file(self.path, group=self._group, mode=WRITABLE_FILE)
            if not stat.S_ISREG(self.path.lstat().st_mode):
                raise TransientError(f"{self.path} is not a regular file")
            # A process that was killed between writing a commit and syncing it left rows that we see and a power cut
            # does not. They are about to be called repeats, which is to say held.
            sync_file(self.path.with_name(self.path.name + "-wal"))
            shared = self.path.parent.stat()
        if (
            self._group != -1
            and not (shared.st_gid == self._group and shared.st_mode & stat.S_ISGID)
            and not self._seen
        ):
            # What SQLite creates beside the file gets its group from the directory, and nobody else could open it.
            log.warning("queue.unshared", queue=self.name, directory=str(self.path.parent), group=self._config.group)
        self._seen = True

    async def _write(self, rows: Sequence[Delivery], files: Mapping[str, str]) -> dict[str, Receipt]:
        """Insert, and know afterwards which queue it was."""
        for last in (False, True):
            try:
                receipts, mark = await self._database.write(lambda connection: self._insert(connection, rows, files))
            except TransientError as error:
                self._ready = False
                if last or not (isinstance(error, SqliteUnavailable) and error.kind == "replaced"):
                    raise
                await self._prepare()  # raises if it is not the same queue
            else:
                break
        if self._expected is not None and self._expected.height < mark.height:
            self._expected = mark
        return receipts

    def _require_disk(self) -> None:
        require_room(self.path.parent, self._config.min_free)
        require_writable(self.path.parent)

    async def _write_files(self, batch: Sequence[Delivery], refusals: dict[str, Refusal]) -> Mapping[str, str]:
        """Write the octets that are too large for a row, of messages that we do not know yet: delivery id -> file name.
        What fails is added to ``refusals``."""
        large = {
            one.delivery_id: one.raw.octets for one in batch if one.octets_wanted and self._is_large(one.raw.octets)
        }
        for delivery_id in refusals:
            large.pop(delivery_id, None)
        if not large:
            return {}
        known = await self._database.read(lambda connection: known_of(connection, large))
        files = {f"{delivery_id}.eml": octets for delivery_id, octets in large.items() if delivery_id not in known}
        if not files:
            return {}
        faults = await self._worker.do(self._octets.write, files, self._group)
        if len(faults) == len(batch) and (fault := of_the_disk(faults.values())):
            raise TransientError(in_words(fault, f"write to {self._octets.path}"))
        for file, fault in faults.items():
            delivery_id = file.removesuffix(".eml")
            refusals[delivery_id] = Refusal(delivery_id, in_words(fault, "write the message's octets"))
        return {file.removesuffix(".eml"): file for file in files if file not in faults}

    def _is_large(self, octets: Octets) -> bool:
        return octets.path is not None or octets.size > self._config.inline

    def _insert(
        self, connection: sqlite3.Connection, batch: Sequence[Delivery], files: Mapping[str, str]
    ) -> tuple[dict[str, Receipt], Mark]:
        """Insert what is not known; the receipts, and the queue's mark then. In the database's thread, in a
        transaction."""
        require_room(self.path.parent, self._config.min_free)
        mark = self._marked(connection)
        known = known_of(connection, [one.delivery_id for one in batch])
        fresh = {one.delivery_id: one for one in batch if one.delivery_id not in known}
        seq = mark.height
        messages = Messages(connection, self._clock.now().timestamp())
        contents = Contents(connection)
        receipts: dict[str, Receipt] = {
            delivery_id: SealedReceipt(delivery_id, str(held), repeated=True) for delivery_id, held in known.items()
        }
        for delivery_id, one in fresh.items():
            seq += 1
            file = files.get(delivery_id)
            octets = one.raw.octets
            wanted = one.octets_wanted
            messages.add(seq, one, octets.size if wanted else None, file)
            contents.add(seq, one.event.structured(), octets.view() if wanted and file is None else None)
            receipts[delivery_id] = SealedReceipt(delivery_id, str(seq))
        messages.flush()
        contents.flush()
        # Acknowledged between the look and now: no row names the file that was written meanwhile.
        connection.executemany(
            "INSERT OR IGNORE INTO stray (octets_file) SELECT ?1 "
            "WHERE NOT EXISTS (SELECT 1 FROM message WHERE delivery_id = ?2)",
            [(file, delivery_id) for delivery_id, file in files.items() if delivery_id in known],
        )
        return receipts, Mark(mark.identity, seq, mark.place)

    def _marked(self, connection: sqlite3.Connection) -> Mark:
        """The mark of the queue that is about to be written to; one that has none is given it."""
        found = read_mark(connection, self.path)
        if self._expected is not None and (trouble := self._expected.unlike(found, str(self.path))):
            raise QueueVanished(trouble)
        if found is None:
            connection.execute(MARK)
            connection.execute("INSERT INTO mark (identity) VALUES (?)", (uuid4().hex,))
            found = read_mark(connection, self.path)
            assert found is not None
        return found
