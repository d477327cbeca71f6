"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that
fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import CredentialsRefused, MailpollerError, TransientError
from mailpoller.core.ports import Stage
from mailpoller.remote.exchange import DELETED_ITEMS, impossible
from mailpoller.remote.polled_session import FolderGone
from mailpoller.remote.trial import AskedTrial
from mailpoller.sources.ews import soap
from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.config import EwsSettings
from mailpoller.sources.ews.folders import Folders
from mailpoller.sources.ews.listing import PROPERTIES
from mailpoller.sources.ews.login import log_in
from mailpoller.sources.ews.replies import only
from mailpoller.wire.probe import WebApproach

HEADER = "item:InternetMessageHeaders"


def probe(config: EwsSettings, client: EwsClient, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""

    async def login() -> str:
        await log_in(client, config)
        whose = f" in {config.mailbox} by {config.access}" if config.mailbox else ""
        return f"{config.username}{whose}"

    way = WebApproach(
        config.url, config.policy, config.proxy, config.connect_timeout,
        named="the spelling of the host in url", usual="EWS is on 443, at the address that Outlook uses.",
    )  # fmt: skip
    return way.probe([("login", login), *_Trial(config, client, dispositions).steps()], _advice, client.close)


class _Trial(AskedTrial):
    def __init__(self, config: EwsSettings, client: EwsClient, dispositions: Sequence[Disposition]) -> None:
        self._folders = Folders(client, config.mailbox if config.access == "delegate" else None)
        super().__init__(config, self._folders, dispositions)
        self._deletion = config.deletion
        self._client = client

    async def _enter(self, name: str) -> None:
        if (await self._folders.rights(name)).get("Read") is False:
            raise TransientError(f"{name}: we lack the right Read")

    async def _read(self, name: str) -> bool:
        doing = "show a message"
        request = soap.sync_items(await self._folders.find(name), "", PROPERTIES, 1)
        changes = only(await self._client.ask(request, doing), doing).node.find("Changes")
        found = next((one for one in changes.walk() if one.name == "ItemId"), None) if changes is not None else None
        if found is None:
            return False
        only(await self._client.ask(soap.get_items([found.attributes.get("Id", "")], [HEADER]), doing), doing)
        return True

    def _against(self, disposition: Disposition) -> Iterable[str]:
        return filter(None, map(impossible, disposition.flags))

    async def _target(self, target: str) -> str:
        told = await super()._target(target)
        await self._may_put(target)
        return told

    async def _may_put(self, target: str) -> None:
        try:
            rights = await self._folders.rights(target)
        except FolderGone:
            if (await self._folders.root_rights(target)).get("CreateHierarchy") is False:
                raise TransientError(
                    f"{target} does not exist, and we lack the right CreateHierarchy above it"
                ) from None
            return
        if rights.get("CreateContents") is False:
            raise TransientError(f"{target}: we lack the right CreateContents")

    async def _change(self) -> None:
        wanted = {
            "Modify": any(one.seen or one.flags for one in self._dispositions),
            "Delete": any(one.move or one.delete for one in self._dispositions),
        }
        for name in self._names:
            rights = await self._folders.rights(name)
            for right, needed in wanted.items():
                if needed and rights.get(right) is False:
                    raise TransientError(f"{name}: we lack the right {right}")
        if self._deletion == "deleted-items" and any(one.delete for one in self._dispositions):
            await self._may_put(DELETED_ITEMS)


def _advice(stage: str, error: MailpollerError) -> str:
    """What a sysadmin can do about it, in Exchange's own terms."""
    match stage:
        case "login":
            return _login_advice(str(error), refused=isinstance(error, CredentialsRefused))
        case "folder":
            return (
                "Correct folders: a path below the mailbox's root, in the mailbox's language, or a name such as "
                "inbox. A delegate needs FullAccess (Add-MailboxPermission) or Reviewer and Folder visible on the "
                "folder (Add-MailboxFolderPermission)."
            )
        case "disposition":
            return (
                "Grant Editor on the folders (Add-MailboxFolderPermission) or FullAccess on the mailbox "
                "(Add-MailboxPermission), or choose another disposition (disposition: leave needs no right)."
            )
        case _:
            return "Try again; if it stays, look into the server's log: Logging\\Ews below Exchange's directory."


def _login_advice(said: str, *, refused: bool) -> str:
    if "ErrorImpersonat" in said:
        return (
            "Give the login the role: New-ManagementRoleAssignment -Role ApplicationImpersonation -User LOGIN; "
            "or use access: delegate with FullAccess."
        )
    if "Error" in said and refused:
        return (
            "mailbox is the primary SMTP address (Get-Mailbox shows it), of a mailbox on this server, and the "
            "login is enabled."
        )
    if "ErrorInvalidServerVersion" in said or "ErrorSchemaValidation" in said:
        return "Exchange 2013 SP1 or a later one is needed."
    if "403" in said:
        return (
            "EWS may be off for this login (Get-CASMailbox shows EwsEnabled and EwsApplicationAccessPolicy) or "
            "blocked on the way."
        )
    if "404" in said:
        return (
            "url is usually https://HOST/EWS/Exchange.asmx; Get-WebServicesVirtualDirectory shows ExternalUrl and "
            "InternalUrl."
        )
    if "redirects" in said:
        return "If that host is yours, put its URL into url: nothing is followed, so that no password goes elsewhere."
    if "offers" in said:
        return (
            "Enable one of them (Set-WebServicesVirtualDirectory -WindowsAuthentication $true), or choose another "
            "auth.mechanism."
        )
    if refused:
        return (
            "Check username (EXAMPLE\\login or login@example.com) and password. If both are right, a proxy that "
            "ends TLS before Exchange breaks NTLM where Extended Protection is on: use its address inside, or "
            "mechanism: basic."
        )
    return "Is EWS at this URL? curl --ntlm -u LOGIN URL shows a page about the service."
