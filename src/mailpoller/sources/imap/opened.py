"""The folder that is open in an IMAP session: its epoch, and what is known of it while it is."""

from __future__ import annotations

from dataclasses import dataclass

from mailpoller.core.message import Folder, Position
from mailpoller.core.record import record
from mailpoller.sources.imap.config import ImapSettings
from mailpoller.wire.address import account_url
from mailpoller.wire.imap.selected import SelectedFolder

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 10.0
"""Seconds between two news after one that led to nothing; doubled each time that happens again, until it does not."""


@dataclass(slots=True)
class OpenFolder:
    """The folder that is selected."""

    folder: Folder
    wire: str
    mailbox: SelectedFolder
    selected_at: float
    refreshed: bool = True
    """The server has just had a chance to tell its news, and no listing has made use of that."""
    heeded: int = 0
    """Hints of news that a listing or a :meth:`ImapSession.wait` has taken care of."""


@record
class Seen:
    """How far a folder was listed: to this position, when the server had given this many hints of news."""

    position: Position | None
    mailbox: SelectedFolder
    news: int
    gap: str
    day: int


@record
class Mark:
    """What was known of a folder when it was last listed or its news were told."""

    uidvalidity: int | None
    uidnext: int | None
    exists: int

    def moved(self, now: Mark) -> bool:
        """The folder has mail that was not there then; without UIDNEXT as well as can be told."""
        if self.uidvalidity != now.uidvalidity:
            return True
        if self.uidnext is None or now.uidnext is None:
            return now.exists > self.exists
        return now.uidnext > self.uidnext


class NewsPace:
    """When news of a folder may be told: told too often and for nothing, it would be all that we do."""

    def __init__(self) -> None:
        self.begins_at = 0.0
        """From then on, on the loop's clock."""
        self._fruitless = 0

    def told(self, now: float) -> None:
        """It was told, and nothing has come of it yet."""
        self.begins_at = now + min(FIRST_PAUSE * 2.0 ** min(self._fruitless, 20), LONGEST_PAUSE)
        self._fruitless += 1


def epoch_of(config: ImapSettings, uidvalidity: int) -> str:
    """``imap://user@host/;UIDVALIDITY=n`` (after RFC 5092), host in lower case."""
    account = account_url("imap", config.username, config.host, config.effective_port, (143, 993))
    return f"{account}/;UIDVALIDITY={uidvalidity}"
