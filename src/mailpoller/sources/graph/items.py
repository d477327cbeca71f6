"""What Graph says of a message in a listing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mailpoller.core.record import record
from mailpoller.wire.http import iso_date


@record
class Item:
    """A message as a listing shows it; None is what the service did not say."""

    uid: str
    seen: bool | None
    received: datetime | None
    created: datetime | None
    flags: tuple[str, ...]

    @property
    def facts(self) -> tuple[datetime | None, tuple[str, ...]] | None:
        """What :class:`RawMessage` tells beside the octets; None unless all of it is known."""
        return None if self.seen is None or self.received is None else (self.received, self.flags)


def item_of(value: Mapping[str, Any]) -> Item:
    """What the service says about a message."""
    seen = value.get("isRead")
    flag = value.get("flag")
    flagged = isinstance(flag, dict) and flag.get("flagStatus") == "flagged"
    flags = (*(("\\Seen",) if seen is True else ()), *(("\\Flagged",) if flagged else ()), *categories_of(value))
    return Item(
        uid=str(value.get("id", "")),
        seen=seen if isinstance(seen, bool) else None,
        received=iso_date(value.get("receivedDateTime")),
        created=iso_date(value.get("createdDateTime")),
        flags=flags,
    )


def categories_of(value: Mapping[str, Any]) -> tuple[str, ...]:
    """The categories of a message."""
    found = value.get("categories")
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()
