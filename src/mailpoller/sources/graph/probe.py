"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.core.ports import Stage
from mailpoller.core.spool import Spool
from mailpoller.sources.graph.config import GraphConfig, impossible
from mailpoller.sources.graph.folders import Folders
from mailpoller.sources.graph.source import log_in
from mailpoller.transport.asking import FolderGone
from mailpoller.transport.graph import Ask, GraphClient
from mailpoller.transport.graph.way import WayToGraph
from mailpoller.transport.http import Bearer
from mailpoller.transport.probe import Step, stages

_HEAD = 16_384
"""Octets of a message that are fetched, at most."""
_NOBODY = "mailpoller-asks-whether-it-may"
"""The id of no message."""


def probe(
    config: GraphConfig, client: GraphClient, tokens: Bearer, spool: Spool, dispositions: Sequence[Disposition]
) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""
    attempt = _Attempt(config, client, spool, dispositions)
    way = WayToGraph(config.service, config.policy, config.proxy, config.timeout, tokens)
    steps: list[Step] = [
        *way.steps(), ("mailbox", attempt.mailbox), ("folder", attempt.folder), ("message", attempt.message),
        ("disposition", attempt.disposition),
    ]  # fmt: skip
    return stages(
        steps, lambda name, error: way.advice(name, error) or attempt.advice(name, error), way.close, client.close
    )


class _Attempt:
    """The steps behind the token; each returns what there is to say about it."""

    def __init__(
        self, config: GraphConfig, client: GraphClient, spool: Spool, dispositions: Sequence[Disposition]
    ) -> None:
        self._config = config
        self._client = client
        self._spool = spool
        self._folders = Folders(client)
        self._dispositions = [one for one in dict.fromkeys(dispositions) if not one.leaves]

    async def mailbox(self) -> str:
        await log_in(self._client)
        return self._config.user

    async def folder(self) -> str:
        for name in self._config.folders:
            try:
                await self._folders.find(name)
            except FolderGone as error:
                known = ", ".join(await self._folders.names())
                raise TransientError(f"{error}; at the top there are: {known}") from None
        return ", ".join(self._config.folders)

    async def message(self) -> str:
        for name in self._config.folders:
            path = f"/mailFolders/{await self._folders.find(name)}/messages"
            body = self._client.object(await self._client.get(path, "show a message", select="id", top="1"))
            values = body.get("value")
            found = values[0].get("id") if isinstance(values, list) and values and isinstance(values[0], dict) else None
            if not isinstance(found, str):
                continue
            intake = self._spool.begin(_HEAD)
            try:
                await self._client.download(found, intake, "show a message")
            finally:
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
            for flag in disposition.flags:
                if reason := impossible(flag):
                    raise TransientError(reason)
            if disposition.move is not None:
                told.append(await self._target(disposition.move))
        # Whether we may is said before whether there is such a message.
        (answer,) = await self._client.batch([Ask("PATCH", f"/messages/{_NOBODY}", {"isRead": True})], "mark messages")
        if answer.status == 403:
            raise TransientError(f"messages may not be changed: {answer.reason}")
        return "; ".join(told) or "messages may be changed"

    async def _target(self, target: str) -> str:
        try:
            uid = await self._folders.find(target)
        except FolderGone:
            return f"{target} does not exist and will be created"
        if any([uid == await self._folders.find(name) for name in self._config.folders]):
            raise TransientError(f"{target} is itself polled: messages would be moved onto themselves")
        return f"{target} exists"

    def advice(self, stage: str, error: MailpollerError) -> str:
        """What a sysadmin can do about it, where the error itself does not say."""
        match stage:
            case "mailbox":
                return "Check user, and what the application may do: Entra, App registrations, API permissions: Mail.ReadWrite."
            case "folder":
                return "Correct folders, or create the folder; inbox, junkemail and archive are the same in every language."
            case "disposition":
                return "Grant the application Mail.ReadWrite, or choose another disposition (disposition: leave needs none)."
            case _:
                return "Try again; if it stays, the code in the words above is what Microsoft's support asks for."
