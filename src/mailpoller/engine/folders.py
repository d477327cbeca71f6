"""The folders of one mailbox that cannot be polled while others can: said once, shown, told in time, and taken back."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import structlog

from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.health import MailboxHealth

log = structlog.get_logger(__name__)


class FailingFolders:
    """The folders of one mailbox that cannot be polled, from poll to poll.

    ``group``: the host that alerts about several of them are told together by."""

    def __init__(self, mailbox: str, config: SourceConfig, *, alarm: Alarm, health: MailboxHealth, group: str) -> None:
        self._mailbox = mailbox
        self._configured = tuple(config.named_folders())
        self._alarm = alarm
        self._failing = health.failing
        self._group = group

    def __bool__(self) -> bool:
        """True if there are any."""
        return bool(self._failing)

    async def note(self, offered: Collection[str], polled: Collection[str], failed: Mapping[str, str]) -> None:
        """What a poll came to. ``offered``: the folders that the server has, of those that are configured;
        ``failed``: folder -> why, of those that could not be polled. A folder that is in neither was not tried and
        stays what it was."""
        missing = {name: "the server has no such folder" for name in self._configured if name not in offered}
        for name, reason in {**failed, **missing}.items():
            if name not in self._failing:
                log.warning("folder.failed", mailbox=self._mailbox, folder=name, reason=reason)
                self._alarm.fault(self._mailbox, "folder.failed", f"{name}: {reason}")
            self._failing[name] = reason
            await self._alarm.raised(Kind.FOLDER_FAILING, self._subject(name), reason, group=self._group)
        # Of a folder that a pattern found, and that is gone, there is nothing to say any more.
        vanished = [name for name in self._failing if name not in offered and name not in self._configured]
        for name in [*polled, *vanished]:
            if self._failing.pop(name, None) is not None:
                log.info("folder.recovered", mailbox=self._mailbox, folder=name)
            # An alarm of an earlier run ends here too, so every folder is told, and it costs nothing where there is
            # none.
            await self._alarm.ended(Kind.FOLDER_FAILING, self._subject(name))

    def _subject(self, folder: str) -> str:
        return f"{self._mailbox}/{folder}"
