"""Folders by name: those that are called the same in every language, and paths of display names."""

from __future__ import annotations

from mailpoller.core.errors import TransientError
from mailpoller.remote.polled_session import FolderGone
from mailpoller.sources.ews import soap
from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.reader import Node
from mailpoller.sources.ews.replies import Reply, of_folder
from mailpoller.wire.redaction import spoken

ROOT = "msgfolderroot"
"""What people see as the top of a mailbox."""

DISTINGUISHED = frozenset(
    {
        "inbox", "deleteditems", "drafts", "junkemail", "outbox", "sentitems", "voicemail", ROOT, "archiveinbox",
        "archivedeleteditems", "archivemsgfolderroot", "recoverableitemsdeletions", "recoverableitemspurges",
        "syncissues",
        "conflicts", "localfailures", "serverfailures", "conversationhistory",
    }
)  # fmt: skip
"""The names that Exchange has for folders that may hold mail (DistinguishedFolderIdNameType)."""

RIGHTS = "folder:EffectiveRights"


class Folders:
    """Finds folders of one mailbox, and makes them. ``owner``: whose mailbox, None for the login's or the
    impersonated one's."""

    def __init__(self, client: EwsClient, owner: str | None) -> None:
        self._client = client
        self._owner = owner
        self._ids: dict[str, str] = {}

    def element(self, name: str) -> str:
        """The element that names a distinguished folder."""
        return soap.distinguished(name, self._owner)

    async def find(self, name: str) -> str:
        """The id of the folder ``name``, looked for unless it is known. Raises :class:`FolderGone` if there is none."""
        if name not in self._ids:
            parent, path = self._begin(name)
            found = "" if path else await self._id(parent, name)
            for part in path:
                found = await self._child(parent, part, name)
                parent = soap.folder_id(found)
            self._ids[name] = found
        return self._ids[name]

    async def look(self, name: str) -> str:
        """As :meth:`find`, and the server says that it is there now."""
        try:
            return await self._id(soap.folder_id(await self.find(name)), name)
        except FolderGone:
            # It may have been deleted and made anew, which is another folder.
            self._ids.pop(name, None)
            return await self.find(name)

    async def see(self, uid: str) -> None:
        """Return if the server shows us the folder with this id. Raises :class:`FolderGone` or another
        TransientError."""
        await self._id(soap.folder_id(uid), "that is open")

    async def make(self, name: str) -> str:
        """As :meth:`find`; what is missing of a path is created."""
        parent, path = self._begin(name)
        found = ""
        for part in path:
            try:
                found = await self._child(parent, part, name)
            except FolderGone:
                found = await self._create(parent, part, name)
            parent = soap.folder_id(found)
        self._ids[name] = found or await self.find(name)
        return self._ids[name]

    def forget(self, name: str) -> None:
        """Look for the folder anew next time."""
        self._ids.pop(name, None)

    async def rights(self, name: str) -> dict[str, bool]:
        """Our rights in the folder (EffectiveRights): ``Read``, ``Modify``, ``Delete``, ``CreateContents``,
        ``CreateHierarchy`` …"""
        request = soap.get_folder(soap.folder_id(await self.find(name)), [RIGHTS])
        return _rights(
            of_folder(await self._client.ask(request, f"tell our rights in {name}"), f"tell our rights in {name}")
        )

    async def root_rights(self, name: str) -> dict[str, bool]:
        """Our rights where the folder ``name``, which does not exist, would be created: at the last part of its path
        that is there."""
        parent, path = self._begin(name)
        for part in path:
            try:
                parent = soap.folder_id(await self._child(parent, part, name))
            except FolderGone:
                break
        doing = f"tell our rights above {name}"
        return _rights(of_folder(await self._client.ask(soap.get_folder(parent, [RIGHTS]), doing), doing))

    async def names(self) -> list[str]:
        """The display names at the top of the mailbox, for advice."""
        request = soap.find_folders(self.element(ROOT))
        reply = of_folder(await self._client.ask(request, "list the folders"), "list the folders")
        return sorted(spoken(node.value("DisplayName")) for node in _folders(reply))

    def _begin(self, name: str) -> tuple[str, list[str]]:
        """Where the path starts, and what of it is left."""
        first, *rest = name.split("/")
        if first.lower() in DISTINGUISHED:
            return self.element(first.lower()), rest
        return self.element(ROOT), [first, *rest]

    async def _id(self, folder: str, name: str) -> str:
        doing = f"open the folder {name}"
        return _one(_folders(of_folder(await self._client.ask(soap.get_folder(folder), doing), doing)), name)

    async def _child(self, parent: str, part: str, name: str) -> str:
        doing = f"look for the folder {name}"
        reply = of_folder(await self._client.ask(soap.find_folders(parent, name=part), doing), doing)
        # Exchange compares display names without regard to case, and so do we; one that is equal comes first.
        called = [node for node in _folders(reply) if node.value("DisplayName").lower() == part.strip().lower()]
        called.sort(key=lambda node: node.value("DisplayName") != part)
        return _one(called, name)

    async def _create(self, parent: str, part: str, name: str) -> str:
        doing = f"create the folder {name}"
        replies = await self._client.ask(soap.create_folder(parent, part), doing)
        if len(replies) == 1 and replies[0].code == "ErrorFolderExists":
            return await self._child(parent, part, name)
        return _one(_folders(of_folder(replies, doing)), name)


def _folders(reply: Reply) -> list[Node]:
    """The folders of a reply, each of whatever kind."""
    found = reply.node.find("Folders") or reply.node.find("RootFolder", "Folders")
    return [] if found is None else [node for node in found.children if node.find("FolderId") is not None]


def _one(folders: list[Node], name: str) -> str:
    if not folders:
        raise FolderGone(f"there is no folder {name}")
    found = folders[0].find("FolderId")
    uid = "" if found is None else found.attributes.get("Id", "")
    if not uid:
        raise TransientError(f"the folder {name} has no id")
    return uid


def _rights(reply: Reply) -> dict[str, bool]:
    folders = _folders(reply)
    found = folders[0].find("EffectiveRights") if folders else None
    return {} if found is None else {node.name: node.text.strip() in ("true", "1") for node in found.children}
