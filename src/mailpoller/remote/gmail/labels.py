"""Labels by name: those of the system, and a person's own, which are made when they are missing."""

from __future__ import annotations

from typing import Any

from mailpoller.core.errors import TransientError
from mailpoller.remote.gmail.client import LABELS_CREATE, LABELS_LIST, GmailClient
from mailpoller.remote.gmail.errors import Invalid
from mailpoller.remote.polled_session import FolderGone
from mailpoller.wire.http import HttpStatus
from mailpoller.wire.redaction import spoken

_LONGEST_ID = 200


class LabelGone(FolderGone):
    """There is no such label."""


class Labels:
    """Finds labels of one mailbox, and makes them. An id outlives a new name; a label that is made anew has another
    one."""

    def __init__(self, client: GmailClient) -> None:
        self._client = client
        self._ids: dict[str, str] | None = None
        self._folded: dict[str, str] = {}

    async def find(self, name: str) -> str:
        """The id of the label ``name``, as it was when it was last looked for. Gmail has no two names that differ in
        case alone.

        Raises :class:`LabelGone` if there is none.
        """
        ids = await self._known()
        found = ids.get(name) or self._folded.get(name.casefold())
        if found is None:
            raise LabelGone(f"there is no label {name}")
        return found

    async def look(self, name: str) -> str:
        """As :meth:`find`, and the service says that it is there now."""
        self.forget()
        return await self.find(name)

    async def make(self, name: str) -> str:
        """As :meth:`find`; it is created if it is missing."""
        for again in (False, True):
            try:
                return await (self.look(name) if again else self.find(name))
            except LabelGone:
                if again:
                    raise
            body = {"name": name, "labelListVisibility": "labelShow", "messageListVisibility": "show"}
            try:
                await self._client.post("/labels", "create a label", LABELS_CREATE, body, query=[("fields", "id")])
            except Invalid as error:
                raise TransientError(f"the label {name} cannot be made: {error}") from None
            except HttpStatus as error:
                if error.status != 409:  # another was faster
                    raise
        raise AssertionError("the second look returns or raises")

    def forget(self) -> None:
        """Ask the service anew next time."""
        self._ids = None

    async def names(self) -> list[str]:
        """All there are, for advice."""
        return sorted(spoken(name) for name in await self._known())

    async def _known(self) -> dict[str, str]:
        if self._ids is None:
            answer = await self._client.get("/labels", "list the labels", LABELS_LIST, [("fields", "labels(id,name)")])
            listed = answer.get("labels", [])
            ids = dict(filter(None, map(_label, listed if isinstance(listed, list) else [])))
            self._folded = {name.casefold(): uid for name, uid in ids.items()}
            self._ids = ids
        return self._ids


def _label(found: Any) -> tuple[str, str] | None:
    """Name and id of a label; None if it makes no sense."""
    if not isinstance(found, dict):
        return None
    uid, name = found.get("id"), found.get("name")
    fit = isinstance(uid, str) and isinstance(name, str) and 0 < len(uid) <= _LONGEST_ID and name
    return (name, uid) if fit and isinstance(uid, str) and isinstance(name, str) else None
