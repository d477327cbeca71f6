"""Which folders are polled: those that are configured and exist, some of them by patterns."""

from __future__ import annotations

import asyncio

import structlog

from mailpoller.sources.imap.config import ImapSettings, is_pattern
from mailpoller.wire.imap.folders import Folders
from mailpoller.wire.imap.names import composed

log = structlog.get_logger(__name__)

MATCHED_FOR = 60.0
"""Seconds after which patterns of folders are asked for anew."""
MOST = 500
"""Folders that one pattern may add."""


async def matching(folders: Folders, config: ImapSettings) -> tuple[list[str], dict[str, str]]:
    """The names that are configured, and in the place of each pattern what it matches now, INBOX first. That leaves out
    what is named already, and what mail is moved to: from there it would come again. And each pattern that matches more
    than :data:`MOST`, with the reason why the rest of it is not polled.

    Raises :class:`TransientError` if that cannot be told.
    """
    excess: dict[str, str] = {}
    if not any(map(is_pattern, config.folders)):
        return config.folders, excess

    async def place(name: str) -> str:
        wire, _ = await folders.find(name)
        return "INBOX" if wire.upper() == "INBOX" else composed(wire)

    known = {await place(name) for name in (*config.named_folders(), *config.move_targets())}
    found: list[str] = []
    for written in config.folders:
        if not is_pattern(written):
            found.append(written)
            continue
        added: list[str] = []
        for name in await folders.matching(written):
            if (where := await place(name)) not in known:
                known.add(where)
                added.append(name)
        added.sort(key=lambda name: name.upper() != "INBOX")
        if len(added) > MOST:
            excess[written] = (
                f"the pattern matches {len(added):,} folders, of which {MOST:,} are polled: name those that are meant, "
                "or write several narrower patterns"
            )
        found += added[:MOST]
    return found, excess


class PolledFolders:
    """The folders of one session. What patterns match is asked anew once in a while."""

    def __init__(self, folders: Folders, config: ImapSettings, mailbox: str) -> None:
        self._folders = folders
        self._config = config
        self._mailbox = mailbox
        self._matched: list[str] | None = None
        self._matched_at = 0.0
        self.excess: dict[str, str] = {}
        """Patterns that match too much, and the words for it."""

    async def existing(self) -> list[str]:
        """As configured and found to exist; one that is missing is logged and left out. Behind them the patterns that
        match too much, which cannot be opened: so they are told of as folders that fail are.

        Raises :class:`TransientError` if that cannot be told.
        """
        now = asyncio.get_running_loop().time()
        if self._matched is None or now - self._matched_at >= MATCHED_FOR:
            (self._matched, self.excess), self._matched_at = await matching(self._folders, self._config), now
        found = []
        for name in self._matched:
            _, exists = await self._folders.find(name)
            if exists:
                found.append(name)
            else:
                log.debug("folder.missing", mailbox=self._mailbox, folder=name)
        return [*found, *self.excess]
