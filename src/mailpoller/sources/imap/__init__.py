"""IMAP4rev1 mailboxes (RFC 3501, RFC 9051), on aioimaplib."""

from mailpoller.sources.imap.config import ImapConfig

__all__ = ["ImapConfig"]
