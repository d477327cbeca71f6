"""What lies under a label, and what came there since: the pages that the service gives, made sense of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Start
from mailpoller.remote.gmail.client import HISTORY_LIST, MESSAGES_LIST, PROFILE, GmailClient, Query
from mailpoller.remote.gmail.errors import Missing
from mailpoller.remote.pages import Pages
from mailpoller.sources.gmail.config import HIDDEN, UNREAD

PAGE = 500
"""Messages, or records of the history, of one page: the most that the service gives."""
MOST_PAGES = 20_000
"""Pages of one listing, at most."""
MOST_EMPTY = 200
"""Pages without anything, one after the other, at most."""
_ROUNDS = 4
"""How often a label is listed at one time, at most."""
LONGEST_TOKEN = 4_096
LONGEST_UID = 128
DOING = "list the label"

_HISTORY = (
    ("historyTypes", "messageAdded"),
    ("historyTypes", "labelAdded"),
    ("historyTypes", "labelRemoved"),
    ("historyTypes", "messageDeleted"),
    ("maxResults", str(PAGE)),
    (
        "fields",
        "history(messagesAdded(message(id,labelIds)),labelsAdded(message(id,labelIds),labelIds),"
        "labelsRemoved(message(id,labelIds),labelIds),messagesDeleted(message(id))),nextPageToken,historyId",
    ),
)

_RELABELLED = (
    ("historyTypes", "labelAdded"),
    ("historyTypes", "labelRemoved"),
    ("maxResults", str(PAGE)),
    (
        "fields",
        "history(labelsAdded(message(id,labelIds)),labelsRemoved(message(id,labelIds))),nextPageToken,historyId",
    ),
)


class EndlessListing(TransientError):
    """The service's pages make no sense: they have no end, or do not say what they must."""


class HistoryLost(TransientError):
    """The service no longer knows what came since."""


