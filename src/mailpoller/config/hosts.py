"""The section ``hosts``: what a host is asked for at most."""

from __future__ import annotations

from pydantic import Field

from mailpoller.core.component import Block
from mailpoller.core.host_limit import HostLimit

HOST_PATTERN = r"[a-z0-9_:-][a-z0-9._:-]{0,254}"


class HostConfig(Block):
    """What the mailboxes of a host ask it for at most, all together. A key that is left out is that of the preset, if
    there is one for its provider; 0 is no limit, the preset's neither."""

    connections: int | None = Field(default=None, ge=0, le=1_000_000)
    """Sessions that are open at once; ``service.max_connections_per_host``, if neither this nor a preset says it."""
    logins: int | None = Field(default=None, ge=0, le=1_000_000)
    """Sessions that are begun within a minute. Who comes too early waits, without an alarm until it is behind."""
    commands: int | None = Field(default=None, ge=0, le=1_000_000)
    """Commands, or requests of a web service, that are sent within a second. Logging in counts for none. With fewer
    than there are mailboxes each of them waits for seconds at every step."""

    def over(self, usual: HostLimit) -> HostLimit:
        """This, and what it does not say from ``usual``."""
        return HostLimit(
            usual.connections if self.connections is None else self.connections,
            usual.logins if self.logins is None else self.logins,
            usual.commands if self.commands is None else self.commands,
        )
