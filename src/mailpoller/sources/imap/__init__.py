"""IMAP4rev1 mailboxes (RFC 3501, RFC 9051), on aioimaplib."""

from __future__ import annotations

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Source
from mailpoller.sources.imap.config import ImapSettings

__all__ = ["ImapConfig"]


class ImapConfig(ImapSettings):
    """A mailbox on an IMAP server (RFC 3501, RFC 9051)."""

    def build(self, name: str, runtime: Runtime) -> Source:
        """The source of the mailbox ``name``. Opens nothing; raises :class:`ConfigError` for a CA file of no use."""
        from mailpoller.sources.imap.source import ImapSource

        return ImapSource(name, self, runtime)
