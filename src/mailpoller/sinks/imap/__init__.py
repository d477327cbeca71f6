"""The queue type ``imap``: another mailbox, into which each message is put as it is."""

from __future__ import annotations

from urllib.parse import quote

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink
from mailpoller.sinks.imap.config import ImapQueueSettings

__all__ = ["ImapQueueConfig"]


class ImapQueueConfig(ImapQueueSettings):
    """Put each message into a folder of another mailbox (APPEND, RFC 3501 section 6.3.11), below one field of ours."""

    @property
    def carries_octets(self) -> bool:
        return True

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Opens nothing; raises :class:`ConfigError` for a CA file of no use."""
        from mailpoller.sinks.imap.sink import ImapQueue
        from mailpoller.storage.begun import Begun

        file = runtime.state_directory / "begun" / f"{quote(name, safe='')[:120]}.ids"
        return ImapQueue(name, self, self.login(self.username, self.auth, runtime), Begun(file))
