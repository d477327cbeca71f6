"""When one mailbox's work ends: with the service, or before it."""

from __future__ import annotations

import asyncio


class Ending:
    """Set when the service stops, and when this mailbox alone is to end."""

    def __init__(self, service: asyncio.Event) -> None:
        self._service = service
        self._alone = False

    def is_set(self) -> bool:
        """True once nothing new is to be begun."""
        return self._alone or self._service.is_set()

    def set(self) -> None:
        """End this one; the service goes on."""
        self._alone = True
