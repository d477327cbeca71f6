"""A session with a Maildir. There is no connection: it serialises work on one thread, and is lost when the directory
is."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import structlog

from mailpoller.core.delivery import Disposed, Settlement
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, MessageRef, Page, Position, RawMessage, Survey
from mailpoller.core.ports import Clock, Start, Wake
from mailpoller.core.spool import Spool
from mailpoller.sources.maildir import directory as on_disk
from mailpoller.sources.maildir.folder import PolledFolder, words
from mailpoller.sources.maildir.octets import close_all
from mailpoller.storage.thread import Pool

log = structlog.get_logger(__name__)

PAGE = 1_000
"""Refs of one page."""
GROUP = 32
"""Messages that one visit to the thread reads."""
DEADLINE = timedelta(minutes=2)
"""The longest that one visit to the thread may take; a network file system that hangs ends the session."""
LOOK_INTERVAL = timedelta(milliseconds=500)
"""How often ``wait`` looks whether something changed."""

T = TypeVar("T")


class MaildirSession:
    """See :class:`mailpoller.core.ports.Session`."""

    def __init__(
        self, *, mailbox: str, root: Path, folders: Sequence[str], shadow: bool, clock: Clock, spool: Spool
    ) -> None:
        self._mailbox = mailbox
        self._root = root
        self._names = tuple(folders)
        self._shadow = shadow
        self._clock = clock
        self._spool = spool
        self._folders: dict[str, PolledFolder] = {}
        self._skipped: set[str] = set()
        self._lost = ""
        self._thread = Pool(f"maildir-{mailbox}", 1)

    async def folders(self) -> Sequence[str]:
        found = await self._run(self._existing)
        for name in self._names:
            if name not in found and name not in self._skipped:
                log.warning("folder.skipped", mailbox=self._mailbox, folder=name, reason="no such folder")
        self._skipped = set(self._names).difference(found)
        if not found:
            raise TransientError("none of the configured folders exists")
        return found

    def _existing(self) -> list[str]:
        return [name for name in self._names if self._exists(on_disk.folder_directory(self._root, name))]

    def _exists(self, directory: Path) -> bool:
        # That the whole Maildir is gone (unmounted) must not look like a folder that is missing: this raises then.
        on_disk.stamps(self._root)
        return on_disk.is_maildir(directory)

    async def open(self, name: str) -> Folder:
        try:
            directory = on_disk.folder_directory(self._root, name)
        except ValueError as error:
            raise TransientError(f"cannot open the folder {name}: {error}") from None
        if not await self._run(self._exists, directory):
            raise TransientError(f"{directory} is not a Maildir: it lacks new or cur")
        folder = Folder(self._mailbox, name, epoch(self._root))
        if name not in self._folders:
            self._folders[name] = PolledFolder(folder, directory, root=self._root, clock=self._clock, spool=self._spool)
        return folder

    async def survey(self, folder: Folder, position: Position | None) -> Survey:
        """As the port says: where other directories lie than at ``position``, the newest names, to be compared."""
        known = self._opened(folder)
        survey = await self._run(known.survey, position)
        if known.replaced:
            log.warning("directory.replaced", mailbox=self._mailbox, folder=folder.name, compared=len(survey.familiar))
        return survey

    async def look(self, refs: Sequence[MessageRef]) -> Sequence[MessageRef | None]:
        """As the port says."""
        self._require()
        return await self._run(self._opened(refs[0].folder).look, refs) if refs else []

    async def pending(self, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        known = self._opened(folder)
        ignored_before = known.ignored
        if since is None:
            refs, position = await self._run(known.list_all, start)
        else:
            refs, position = await self._run(functools.partial(known.list_since, dated=start.dated), since)
        if known.ignored > ignored_before:
            log.warning("entries.ignored", mailbox=self._mailbox, folder=folder.name, count=known.ignored)
        last = max(len(refs) - 1, 0) // PAGE
        for page in range(last + 1):
            yield Page(refs[page * PAGE : (page + 1) * PAGE], position if page == last else None, len(refs))

    async def fetch(self, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        """As the port says; messages that cannot be read raise TransientError once all others are answered."""
        unreadable: list[OSError] = []
        for first in range(0, len(claims), GROUP):
            group = claims[first : first + GROUP]
            answers = await self._run(self._opened(group[0].ref.folder).read, group, limit, drop=close_all)
            answers.reverse()
            try:
                while answers:
                    answer = answers.pop()
                    if isinstance(answer, OSError):
                        unreadable.append(answer)
                    else:
                        yield answer
            finally:
                close_all(answers)
        if unreadable:
            reason = words(unreadable[0])
            raise TransientError(f"{len(unreadable)} of {len(claims)} messages cannot be read: {reason}")

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        """As the port says; what is ``applied`` would survive a power cut."""
        self._require()
        if self._shadow or all(settlement.disposition.leaves for settlement in settlements):
            return [Disposed(settlement, "applied") for settlement in settlements]
        return await self._run(self._opened(settlements[0].ref.folder).settle, settlements)

    async def wait(self, limit: timedelta) -> Wake:
        """As the port says. What changed since the first folder was last listed counts as news at once."""
        ends = self._clock.monotonic() + limit.total_seconds()
        name = (await self.folders())[0]
        directory = on_disk.folder_directory(self._root, name)
        known = self._folders.get(name)
        before = known.seen if known is not None else None
        while True:
            now = await self._run(on_disk.stamps, directory)
            if before is None:
                before = now
            if not now.same(before):
                return Wake.NEWS
            left = ends - self._clock.monotonic()
            if left <= 0:
                return Wake.LIMIT
            await self._clock.sleep(min(left, LOOK_INTERVAL.total_seconds()))

    async def close(self) -> None:
        self._end("the session was closed")

    # --- the thread --------------------------------------------------------------------------------------------
    def _opened(self, folder: Folder) -> PolledFolder:
        known = self._folders.get(folder.name)
        if known is None:
            raise TransientError(f"the folder {folder.name} was not opened in this session")
        return known

    def _require(self) -> None:
        if self._lost:
            raise SessionLost(self._lost)

    def _end(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., T], *args: object, drop: Callable[[T], None] | None = None) -> T:
        """What ``work`` returns, done on the session's thread; what nobody waits for any more is given to ``drop``.

        Raises SessionLost when the directory is gone or does not answer, TransientError when it may not be read.
        """
        self._require()
        future = asyncio.get_running_loop().run_in_executor(self._thread, functools.partial(work, *args))
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()) as deadline:
                return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(functools.partial(_abandon, drop))
            task = asyncio.current_task()
            if future.cancelled() and task is not None and not task.cancelling():
                # Not we were cancelled but the work was, by the end of the session.
                raise SessionLost(self._lost) from None
            raise
        except PermissionError as error:
            raise TransientError(f"cannot read {self._root}: {words(error)}") from None
        except OSError as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                future.add_done_callback(functools.partial(_abandon, drop))
                self._end(f"{self._root} did not answer within {DEADLINE.total_seconds():.0f} s")
            else:
                self._end(f"{self._root} is gone: {words(error)}")
            raise SessionLost(self._lost) from None


def epoch(root: Path) -> str:
    """The epoch of every folder of the Maildir at ``root``.

    Unique names never come back, so the numbering has one lifetime. A device or inode number would change when a
    backup is restored, and the mail that comes back with it would be new mail.
    """
    return f"maildir localhost {root}"


def _abandon(drop: Callable[[T], None] | None, future: asyncio.Future[T]) -> None:
    if not future.cancelled() and future.exception() is None and drop is not None:
        drop(future.result())
