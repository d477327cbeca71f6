"""The last so many ids, to recognise a repeat within bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Recent:
    """Remembers the last ``limit`` delivery ids (UUIDs, kept as 16 octets: some 80 octets of memory each)."""

    def __init__(self, limit: int = 50_000) -> None:
        self.limit = limit
        self._order: deque[bytes] = deque()
        self._known: set[bytes] = set()

    def __contains__(self, delivery_id: str) -> bool:
        return _compact(delivery_id) in self._known

    def add(self, delivery_ids: Iterable[str]) -> None:
        """Remember these, in this order; the oldest are forgotten."""
        for delivery_id in delivery_ids:
            compact = _compact(delivery_id)
            if compact in self._known:
                continue
            self._known.add(compact)
            self._order.append(compact)
            if len(self._order) > self.limit:
                self._known.discard(self._order.popleft())


def _compact(delivery_id: str) -> bytes:
    try:
        return bytes.fromhex(delivery_id.replace("-", ""))
    except ValueError:
        return delivery_id.encode("utf-8", "surrogatepass")