class Contents:
    """The contents of the label whose id is ``label``. Every method raises as :class:`GmailClient`, and
    :class:`EndlessListing` where it could tell nothing.

    ``unreadable``: how many entries made no sense so far. ``trouble``: why the last of the lists that did not come to
    an end did not; what it showed until then is told.
    """

    def __init__(self, client: GmailClient, label: str) -> None:
        self.unreadable = 0
        self.trouble = ""
        self._client = client
        self._label = label

    async def now(self) -> str:
        """The history id of this moment."""
        profile = await self._client.get("/profile", DOING, PROFILE, [("fields", "historyId")])
        return history_id(profile.get("historyId"))

    async def messages(self, start: Start) -> list[str]:
        """The uids of the messages under the label that ``start`` wants.

        What leaves the label while we turn the pages may draw others over the edge of a page that is yet to come,
        where they would not be met. So it is listed again until nothing left meanwhile, a few times at most, and what
        any round met counts.
        """
        query: list[tuple[str, str]] = [("labelIds", self._label)]
        if start.kind == "unseen":
            query.append(("labelIds", UNREAD))
        if start.kind == "since" and start.instant is not None:
            # The search counts in whole seconds, and whether it includes this one is not said.
            query.append(("q", f"after:{int(start.instant.timestamp()) - 1}"))
        if self._label in HIDDEN:
            query.append(("includeSpamTrash", "true"))
        query += [("maxResults", str(PAGE)), ("fields", "messages(id),nextPageToken")]
        found: dict[str, None] = {}
        history = await self.now()
        for _ in range(_ROUNDS):
            pages = 0
            try:
                async for body in self._paged("/messages", MESSAGES_LIST, query, "messages"):
                    found.update(dict.fromkeys(self._uids(_listed(body, "messages"))))
                    pages += 1
            except EndlessListing as error:
                if not found:
                    raise
                self.trouble = str(error)
                break
            if pages == 1:
                break
            try:
                _, history, left = await self.since(history)
            except HistoryLost:
                history, left = await self.now(), True
            if not left:
                break
        return list(found)

    async def since(self, history: str) -> tuple[list[str], str, bool]:
        """What came under the label since ``history``, oldest first, the id after that, and whether anything left the
        label.

        Raises :class:`HistoryLost`.
        """
        found: dict[str, None] = {}
        reached = history
        left = False
        query = [("startHistoryId", history), ("labelId", self._label), *_HISTORY]
        try:
            async for body in self._paged("/history", HISTORY_LIST, query, "history"):
                for record in _listed(body, "history"):
                    found.update(dict.fromkeys(self._arrivals(record)))
                    left = left or any(record.get(kind) for kind in ("messagesDeleted", "labelsRemoved", "labelsAdded"))
                reached = max(reached, history_id(body.get("historyId")), key=int)
        except Missing as error:
            raise HistoryLost(str(error)) from None
        except EndlessListing as error:
            self.trouble = str(error)
            return list(found), history, True
        return list(found), reached, left

    async def relabelled(self, history: str) -> dict[str, frozenset[str]]:
        """Uid -> the labels of each message, under whichever label, that got or lost one since ``history``, as far as
        that is known."""
        query = [("startHistoryId", history), *_RELABELLED]
        found: dict[str, frozenset[str]] = {}
        try:
            async for body in self._paged("/history", HISTORY_LIST, query, "history"):
                for record in _listed(body, "history"):
                    for change in (*_listed(record, "labelsAdded"), *_listed(record, "labelsRemoved")):
                        message = change.get("message")
                        if isinstance(message, dict) and (labels := _labels(message)) is not None:
                            found.update(dict.fromkeys(self._uids([message]), frozenset(labels)))
        except (Missing, EndlessListing):
            pass  # what is not found here is asked for
        return found

    def _arrivals(self, record: Mapping[str, Any]) -> list[str]:
        """The uids of the messages that a record of the history put under our label.

        What leaves the trash or the spam shows under its labels again, and no label is added for that.
        """
        uids = []
        for kind in ("messagesAdded", "labelsAdded", "labelsRemoved"):
            for change in _listed(record, kind):
                message = change.get("message")
                if not isinstance(message, dict):
                    self.unreadable += 1
                    continue
                labels, changed = _labels(message), _labels(change) or []
                if kind == "messagesAdded":
                    came = labels is None or self._label in labels
                elif kind == "labelsAdded":
                    came = self._label in changed
                else:
                    came = bool(HIDDEN.intersection(changed)) and (labels is None or self._label in labels)
                hidden = self._label not in HIDDEN and labels is not None and HIDDEN.intersection(labels)
                if came and not hidden:
                    uids += self._uids([message])
        return uids

    def _uids(self, messages: Sequence[Mapping[str, Any]]) -> list[str]:
        """The ids of messages; one that has none is counted, and costs the others nothing."""
        uids = [uid for message in messages if (uid := _uid(message))]
        self.unreadable += len(messages) - len(uids)
        return uids

    # --- pages -------------------------------------------------------------------------------------------------
    async def _paged(self, path: str, units: int, query: Query, what: str) -> AsyncIterator[dict[str, Any]]:
        """The pages of a list, to the last one; none twice, and not without end."""
        followed: set[str] = set()
        empty = 0
        pages = Pages()
        token = ""
        while True:
            body = await self._client.get(path, DOING, units, [*query, *([("pageToken", token)] if token else [])])
            yield body
            shown = body.get(what)
            empty = 0 if shown else empty + 1
            endless = pages.endless(len(shown) if isinstance(shown, list) else 0)
            token = body.get("nextPageToken") or ""
            if not token:
                return
            if not isinstance(token, str) or len(token) > LONGEST_TOKEN:
                raise EndlessListing(f"{self._client.host}: a page of the listing does not say how to go on")
            if endless or token in followed or len(followed) >= MOST_PAGES or empty > MOST_EMPTY:
                raise EndlessListing(f"{self._client.host}: the pages of the listing have no end")
            followed.add(token)


def history_id(found: object) -> str:
    """A history id: a number that only the service understands, in decimal digits. Raises :class:`EndlessListing` for
    all else."""
    text = str(found) if isinstance(found, str | int) and not isinstance(found, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise EndlessListing("the service says no history id")
    return text


def _listed(body: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of objects; what is empty may be missing."""
    found = body.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise EndlessListing(f"a page of the listing has no list of {key}")
    return found


def _labels(found: Mapping[str, Any]) -> list[str] | None:
    labels = found.get("labelIds")
    return [one for one in labels if isinstance(one, str)] if isinstance(labels, list) else None


def _uid(message: Mapping[str, Any]) -> str:
    uid = message.get("id")
    fit = (
        isinstance(uid, str)
        and 0 < len(uid) <= LONGEST_UID
        and uid.isascii()
        and uid.replace("-", "").replace("_", "").isalnum()
    )
    return uid if fit and isinstance(uid, str) else ""
