"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from urllib.parse import quote

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.core.ports import Stage
from mailpoller.core.spool import Spool
from mailpoller.sources.gmail.client import MESSAGES_GET, MESSAGES_LIST, MESSAGES_MODIFY, GmailClient
from mailpoller.sources.gmail.config import ME, GmailConfig, reasons_against
from mailpoller.sources.gmail.encoded import EncodedIntake
from mailpoller.sources.gmail.errors import Invalid, Missing
from mailpoller.sources.gmail.labels import LabelGone, Labels
from mailpoller.sources.gmail.source import log_in
from mailpoller.transport.http import Bearer
from mailpoller.transport.probe import Step, WebApproach, stages

_HEAD = 16_384
"""Octets of a message that are fetched, at most."""
_NOBODY = "0000000000000001"
"""The id of no message."""

_ADVICE = {
    "login": "Check auth: the service account's key and its delegation, or log in again with mailpoller oauth login.",
    "mailbox": "Check user, and that the token has the scope https://www.googleapis.com/auth/gmail.modify.",
    "folder": "Correct folders, or create the label; INBOX, SPAM, STARRED and IMPORTANT are the same in every language.",
    "message": "Try again; if it stays, the reason in the words above is what Google's support asks for.",
    "disposition": "Grant the scope gmail.modify, or choose another disposition (disposition: leave needs none).",
}


def probe(
    config: GmailConfig, client: GmailClient, tokens: Bearer, spool: Spool, dispositions: Sequence[Disposition]
) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""
    attempt = _Attempt(config, client, tokens, spool, dispositions)
    approach = WebApproach(config.url, config.policy, config.proxy, config.timeout, named="url")
    steps: list[Step] = [
        *approach.steps(), ("login", attempt.login), ("mailbox", attempt.mailbox), ("folder", attempt.folder),
        ("message", attempt.message), ("disposition", attempt.disposition),
    ]  # fmt: skip
    return stages(
        steps, lambda name, error: approach.advice(name, error) or attempt.advice(name, error),
        approach.close, client.close,
    )  # fmt: skip


class _Attempt:
    """The steps behind the connection; each returns what there is to say about it."""

    def __init__(
        self,
        config: GmailConfig,
        client: GmailClient,
        tokens: Bearer,
        spool: Spool,
        dispositions: Sequence[Disposition],
    ) -> None:
        self._config = config
        self._client = client
        self._tokens = tokens
        self._spool = spool
        self._labels = Labels(client)
        self._dispositions = [one for one in dict.fromkeys(dispositions) if not one.leaves]

    async def login(self) -> str:
        await self._tokens.token()
        return "there is a token"

    async def mailbox(self) -> str:
        address = await log_in(self._client)
        return address if self._config.user == ME else self._config.user

    async def folder(self) -> str:
        for name in self._config.folders:
            try:
                await self._labels.find(name)
            except LabelGone as error:
                raise TransientError(f"{error}; there are: {', '.join(await self._labels.names())}") from None
        return ", ".join(self._config.folders)

    async def message(self) -> str:
        for name in self._config.folders:
            query = [("labelIds", await self._labels.find(name)), ("maxResults", "1"), ("fields", "messages(id)")]
            body = await self._client.get("/messages", "show a message", MESSAGES_LIST, query)
            listed = body.get("messages")
            uid = listed[0].get("id") if isinstance(listed, list) and listed and isinstance(listed[0], dict) else None
            if not isinstance(uid, str):
                continue
            intake = await self._client.download(
                f"/messages/{quote(uid, safe='')}", "show a message", MESSAGES_GET,
                [("format", "raw"), ("fields", "id,raw")], lambda: EncodedIntake(self._spool, _HEAD),
            )  # fmt: skip
            intake.abort()
            return f"a message of {name} can be read"
        return "there is no message to try with"

    async def disposition(self) -> str:
        if self._config.mode == "shadow":
            return "nothing is ever changed (mode: shadow)"
        if not self._dispositions:
            return "messages are left as they are"
        told: list[str] = []
        for disposition in self._dispositions:
            for reason in reasons_against(disposition):
                raise TransientError(reason)
            if disposition.move is not None:
                told.append(await self._target(disposition.move))
        try:
            # Whether we may is said before whether there is such a message.
            await self._client.post(
                f"/messages/{_NOBODY}/modify", "label messages", MESSAGES_MODIFY,
                {"addLabelIds": [], "removeLabelIds": ["UNREAD"]}, query=[("fields", "id")],
            )  # fmt: skip
        except (Missing, Invalid):
            pass
        return "; ".join(told)

    async def _target(self, target: str) -> str:
        try:
            uid = await self._labels.find(target)
        except LabelGone:
            return f"{target} does not exist and will be created"
        if any([uid == await self._labels.find(name) for name in self._config.folders]):
            raise TransientError(f"{target} is itself polled: messages would be moved onto themselves")
        return f"{target} exists"

    def advice(self, stage: str, error: MailpollerError) -> str:
        """What a sysadmin can do about it, where the error itself does not say."""
        return getattr(error, "advice", "") or _ADVICE[stage]
