"""A session with a mailbox by Graph: the port that the engine speaks to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from urllib.parse import quote as percent
from urllib.parse import urlsplit

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Claim, Folder, Gone, Page, Position, RawMessage
from mailpoller.core.ports import Clock, Start
from mailpoller.core.spool import Spool
from mailpoller.remote.gaps import Gaps
from mailpoller.remote.graph import Ask, GraphClient, Missing, SyncLost
from mailpoller.remote.polled_session import PolledSession, State, Wish
from mailpoller.sources.graph.config import GraphSettings
from mailpoller.sources.graph.download import Download, Facts
from mailpoller.sources.graph.folders import Folders
from mailpoller.sources.graph.items import Item, item_of
from mailpoller.sources.graph.listing import EndlessListing, Listing
from mailpoller.sources.graph.settling import Settling
from mailpoller.wire.address import USER_LEFT, account_url

REMEMBERED = 5_000
"""Messages that were listed lately of which is kept what the service said; of others it is asked again."""


def epoch_of(config: GraphSettings, folder_id: str) -> str:
    """``graph://user@host/;FOLDER=id``, user and host in lower case. Neither a new name of the folder nor another
    version of Graph makes another epoch: ids stay the same."""
    port = urlsplit(config.service).port or 443
    account = account_url("graph", config.user.lower(), config.host, port, (443, 80), left=USER_LEFT)
    return f"{account}/;FOLDER={folder_id}"


class GraphSession(PolledSession):
    """See :class:`mailpoller.core.ports.Session`. There is no connection to speak of: the session is lost when an
    answer is."""

    def __init__(self, name: str, config: GraphSettings, client: GraphClient, spool: Spool, clock: Clock) -> None:
        self._folders = Folders(client)
        super().__init__(name, config, self._folders, client, clock)
        self._config = config
        self._client = client
        self._spool = spool
        self._links: dict[str, str] = {}
        """Folder id -> the delta link that was reached last: since then there is no news."""
        self._gaps: dict[str, Gaps] = {}
        """Folder id -> where its listings contradicted themselves in this session."""
        self._known: OrderedDict[str, Facts | None] = OrderedDict()
        """The messages that were listed last, of which nothing is news, and what the service said about them."""

    # --- folders -----------------------------------------------------------------------------------------------
    def _epoch_of(self, uid: str) -> str:
        return epoch_of(self._config, uid)

    # --- messages ----------------------------------------------------------------------------------------------
    async def pending(self, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        """See the port. A full listing is shown as it comes, for a hundred thousand messages take minutes; a page may
        be consumed as slowly as one likes, and fetching beside it is no trouble."""
        uid = self._require(folder)
        listing = self._listing(folder, uid)
        try:
            async with aclosing(listing.pages(since, start)) as pages:  # type: ignore[type-var]
                async for listed in pages:
                    self._learn(listed.items)
                    if listed.link:
                        self._links[uid] = listed.link
                    yield listed.page
        except Missing as error:
            self._folders.forget(folder.name)
            raise TransientError(f"the folder {folder.name} cannot be listed: {error}") from error

    def _listing(self, folder: Folder, uid: str) -> Listing:
        config = self._config
        gaps = self._gaps.setdefault(uid, Gaps(folder))
        return Listing(self._client, folder, uid, self._clock, config.sweep_interval, config.sweep_reach, gaps)

    def _learn(self, items: Sequence[Item]) -> None:
        for item in items:
            self._known[item.uid] = item.facts
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    async def fetch(self, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        """See the port. Raises :class:`TransientError` after all that could be had, if something could not."""
        if not claims:
            return
        self._require(*{claim.ref.folder for claim in claims})
        facts = {one.ref.uid: found for one in claims if (found := self._known.get(one.ref.uid)) is not None}
        download = Download(self._client, self._spool, claims, max(limit, 0), facts)
        async with aclosing(download.answers(f"fetch {self._name}")) as answers:
            async for answer in answers:
                yield answer

    async def _shown(self, folder: str, uids: Sequence[str]) -> Mapping[str, datetime | None]:
        """Wherever a person has put them since: an id finds its message there too, and it is fetched from there."""
        asks = [Ask("GET", f"/messages/{percent(uid, safe='')}?$select=receivedDateTime") for uid in uids]
        shown: dict[str, datetime | None] = {}
        for uid, answer in zip(uids, await self._client.batch(asks, "look at messages"), strict=True):
            if answer.ok:
                shown[uid] = item_of(answer.body).received
            elif not answer.gone:
                raise TransientError(f"the service does not tell whether a message is there: {answer.reason}")
        return shown

    async def _carry_out(self, folder: str, wishes: Sequence[Wish]) -> Mapping[Wish, State]:
        return await Settling(self._client, self._folders, folder, self._config.deletion).apply(wishes)

    # --- waiting -----------------------------------------------------------------------------------------------
    async def _news(self) -> bool:
        folder, uid = self._opened.get(self._first, (None, ""))
        link = self._links.get(uid)
        if folder is None or link is None:
            return False
        try:
            came, self._links[uid] = await self._listing(folder, uid).news(link, self._known)
        except (SyncLost, Missing, EndlessListing):
            # The poll that follows finds out.
            self._links.pop(uid, None)
            return True
        return came
