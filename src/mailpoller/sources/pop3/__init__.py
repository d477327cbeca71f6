"""POP3 maildrops (RFC 1939, RFC 2449), with a client of our own."""

from __future__ import annotations

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Source
from mailpoller.sources.pop3.config import Pop3Settings

__all__ = ["Pop3Config"]


class Pop3Config(Pop3Settings):
    """A mailbox on a POP3 server (RFC 1939). It has one folder, INBOX, and a message can be left or deleted, nothing
    else."""

    def build(self, name: str, runtime: Runtime) -> Source:
        """The source of the mailbox ``name``. Opens nothing."""
        from mailpoller.sources.pop3.source import Pop3Source

        return Pop3Source(name, self, runtime)
