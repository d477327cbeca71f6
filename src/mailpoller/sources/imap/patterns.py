"""Folders that are configured by patterns."""

from __future__ import annotations

from mailpoller.sources.imap.config import ImapSettings, is_pattern
from mailpoller.wire.imap.folders import Folders
from mailpoller.wire.imap.names import composed


async def matching(folders: Folders, config: ImapSettings) -> list[str]:
    """The names that are configured, and in the place of each pattern what it matches now. That leaves out what is
    named already, and what mail is moved to: from there it would come again.

    Raises :class:`TransientError` if that cannot be told.
    """
    if not any(map(is_pattern, config.folders)):
        return config.folders

    async def place(name: str) -> str:
        wire, _ = await folders.find(name)
        return "INBOX" if wire.upper() == "INBOX" else composed(wire)

    known = {await place(name) for name in (*config.named_folders(), *config.move_targets())}
    found: list[str] = []
    for written in config.folders:
        if not is_pattern(written):
            found.append(written)
            continue
        for name in await folders.matching(written):
            if (where := await place(name)) not in known:
                known.add(where)
                found.append(name)
    return found
