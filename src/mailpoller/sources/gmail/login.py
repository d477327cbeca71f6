"""The first request of a session: it makes the connection, and shows whether we are let in."""

from __future__ import annotations

from mailpoller.core.errors import TransientError
from mailpoller.remote.gmail.client import PROFILE, GmailClient


async def log_in(client: GmailClient) -> str:
    """The first request of a session: it makes the connection, and shows whether we are let in. The mailbox's own
    address.

    Raises as :class:`GmailClient`; :class:`TransientError` if there is no address.
    """
    profile = await client.get("/profile", "let us into the mailbox", PROFILE, [("fields", "emailAddress")])
    address = profile.get("emailAddress")
    if not isinstance(address, str) or not address:
        raise TransientError(f"{client.host}: the mailbox has no address")
    return address
