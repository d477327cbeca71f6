"""The first request of a session: it makes the connection, and shows whether we are let in."""

from __future__ import annotations

from mailpoller.remote.graph import GraphClient


async def log_in(client: GraphClient) -> None:
    """The first request of a session: it makes the connection, and shows whether we are let in. Raises as
    :class:`GraphClient`."""
    answer = await client.get("/mailFolders/inbox", "let us into the mailbox", select="id")
    client.object(answer)
