"""What every way in for mail that is to be sent has in its block."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mailpoller.core.component import Component, Preparation, Runtime
from mailpoller.core.literals import QueueName
from mailpoller.core.ports import EntryListener, EntrySource
from mailpoller.core.standing import Department


class IntakeSettings(Component):
    """A way in for mail that is to be sent."""

    kind: ClassVar[str] = "intakes"

    listens: ClassVar[bool] = False
    """True if programs bring their entries to it: :meth:`build` makes an ``EntryListener`` then."""

    departments: list[Department] = Field(min_length=1, max_length=100)
    """The departments that it may send for: by the outgoings of the mailboxes that serve them."""
    events: QueueName | None = None
    """The queue that is told what became of each mail: sent, deferred, failed, bounced; and what the intake
    refused. Without it: nobody."""

    def preparation(self, name: str) -> Preparation | None:
        """What has to be made beforehand on the server of the intake ``name``; None if it is made by itself."""
        return None

    def build(self, name: str, runtime: Runtime) -> EntrySource | EntryListener | None:
        """Where its entries are looked for, or brought to; None if that is the control socket. Opens nothing."""
        raise NotImplementedError
