"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that
fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from urllib.parse import quote

from mailpoller.core.delivery import Disposition
from mailpoller.core.ports import Stage
from mailpoller.core.spool import Spool
from mailpoller.remote.gmail.account import ME
from mailpoller.remote.gmail.client import MESSAGES_GET, MESSAGES_LIST, MESSAGES_MODIFY, GmailClient
from mailpoller.remote.gmail.errors import Invalid, Missing
from mailpoller.remote.gmail.labels import Labels
from mailpoller.remote.trial import AskedTrial
from mailpoller.sources.gmail.config import GmailSettings, reasons_against
from mailpoller.sources.gmail.encoded import EncodedIntake
from mailpoller.sources.gmail.login import log_in
from mailpoller.wire.http import Bearer
from mailpoller.wire.probe import WebApproach, token_step

_HEAD = 16_384
"""Octets of a message that are fetched, at most."""
_NOBODY = "0000000000000001"
"""The id of no message."""

_ADVICE = {
    "login": "Check auth: the service account's key and its delegation, or log in again with mailpoller oauth login.",
    "mailbox": "Check user, and that the token has the scope https://www.googleapis.com/auth/gmail.modify.",
    "folder": "Correct folders, or create the label; INBOX, SPAM, STARRED and IMPORTANT are the same in every "
    "language.",
    "message": "Try again; if it stays, the reason in the words above is what Google's support asks for.",
    "disposition": "Grant the scope gmail.modify, or choose another disposition (disposition: leave needs none).",
}


def probe(
    config: GmailSettings, client: GmailClient, tokens: Bearer, spool: Spool, dispositions: Sequence[Disposition]
) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""

    async def mailbox() -> str:
        address = await log_in(client)
        return address if config.user == ME else config.user

    way = WebApproach(config.url, config.policy, config.proxy, config.timeout, named="url")
    trial = _Trial(config, client, spool, dispositions)
    steps = [token_step(tokens), ("mailbox", mailbox), *trial.steps()]
    return way.probe(steps, lambda stage, _: _ADVICE[stage], client.close)


class _Trial(AskedTrial):
    there_are = "there are"

    def __init__(
        self, config: GmailSettings, client: GmailClient, spool: Spool, dispositions: Sequence[Disposition]
    ) -> None:
        self._labels = Labels(client)
        super().__init__(config, self._labels, dispositions)
        self._client = client
        self._spool = spool

    async def _read(self, name: str) -> bool:
        query = [("labelIds", await self._labels.find(name)), ("maxResults", "1"), ("fields", "messages(id)")]
        body = await self._client.get("/messages", "show a message", MESSAGES_LIST, query)
        listed = body.get("messages")
        uid = listed[0].get("id") if isinstance(listed, list) and listed and isinstance(listed[0], dict) else None
        if not isinstance(uid, str):
            return False
        intake = await self._client.download(
            f"/messages/{quote(uid, safe='')}", "show a message", MESSAGES_GET,
            [("format", "raw"), ("fields", "id,raw")], lambda: EncodedIntake(self._spool, _HEAD),
        )  # fmt: skip
        intake.abort()
        return True

    def _against(self, disposition: Disposition) -> Iterable[str]:
        return reasons_against(disposition)

    async def _change(self) -> None:
        try:
            # Whether we may is said before whether there is such a message.
            await self._client.post(
                f"/messages/{_NOBODY}/modify", "label messages", MESSAGES_MODIFY,
                {"addLabelIds": [], "removeLabelIds": ["UNREAD"]}, query=[("fields", "id")],
            )  # fmt: skip
        except (Missing, Invalid):
            pass
