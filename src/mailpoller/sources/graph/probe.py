"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that
fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Stage
from mailpoller.core.spool import Spool
from mailpoller.remote.exchange import impossible
from mailpoller.remote.graph import Ask, GraphClient
from mailpoller.remote.graph.errors import LOGIN_ADVICE
from mailpoller.remote.trial import AskedTrial
from mailpoller.sources.graph.config import GraphSettings
from mailpoller.sources.graph.folders import Folders
from mailpoller.sources.graph.login import log_in
from mailpoller.wire.http import Bearer
from mailpoller.wire.probe import WebApproach, token_step

_HEAD = 16_384
"""Octets of a message that are fetched, at most."""
_NOBODY = "mailpoller-asks-whether-it-may"
"""The id of no message."""

_ADVICE = {
    "login": LOGIN_ADVICE,
    "mailbox": "Check user, and what the application may do: Entra, App registrations, API permissions: "
    "Mail.ReadWrite.",
    "folder": "Correct folders, or create the folder; inbox, junkemail and archive are the same in every language.",
    "message": "Try again; if it stays, the code in the words above is what Microsoft's support asks for.",
    "disposition": "Grant the application Mail.ReadWrite, or choose another disposition (disposition: leave needs "
    "none).",
}


def probe(
    config: GraphSettings, client: GraphClient, tokens: Bearer, spool: Spool, dispositions: Sequence[Disposition]
) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""

    async def mailbox() -> str:
        await log_in(client)
        return config.user

    way = WebApproach(config.service, config.policy, config.proxy, config.timeout, named="cloud or url")
    trial = _Trial(config, client, spool, dispositions)
    steps = [token_step(tokens), ("mailbox", mailbox), *trial.steps()]
    return way.probe(steps, lambda stage, _: _ADVICE[stage], client.close)


class _Trial(AskedTrial):
    def __init__(
        self, config: GraphSettings, client: GraphClient, spool: Spool, dispositions: Sequence[Disposition]
    ) -> None:
        self._folders = Folders(client)
        super().__init__(config, self._folders, dispositions)
        self._client = client
        self._spool = spool

    async def _read(self, name: str) -> bool:
        path = f"/mailFolders/{await self._folders.find(name)}/messages"
        body = self._client.object(await self._client.get(path, "show a message", select="id", top="1"))
        values = body.get("value")
        found = values[0].get("id") if isinstance(values, list) and values and isinstance(values[0], dict) else None
        if not isinstance(found, str):
            return False
        intake = self._spool.begin(_HEAD)
        try:
            await self._client.download(found, intake, "show a message")
        finally:
            intake.abort()
        return True

    def _against(self, disposition: Disposition) -> Iterable[str]:
        return filter(None, map(impossible, disposition.flags))

    async def _change(self) -> None:
        # Whether we may is said before whether there is such a message.
        (answer,) = await self._client.batch([Ask("PATCH", f"/messages/{_NOBODY}", {"isRead": True})], "mark messages")
        if answer.status == 403:
            raise TransientError(f"messages may not be changed: {answer.reason}")
