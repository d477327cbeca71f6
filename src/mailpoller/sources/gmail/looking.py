"""Looking at messages by their ids: which labels they bear, and when they came. A few requests at a time, for there
is no other way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from mailpoller.core.errors import SessionLost
from mailpoller.core.record import record
from mailpoller.core.tasks import TaskGroup
from mailpoller.remote.gmail.client import AT_ONCE, MESSAGES_GET, GmailClient
from mailpoller.remote.gmail.errors import Missing
from mailpoller.sources.gmail.config import TRASH

MINIMAL = (("format", "minimal"), ("fields", "id,labelIds,internalDate"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@record
class Look:
    """A message as the service shows it now. ``received`` is None where it does not say."""

    labels: frozenset[str]
    received: datetime | None

    @property
    def thrown_away(self) -> bool:
        """A person has put it into the trash, where it stays for thirty days."""
        return TRASH in self.labels

    def lies_under(self, label: str) -> bool:
        """Whether the label with this id shows it."""
        return label in self.labels and (label == TRASH or not self.thrown_away)


async def looked_at(client: GmailClient, uids: Sequence[str]) -> dict[str, Look]:
    """Those of the messages that the service has. Raises as the client does if that cannot be told of one of them."""
    found: dict[str, Look] = {}

    def one(uid: str) -> Callable[[], Awaitable[None]]:
        async def look() -> None:
            try:
                told = await client.get(f"/messages/{quote(uid, safe='')}", "look at a message", MESSAGES_GET, MINIMAL)
            except Missing:
                return
            found[uid] = Look(labels_of(told.get("labelIds")), instant(told.get("internalDate")))

        return look

    await at_once([one(uid) for uid in uids])
    return found


async def at_once(work: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Do all of it, a few at a time. Raises the first error, :class:`SessionLost` before others."""
    waiting = iter(work)

    async def labour() -> None:
        for each in waiting:
            await each()

    try:
        async with TaskGroup() as group:
            for number in range(min(AT_ONCE, len(work))):
                group.create_task(labour(), name=f"ask about a message {number}")
    except ExceptionGroup as several:
        raise next((one for one in several.exceptions if isinstance(one, SessionLost)), several.exceptions[0]) from None


def labels_of(told: object) -> frozenset[str]:
    """The ids of labels; what is no list of them is none."""
    return frozenset(one for one in told if isinstance(one, str)) if isinstance(told, list) else frozenset()


def instant(found: object) -> datetime | None:
    """An internalDate: milliseconds since 1970, as text; None if it is none."""
    try:
        return _EPOCH + timedelta(milliseconds=int(found)) if isinstance(found, str | int) else None
    except (ValueError, OverflowError):
        return None
