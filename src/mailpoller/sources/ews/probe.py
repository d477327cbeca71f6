"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import CredentialsRefused, MailpollerError, TransientError
from mailpoller.core.ports import Stage
from mailpoller.sources.ews import soap
from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.config import EwsConfig, impossible
from mailpoller.sources.ews.folders import Folders
from mailpoller.sources.ews.listing import PROPERTIES
from mailpoller.sources.ews.login import log_in
from mailpoller.sources.ews.replies import only
from mailpoller.sources.ews.settling import DELETED_ITEMS
from mailpoller.transport.asking import FolderGone
from mailpoller.transport.probe import Step, WebApproach, stages

HEADER = "item:InternetMessageHeaders"


def probe(config: EwsConfig, client: EwsClient, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""
    attempt = _Attempt(config, client, dispositions)
    approach = WebApproach(
        config.url, config.policy, config.proxy, config.connect_timeout,
        named="the spelling of the host in url", usual="EWS is on 443, at the address that Outlook uses.",
    )  # fmt: skip
    steps: list[Step] = [
        *approach.steps(), ("login", attempt.login), ("folder", attempt.folder), ("message", attempt.message),
        ("disposition", attempt.disposition),
    ]  # fmt: skip
    return stages(
        steps, lambda name, error: approach.advice(name, error) or attempt.advice(name, error),
        approach.close, client.close,
    )  # fmt: skip


class _Attempt:
    """The steps behind the connection; each returns what there is to say about it."""

    def __init__(self, config: EwsConfig, client: EwsClient, dispositions: Sequence[Disposition]) -> None:
        self._config = config
        self._client = client
        self._dispositions = [one for one in dict.fromkeys(dispositions) if not one.leaves]
        self._folders = Folders(client, config.mailbox if config.access == "delegate" else None)

    async def login(self) -> str:
        await log_in(self._client, self._config)
        whose = f" in {self._config.mailbox} by {self._config.access}" if self._config.mailbox else ""
        return f"{self._config.username}{whose}"

    async def folder(self) -> str:
        for name in self._config.folders:
            try:
                rights = await self._folders.rights(name)
            except FolderGone as error:
                known = ", ".join(await self._folders.names())
                raise TransientError(f"{error}; at the top there are: {known}") from None
            if rights.get("Read") is False:
                raise TransientError(f"{name}: we lack the right Read")
        return ", ".join(self._config.folders)

    async def message(self) -> str:
        doing = "show a message"
        for name in self._config.folders:
            request = soap.sync_items(await self._folders.find(name), "", PROPERTIES, 1)
            changes = only(await self._client.ask(request, doing), doing).node.find("Changes")
            found = next((one for one in changes.walk() if one.name == "ItemId"), None) if changes is not None else None
            if found is None:
                continue
            only(await self._client.ask(soap.get_items([found.attributes.get("Id", "")], [HEADER]), doing), doing)
            return f"the header of a message of {name} can be read"
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
            for name in self._config.folders:
                rights = await self._folders.rights(name)
                if (disposition.seen or disposition.flags) and rights.get("Modify") is False:
                    raise TransientError(f"{name}: we lack the right Modify")
                if (disposition.move or disposition.delete) and rights.get("Delete") is False:
                    raise TransientError(f"{name}: we lack the right Delete")
            if disposition.move is not None:
                told.append(await self._target(disposition.move))
            elif disposition.delete and self._config.deletion == "deleted-items":
                await self._target(DELETED_ITEMS)
        return "; ".join(dict.fromkeys(told))

    async def _target(self, target: str) -> str:
        try:
            await self._folders.find(target)
        except FolderGone:
            if (await self._folders.root_rights(target)).get("CreateHierarchy") is False:
                raise TransientError(
                    f"{target} does not exist, and we lack the right CreateHierarchy above it"
                ) from None
            return f"{target} does not exist and will be created"
        if (await self._folders.rights(target)).get("CreateContents") is False:
            raise TransientError(f"{target}: we lack the right CreateContents")
        return f"{target} exists"

    # --- advice ------------------------------------------------------------------------------------------------
    def advice(self, stage: str, error: MailpollerError) -> str:
        """What a sysadmin can do about it, in Exchange's own terms."""
        match stage:
            case "login":
                return self._login_advice(str(error), refused=isinstance(error, CredentialsRefused))
            case "folder":
                return (
                    "Correct folders: a path below the mailbox's root, in the mailbox's language, or a name such as inbox. A delegate needs "
                    "FullAccess (Add-MailboxPermission) or Reviewer and Folder visible on the folder (Add-MailboxFolderPermission)."
                )
            case "disposition":
                return (
                    "Grant Editor on the folders (Add-MailboxFolderPermission) or FullAccess on the mailbox (Add-MailboxPermission), "
                    "or choose another disposition (disposition: leave needs no right)."
                )
            case _:
                return "Try again; if it stays, look into the server's log: Logging\\Ews below Exchange's directory."

    def _login_advice(self, said: str, *, refused: bool) -> str:
        if "ErrorImpersonat" in said:
            return (
                "Give the login the role: New-ManagementRoleAssignment -Role ApplicationImpersonation -User LOGIN; "
                "or use access: delegate with FullAccess."
            )
        if "Error" in said and refused:
            return "mailbox is the primary SMTP address (Get-Mailbox shows it), of a mailbox on this server, and the login is enabled."
        if "ErrorInvalidServerVersion" in said or "ErrorSchemaValidation" in said:
            return "Exchange 2013 SP1 or a later one is needed."
        if "403" in said:
            return "EWS may be off for this login (Get-CASMailbox shows EwsEnabled and EwsApplicationAccessPolicy) or blocked on the way."
        if "404" in said:
            return "url is usually https://HOST/EWS/Exchange.asmx; Get-WebServicesVirtualDirectory shows ExternalUrl and InternalUrl."
        if "redirects" in said:
            return (
                "If that host is yours, put its URL into url: nothing is followed, so that no password goes elsewhere."
            )
        if "offers" in said:
            return "Enable one of them (Set-WebServicesVirtualDirectory -WindowsAuthentication $true), or choose another auth.mechanism."
        if refused:
            return (
                "Check username (EXAMPLE\\login or login@example.com) and password. If both are right, a proxy that ends TLS before Exchange "
                "breaks NTLM where Extended Protection is on: use its address inside, or mechanism: basic."
            )
        return "Is EWS at this URL? curl --ntlm -u LOGIN URL shows a page about the service."
