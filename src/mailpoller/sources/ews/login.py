"""The first request of a session: it makes the connection, and shows whether we are let in."""

from __future__ import annotations

from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.config import EwsSettings
from mailpoller.sources.ews.replies import IDENTITY
from mailpoller.sources.ews.soap import distinguished, get_folder


async def log_in(client: EwsClient, config: EwsSettings) -> None:
    """Make the connection and log in. Raises as :meth:`EwsClient.ask`."""
    owner = config.mailbox if config.access == "delegate" else None
    doing = "let us in"
    for reply in await client.ask(get_folder(distinguished("inbox", owner)), doing):
        if reply.code in IDENTITY:
            raise reply.trouble(doing)
