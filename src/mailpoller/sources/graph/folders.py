"""Folders by name: those that are called the same in every language, and paths of display names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from mailpoller.core.errors import TransientError
from mailpoller.remote.exchange import DELETED_ITEMS
from mailpoller.remote.graph import GraphClient, Missing
from mailpoller.remote.polled_session import FolderGone
from mailpoller.wire.http import HttpStatus
from mailpoller.wire.redaction import spoken

ROOT = "msgfolderroot"
"""What people see as the top of a mailbox."""

WELL_KNOWN = frozenset(
    {
        "archive", "clutter", "conflicts", "conversationhistory", DELETED_ITEMS, "drafts", "inbox", "junkemail",
        "localfailures",
        ROOT, "outbox", "recoverableitemsdeletions", "scheduled", "searchfolders", "sentitems", "serverfailures",
        "syncissues",
    }
)  # fmt: skip
"""The names that Graph has for folders (resource type mailFolder)."""

_PAGE = "100"


class Folders:
    """Finds folders of one mailbox, and makes them."""

    def __init__(self, client: GraphClient) -> None:
        self._client = client
        self._ids: dict[str, str] = {}

    async def find(self, name: str) -> str:
        """The id of the folder ``name``, looked for unless it is known. Raises :class:`FolderGone` if there is none."""
        if name not in self._ids:
            parent, path = _begin(name)
            if not path:
                parent = await self._id(parent, name)
            for part in path:
                if (found := await self._child(parent, part, name)) is None:
                    raise FolderGone(f"there is no folder {name}")
                parent = found
            self._ids[name] = parent
        return self._ids[name]

    async def look(self, name: str) -> str:
        """As :meth:`find`, and the service says that it is there now."""
        known = name in self._ids
        uid = await self.find(name)
        if not known:
            return uid
        try:
            return await self._id(uid, name)
        except FolderGone:
            # It may have been deleted and made anew, which is another folder.
            self.forget(name)
            return await self.find(name)

    async def make(self, name: str) -> str:
        """As :meth:`look`; what is missing of a path is created."""
        try:
            return await self.look(name)
        except FolderGone:
            pass
        parent, path = _begin(name)
        for part in path:
            parent = await self._child(parent, part, name) or await self._create(parent, part, name)
        self._ids[name] = parent if path else await self.find(name)
        return self._ids[name]

    def forget(self, name: str) -> None:
        """Look for the folder anew next time."""
        self._ids.pop(name, None)

    async def names(self) -> list[str]:
        """The display names at the top of the mailbox, for advice."""
        answer = await self._client.get(
            f"/mailFolders/{ROOT}/childFolders", "list the folders", select="displayName", top=_PAGE
        )  # fmt: skip
        return sorted(spoken(_text(one, "displayName")) for one in _values(self._client.object(answer)))

    async def _id(self, folder: str, name: str) -> str:
        try:
            answer = await self._client.get(f"/mailFolders/{quote(folder, safe='')}", "open the folder", select="id")
        except Missing as error:
            if error.item:
                raise FolderGone(f"there is no folder {name}") from None
            raise
        return _uid(self._client.object(answer), name)

    async def _child(self, parent: str, part: str, name: str) -> str | None:
        """The id of the folder ``part`` in ``parent``, or None. The service compares without regard to case, and so
        do we; one that is equal comes first."""
        wanted = part.strip()
        answer = await self._client.get(
            f"/mailFolders/{quote(parent, safe='')}/childFolders",
            "look for a folder",
            filter=f"displayName eq '{wanted.replace(chr(39), chr(39) * 2)}'",
            select="id,displayName",
            top=_PAGE,
        )
        called = [
            one
            for one in _values(self._client.object(answer))
            if _text(one, "displayName").lower() == wanted.lower()
        ]  # fmt: skip
        called.sort(key=lambda one: _text(one, "displayName") != wanted)
        return _uid(called[0], name) if called else None

    async def _create(self, parent: str, part: str, name: str) -> str:
        path = f"/mailFolders/{quote(parent, safe='')}/childFolders"
        try:
            answer = await self._client.post(path, "create a folder", {"displayName": part.strip()})
        except HttpStatus as error:
            if error.status == 409 and (found := await self._child(parent, part, name)) is not None:
                return found  # another was faster
            raise
        return _uid(self._client.object(answer), name)


def _begin(name: str) -> tuple[str, list[str]]:
    """Where the path starts, and what of it is left."""
    first, *rest = name.split("/")
    return (first.lower(), rest) if first.lower() in WELL_KNOWN else (ROOT, [first, *rest])


def _values(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = body.get("value")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _text(one: Mapping[str, Any], key: str) -> str:
    found = one.get(key)
    return found if isinstance(found, str) else ""


def _uid(one: Mapping[str, Any], name: str) -> str:
    if not (uid := _text(one, "id")):
        raise TransientError(f"the folder {name} has no id")
    return uid
