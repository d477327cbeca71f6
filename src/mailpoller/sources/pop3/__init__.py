"""POP3 maildrops (RFC 1939, RFC 2449), with a client of our own."""

from mailpoller.sources.pop3.config import Pop3Config

__all__ = ["Pop3Config"]
