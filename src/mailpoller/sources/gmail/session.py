"""A session with a mailbox by the Gmail API: the port that the engine speaks to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from urllib.parse import urlsplit

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Claim, Folder, Gone, Page, Position, RawMessage
from mailpoller.core.ports import Clock, Start
from mailpoller.core.spool import Spool
from mailpoller.remote.gaps import Gaps
from mailpoller.remote.gmail.client import GmailClient
from mailpoller.remote.gmail.errors import Invalid, Missing
from mailpoller.remote.gmail.labels import Labels
from mailpoller.remote.polled_session import PolledSession, State, Wish
from mailpoller.sources.gmail.config import TRASH, GmailSettings
from mailpoller.sources.gmail.contents import Contents, EndlessListing, HistoryLost
from mailpoller.sources.gmail.download import Download
from mailpoller.sources.gmail.listing import Listing
from mailpoller.sources.gmail.looking import looked_at
from mailpoller.sources.gmail.settling import Settling
from mailpoller.wire.address import USER_LEFT, account_url

REMEMBERED = 5_000
"""Messages that were listed or fetched lately of which that is remembered."""
FRESH = 60.0
"""So many seconds after it was fetched a message is believed to lie where it lay."""


def epoch_of(config: GmailSettings, user: str, label: str) -> str:
    """``gmail://user@host/;LABEL=id``, user and host in lower case. A new name of the label makes no other epoch: ids
    stay the same."""
    port = urlsplit(config.url).port or 443
    account = account_url("gmail", user.lower(), config.host, port, (443, 80), left=USER_LEFT)
    return f"{account}/;LABEL={label}"


class GmailSession(PolledSession):
    """See :class:`mailpoller.core.ports.Session`. There is no connection to speak of: the session is lost when an
    answer is."""

    def __init__(
        self, name: str, config: GmailSettings, user: str, client: GmailClient, spool: Spool, clock: Clock
    ) -> None:  # fmt: skip
        self._labels = Labels(client)
        super().__init__(name, config, self._labels, client, clock)
        self._config = config
        self._user = user
        self._client = client
        self._spool = spool
        self._reached: dict[str, str] = {}
        """Label id -> the history id that was reached last: since then there is no news."""
        self._gaps: dict[str, Gaps] = {}
        """Label id -> where its listings contradicted themselves in this session."""
        self._known: OrderedDict[str, None] = OrderedDict()
        """The messages that were listed last, of which nothing is news."""
        self._fetched: OrderedDict[tuple[str, str], float] = OrderedDict()
        """Label id and uid -> when the message was fetched and bore the label, on the clock's monotonic scale."""

    # --- folders -----------------------------------------------------------------------------------------------
    async def folders(self) -> Sequence[str]:
        """See :meth:`PolledSession.folders`; labels are asked for anew."""
        self._labels.forget()
        return await super().folders()

    def _epoch_of(self, uid: str) -> str:
        return epoch_of(self._config, self._user, uid)

    # --- messages ----------------------------------------------------------------------------------------------
    async def pending(self, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        """See the port. A page may be consumed as slowly as one likes, and fetching beside it is no trouble."""
        label = self._require(folder)
        listing = Listing(self._client, folder, label, self._clock, self._gaps.setdefault(label, Gaps(folder)))
        try:
            async with aclosing(listing.pages(since, start)) as pages:  # type: ignore[type-var]
                async for listed in pages:
                    self._learn([ref.uid for ref in listed.page.refs])
                    if listed.history:
                        self._reached[label] = listed.history
                    yield listed.page
        except (Missing, Invalid) as error:
            self._labels.forget()
            raise TransientError(f"the label {folder.name} cannot be listed: {error}") from error

    def _learn(self, uids: Sequence[str]) -> None:
        for uid in uids:
            self._known[uid] = None
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    async def fetch(self, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        """See the port. Raises :class:`TransientError` after all that could be had, if something could not."""
        if not claims:
            return
        label = self._require(*{claim.ref.folder for claim in claims})
        download = Download(self._client, self._spool, label, claims, max(limit, 0))
        async with aclosing(download.answers(f"fetch {self._name}")) as answers:
            async for answer in answers:
                uid = answer.claim.ref.uid
                if label in download.labels.get(uid, ()):
                    self._note(label, uid)
                yield answer

    def _note(self, label: str, uid: str) -> None:
        self._fetched[label, uid] = self._clock.monotonic()
        while len(self._fetched) > REMEMBERED:
            self._fetched.popitem(last=False)

    async def _shown(self, folder: str, uids: Sequence[str]) -> Mapping[str, datetime | None]:
        found = await looked_at(self._client, uids)
        return {uid: one.received for uid, one in found.items() if not one.thrown_away or folder == TRASH}

    async def _carry_out(self, folder: str, wishes: Sequence[Wish]) -> Mapping[Wish, State]:
        now = self._clock.monotonic()
        # Believed once: what is asked for again may have been done, and then been undone by a person.
        fresh = {uid for uid, _ in wishes if now - self._fetched.pop((folder, uid), float("-inf")) < FRESH}
        return await Settling(self._client, self._labels, folder, fresh).apply(wishes)

    # --- waiting -----------------------------------------------------------------------------------------------
    async def _news(self) -> bool:
        folder, label = self._opened.get(self._first, (None, ""))
        history = self._reached.get(label)
        if folder is None or history is None:
            return False
        contents = Contents(self._client, label)
        try:
            came, self._reached[label], _ = await contents.since(history)
        except (HistoryLost, EndlessListing, Invalid):
            contents.trouble = "the history is of no use"
        if contents.trouble or contents.unreadable:
            # The poll that follows finds out.
            self._reached.pop(label, None)
            return True
        return any(uid not in self._known for uid in came)
