"""One connection before a rate that it shares with others: its commands are sent one by one as their turns come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mailpoller.core.pacing import Pacer


class Turnstile:
    """Asked before each command. ``resume`` is called when one that had to wait may be sent; times are the loop's.

    ``pacer``: the rate, which whoever opened the connection gives once it is logged in; before, there is none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, resume: Callable[[], None]) -> None:
        self.pacer: Pacer | None = None
        self._loop = loop
        self._resume = resume
        self._waiting = self._granted = False

    def opens(self) -> bool:
        """True if the next command may be sent now, which it must be then; else ``resume`` will be called."""
        if self.pacer is None:
            return True
        if self._waiting or self._granted:
            granted, self._granted = self._granted, False
            return granted
        wait = self.pacer.take(self._loop.time())
        if wait <= 0:
            return True
        self._waiting = True
        self._loop.call_later(wait, self._grant)
        return False

    def _grant(self) -> None:
        self._waiting, self._granted = False, True
        self._resume()
