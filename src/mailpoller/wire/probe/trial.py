"""What is tried in a mailbox, once it lets us in: its folders, a message, and what is done to messages that are
settled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mailpoller.core.delivery import Disposition
from mailpoller.wire.probe.steps import Step


class Trial(ABC):
    """The last steps of a probe; each returns what there is to say about it, or raises what is in the way."""

    def __init__(self, dispositions: Sequence[Disposition], *, shadow: bool) -> None:
        self._shadow = shadow
        self._dispositions = [one for one in dict.fromkeys(dispositions) if not one.leaves]

    def steps(self) -> list[Step]:
        """``folder``, ``message`` and ``disposition``."""
        return [("folder", self._folder), ("message", self._message), ("disposition", self._disposition)]

    @abstractmethod
    async def _folder(self) -> str:
        """Open every folder that is polled."""

    @abstractmethod
    async def _message(self) -> str:
        """Read the beginning of a message, if there is one."""

    async def _disposition(self) -> str:
        if self._shadow:
            return "nothing is ever changed (mode: shadow)"
        if not self._dispositions:
            return "messages are left as they are"
        return await self._changes()

    @abstractmethod
    async def _changes(self) -> str:
        """Whether the dispositions, of which there is one at least, can be carried out; without changing anything."""
