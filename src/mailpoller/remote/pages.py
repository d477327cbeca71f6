"""The pages of a listing have an end: what they show, held against how many they are."""

from __future__ import annotations

SHORT_PAGES = 500
"""Pages that may be as short as they like; services give some that are empty."""
_LEAST = 5
"""Messages that those beyond have on average. A page costs a request, whatever is on it."""


class Pages:
    """Counts the pages of one listing."""

    __slots__ = ("_items", "_pages")

    def __init__(self) -> None:
        self._pages = self._items = 0

    def endless(self, items: int) -> bool:
        """One more page came, with so many items. True: they are more than there is anything on."""
        self._pages += 1
        self._items += items
        return self._pages > SHORT_PAGES + self._items // _LEAST
