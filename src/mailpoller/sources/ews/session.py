"""A session with a mailbox on an Exchange server: the port that the engine speaks to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from urllib.parse import urlsplit

from mailpoller.core.delivery import Disposed, Disposition, Settlement
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, Page, Position, RawMessage
from mailpoller.core.ports import Clock, Start
from mailpoller.core.spool import Spool
from mailpoller.remote.gaps import Gaps
from mailpoller.remote.polled_session import FolderGone, PolledSession, State, Wish
from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.config import EwsSettings
from mailpoller.sources.ews.download import Download, Known
from mailpoller.sources.ews.folders import Folders
from mailpoller.sources.ews.listing import Listing, StateLost, arrivals, list_folder
from mailpoller.sources.ews.looking import look_at
from mailpoller.sources.ews.settling import Settling
from mailpoller.wire.address import USER_LEFT, account_url
from mailpoller.wire.http import iso_date

PAGE = 500
"""Refs of one page."""
REMEMBERED = 5_000
"""Items that were fetched and not settled yet of which element and version are kept; of others they are asked again."""


def epoch_of(config: EwsSettings, folder_id: str) -> str:
    """``ews://owner@host/path;FOLDER=id``, host in lower case; a port other than the scheme's stands behind it."""
    parts = urlsplit(config.url)
    account = account_url("ews", config.owner.lower(), config.host, config.port, (80, 443), left=USER_LEFT)
    return f"{account}{parts.path.lower()};FOLDER={folder_id}"


def _pages_of(listing: Listing) -> Iterator[Page]:
    """The piece, cut; only the last page has its position."""
    refs = listing.refs
    last = max(len(refs) - 1, 0) // PAGE
    for number in range(last):
        yield Page(refs[number * PAGE : (number + 1) * PAGE], None, listing.count)
    end = refs[last * PAGE :]
    yield Page(end, listing.position, listing.count, gap=listing.gap, partial=listing.partial)


class EwsSession(PolledSession):
    """See :class:`mailpoller.core.ports.Session`. One connection, and every request takes its turn on it."""

    def __init__(self, name: str, config: EwsSettings, client: EwsClient, spool: Spool, clock: Clock) -> None:
        self._folders = Folders(client, config.mailbox if config.access == "delegate" else None)
        super().__init__(name, config, self._folders, client, clock)
        self._config = config
        self._client = client
        self._spool = spool
        self._states: dict[str, str] = {}
        """Folder id -> the sync state that was reached last: since then there is no news."""
        self._gaps: dict[str, Gaps] = {}
        """Folder id -> where its listings contradicted themselves in this session."""
        self._known: dict[str, Known] = {}
        self._proven: set[str] = set()
        """The marks that were read back in this session, and held."""

    # --- folders -----------------------------------------------------------------------------------------------
    def _epoch_of(self, uid: str) -> str:
        return epoch_of(self._config, uid)

    # --- messages ----------------------------------------------------------------------------------------------
    async def pending(self, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        """See the port. Only the last page has a position: a sync state covers all that was listed, or nothing."""
        uid = self._require(folder)
        gaps = self._gaps.setdefault(uid, Gaps(folder))
        try:
            async for listing in list_folder(self._client, folder, uid, since, start, self._clock, gaps):
                if listing.position is not None:
                    self._reached(uid, listing.state)
                for page in _pages_of(listing):
                    yield page
        except FolderGone:
            self._folders.forget(folder.name)
            raise

    def _reached(self, folder: str, state: str) -> None:
        if state:
            self._states[folder] = state
        else:
            self._states.pop(folder, None)

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

    async def _shown(self, folder: str, uids: Sequence[str]) -> Mapping[str, datetime | None]:
        looked = await look_at(self._client, uids, ["item:DateTimeReceived"])
        for uid, reply in looked.refused.items():
            if uid not in looked.gone:
                raise reply.trouble("tell whether a message is there")
        if looked.refused:
            # A server that lets us see nothing any more says the same of every message, so that is ruled out.
            await self._folders.see(folder)
        return {uid: iso_date(node.value("DateTimeReceived")) for uid, node in looked.items.items()}

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        """See the port."""
        disposed = await super().settle(settlements)
        for one in settlements:
            self._known.pop(one.ref.uid, None)
        return disposed

    async def _carry_out(self, folder: str, wishes: Sequence[Wish]) -> Mapping[Wish, State]:
        """Like dispositions go together, and one that fails as a whole leaves the others alone."""
        groups: dict[Disposition, list[str]] = defaultdict(list)
        for uid, disposition in wishes:
            groups[disposition].append(uid)
        settling = Settling(self._client, self._folders, self._known, self._config.deletion, self._proven)
        states: dict[Wish, State] = {}
        for disposition, uids in groups.items():
            try:
                found = await settling.apply(disposition, uids)
            except SessionLost:
                raise
            except TransientError as error:
                # Some of it may have been done; what is asked for twice is done once.
                found = dict.fromkeys(uids, ("pending", str(error)))
            states.update({(uid, disposition): state for uid, state in found.items()})
        return states

    # --- waiting -----------------------------------------------------------------------------------------------
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
