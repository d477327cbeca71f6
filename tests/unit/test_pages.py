"""A listing's pages have an end, whatever each of them shows."""

from __future__ import annotations

from typing import Any

import pytest

from mailpoller.remote.pages import SHORT_PAGES, Pages
from mailpoller.sources.ews.listing import _changes
from mailpoller.sources.ews.reader import Node
from mailpoller.sources.ews.replies import Reply
from mailpoller.sources.gmail import contents as gmail
from mailpoller.sources.graph.listing import EndlessListing, _Links


def test_pages_have_an_end_unless_there_is_much_on_them() -> None:
    short, full = Pages(), Pages()
    assert [short.endless(1) for _ in range(SHORT_PAGES)].count(True) == 0
    assert any(short.endless(1) for _ in range(200))
    assert not any(full.endless(500) for _ in range(20_000))


def test_links_of_graph_have_an_end() -> None:
    links, number = _Links(), 0
    with pytest.raises(EndlessListing):
        for number in range(2000):
            links.next({"@odata.nextLink": f"https://host/{number}"}, 1)
    assert SHORT_PAGES <= number < 2 * SHORT_PAGES


class Endless:
    """A service that always has one more page, with one more thing on it."""

    host = "host"

    def __init__(self) -> None:
        self.asked = 0

    async def get(self, *_: Any) -> dict[str, Any]:
        self.asked += 1
        return {"messages": [{"id": str(self.asked)}], "nextPageToken": f"page-{self.asked}"}

    async def ask(self, *_: Any) -> list[Reply]:
        self.asked += 1
        node = Node("SyncFolderItemsResponseMessage", {"ResponseClass": "Success"})
        for name, text in (("ResponseCode", "NoError"), ("SyncState", f"state-{self.asked}")):
            child = Node(name, {})
            child.text = text
            node.children.append(child)
        changes, last = Node("Changes", {}), Node("IncludesLastItemInRange", {})
        changes.children.append(Node("ReadFlagChange", {}))
        last.text = "false"
        node.children += [last, changes]
        return [Reply.read(node)]


async def test_pages_of_gmail_have_an_end() -> None:
    service: Any = Endless()
    with pytest.raises(gmail.EndlessListing, match="no end"):
        async for _ in gmail.Contents(service, "INBOX")._paged("messages", 1, [], "messages"):
            pass
    assert SHORT_PAGES <= service.asked < 2 * SHORT_PAGES


async def test_pages_of_ews_have_an_end() -> None:
    service: Any = Endless()
    assert "no end" in (await _changes(service, "uid", "begun", ())).trouble
    assert SHORT_PAGES <= service.asked < 2 * SHORT_PAGES
