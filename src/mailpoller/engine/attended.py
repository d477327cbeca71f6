"""What all who attend one mailbox have in common."""

from __future__ import annotations

from mailpoller.core.ports import Clock, Source
from mailpoller.core.record import record
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.alarm import Alarm
from mailpoller.engine.health import Health
from mailpoller.engine.records import Records


@record
class Attended:
    """A mailbox, and whom to ask and to tell about it."""

    mailbox: str
    config: SourceConfig
    source: Source
    records: Records
    clock: Clock
    health: Health
    alarm: Alarm

    @property
    def group(self) -> str:
        """The host that alerts about several mailboxes are told together by."""
        return self.source.account.host
