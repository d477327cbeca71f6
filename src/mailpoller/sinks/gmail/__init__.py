"""The queue type ``gmail``: a mailbox at Gmail, into which each message is put as it is."""

from __future__ import annotations

from urllib.parse import quote

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink
from mailpoller.sinks.gmail.config import GmailQueueSettings

__all__ = ["GmailQueueConfig"]


class GmailQueueConfig(GmailQueueSettings):
    """Put each message into a mailbox at Gmail (``messages.import``), below one field of ours. The token needs the
    scopes ``gmail.insert`` and ``gmail.readonly``."""

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        from mailpoller.sinks.gmail.sink import GmailQueue
        from mailpoller.storage.begun import Begun

        file = runtime.state_directory / "begun" / f"{quote(name, safe='')[:120]}.ids"
        return GmailQueue(self, runtime, Begun(file))
