"""A session with a mailbox on an Exchange server: the port that the engine speaks to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from urllib.parse import quote as percent
from urllib.parse import urlsplit

import structlog

from mailpoller.core.delivery import Disposed, Disposition, Settlement
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, Page, Position, RawMessage
from mailpoller.core.ports import Clock, Start, Wake
from mailpoller.core.spool import Spool
from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.config import EwsConfig
from mailpoller.sources.ews.download import Download, Known
from mailpoller.sources.ews.folders import Folders
from mailpoller.sources.ews.listing import StateLost, arrivals, list_folder
from mailpoller.sources.ews.replies import FolderGone
from mailpoller.sources.ews.settling import Settling, State

log = structlog.get_logger(__name__)

PAGE = 500
"""Refs of one page."""
REMEMBERED = 5_000
"""Items that were fetched and not settled yet of which element and version are kept; of others they are asked again."""
GOODBYE = 4.0
"""Seconds that closing the connection may take."""


def epoch_of(config: EwsConfig, folder_id: str) -> str:
    """``ews://owner@host/path;FOLDER=id``, host in lower case; a port other than the scheme's stands behind it."""
    parts = urlsplit(config.url)
    port = "" if config.port in (80, 443) else f":{config.port}"
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"ews://{percent(config.owner.lower(), safe='@')}@{host}{port}{parts.path.lower()};FOLDER={folder_id}"


class EwsSession:
    """See :class:`mailpoller.core.ports.Session`. One connection, and every request takes its turn on it."""

    def __init__(self, name: str, config: EwsConfig, client: EwsClient, spool: Spool, clock: Clock) -> None:
        self._name = name
        self._config = config
        self._client = client
        self._spool = spool
        self._clock = clock
        self._folders = Folders(client, config.mailbox if config.access == "delegate" else None)
        self._first = config.folders[0]
        self._opened: dict[str, tuple[Folder, str]] = {}
        """name -> folder and its id."""
        self._states: dict[str, str] = {}
        """Folder id -> the sync state that was reached last: since then there is no news."""
        self._known: dict[str, Known] = {}

    # --- folders -----------------------------------------------------------------------------------------------
    async def folders(self) -> Sequence[str]:
        """As configured and found to exist; one that is missing is logged and left out.

        Raises :class:`TransientError` if none exists.
        """
        self._client.check()
        found = []
        for name in self._config.folders:
            try:
                await self._folders.find(name)
                found.append(name)
            except FolderGone:
                log.warning("folder.missing", mailbox=self._name, folder=name)
        if not found:
            raise TransientError("none of the mailbox's folders exists")
        self._first = found[0]
        return found

    async def open(self, name: str) -> Folder:
        uid = await self._folders.look(name)
        folder = Folder(self._name, name, epoch_of(self._config, uid))
        self._opened[name] = folder, uid
        return folder

    def _require(self, *folders: Folder) -> str:
        """The id of the folder, which was opened in this session and epoch."""
        self._client.check()
        folder, uid = self._opened.get(folders[0].name, (None, ""))
        if any(one != folder for one in folders):
            raise TransientError(f"the folder {folders[0].name} is not open in this epoch")
        return uid

    # --- messages ----------------------------------------------------------------------------------------------
    async def pending(self, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        """See the port. Only the last page has a position: a sync state covers all that was listed, or nothing."""
        uid = self._require(folder)
        try:
            listing = await list_folder(self._client, folder, uid, since, start, self._clock)
        except FolderGone:
            self._folders.forget(folder.name)
            raise
        self._states[uid] = listing.state
        refs = listing.refs
        last = max(len(refs) - 1, 0) // PAGE
        for page in range(last + 1):
            yield Page(refs[page * PAGE : (page + 1) * PAGE], listing.position if page == last else None, len(refs))

    async def fetch(self, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        """See the port. Raises :class:`TransientError` after all that could be had, if something could not."""
        if not claims:
            return
        uid = self._require(*{claim.ref.folder for claim in claims})
        confirm = partial(self._folders.see, uid)
        download = Download(self._client, self._spool, claims, max(limit, 0), learn=self._learn, confirm=confirm)
        async with aclosing(download.answers(f"fetch {self._name}")) as answers:
            async for answer in answers:
                yield answer

    def _learn(self, uid: str, known: Known) -> None:
        self._known[uid] = known
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        """See the port. Like dispositions go together; one that cannot be told now is ``pending``."""
        self._client.check()
        if self._config.mode == "shadow":
            return [Disposed(one, "applied") for one in settlements]
        if not settlements:
            return []
        try:
            self._require(*{one.ref.folder for one in settlements})
        except SessionLost:
            raise
        except TransientError as error:
            return [Disposed(one, "pending", str(error)) for one in settlements]
        groups: dict[Disposition, list[str]] = defaultdict(list)
        for one in settlements:
            groups[one.disposition].append(one.ref.uid)
        settling = Settling(self._client, self._folders, self._known, self._config.deletion)
        states: dict[tuple[Disposition, str], State] = {}
        for disposition, uids in groups.items():
            found = await self._settled(settling, disposition, uids)
            states.update({(disposition, uid): state for uid, state in found.items()})
        for one in settlements:
            self._known.pop(one.ref.uid, None)
        return [Disposed(one, *states[one.disposition, one.ref.uid]) for one in settlements]

    async def _settled(self, settling: Settling, disposition: Disposition, uids: list[str]) -> dict[str, State]:
        if disposition.leaves:
            return dict.fromkeys(uids, ("applied", ""))
        try:
            return await settling.apply(disposition, uids)
        except SessionLost:
            raise
        except TransientError as error:
            # Some of it may have been done; what is asked for twice is done once.
            return dict.fromkeys(uids, ("pending", str(error)))

    # --- waiting -----------------------------------------------------------------------------------------------
    async def wait(self, limit: timedelta) -> Wake:
        """See the port: the server is asked at every ``notice_interval``. What we change ourselves is no news, and news that was
        told is not told again."""
        ends = self._clock.monotonic() + limit.total_seconds()
        interval = self._config.notice_interval.total_seconds()
        while True:
            self._client.check()
            left = ends - self._clock.monotonic()
            if left <= 0:
                return Wake.LIMIT
            await self._clock.sleep(min(left, interval))
            if left > interval and await self._news():
                return Wake.NEWS

    async def _news(self) -> bool:
        uid = await self._folders.find(self._first)
        state = self._states.get(uid)
        if state is None:
            return False
        try:
            came, self._states[uid] = await arrivals(self._client, uid, state)
        except (StateLost, FolderGone):
            # The poll that follows finds out.
            self._states.pop(uid, None)
            self._folders.forget(self._first)
            return True
        return came

    # --- the end -----------------------------------------------------------------------------------------------
    async def close(self) -> None:
        """There is nothing to say: HTTP has no goodbye."""
        try:
            async with asyncio.timeout(GOODBYE):
                await self._client.close()
        except TimeoutError:
            pass
