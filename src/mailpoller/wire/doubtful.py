"""What is allowed and yet probably wrong where a server is spoken to: port and TLS, and how often it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from mailpoller.core.component import Finding
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.tls import TlsMode

SHORTEST_POLL = timedelta(seconds=10)

_IMPLICIT = {993: "IMAP", 995: "POP3", 465: "SMTP"}
"""Ports where TLS begins with the first octet (RFC 8314 section 3)."""
_CLEAR_FIRST = {143: "IMAP", 110: "POP3", 587: "SMTP submission", 25: "SMTP"}
_SPOKEN = {993: "imap", 143: "imap", 995: "pop3", 110: "pop3", 465: "smtp", 587: "smtp", 25: "smtp"}
"""The type of block that speaks what is spoken at a port."""


def line(spoken: str, host: str, port: int, tls: TlsMode) -> Iterator[Finding]:
    """Port, TLS mode and protocol against each other. ``port`` is 0 where none is written."""
    if _SPOKEN.get(port, spoken) != spoken:
        yield Finding("port", f"port {port} is {_SPOKEN[port].upper()}, and this is type: {spoken}")
    elif port in _IMPLICIT and tls != "tls":
        yield Finding(
            "port", f"port {port} is {_IMPLICIT[port]} with TLS from the first octet, which is tls: tls, not {tls}"
        )
    elif port in _CLEAR_FIRST and tls == "tls":
        yield Finding(
            "port", f"port {port} is {_CLEAR_FIRST[port]} with TLS after STARTTLS, which is tls: starttls-required"
        )
    if tls == "none" and not is_loopback(host):
        yield Finding("tls", "everything, a password too, crosses the network in clear")
    elif tls == "starttls" and not is_loopback(host):
        yield Finding("tls", "an attacker can prevent this encryption; starttls-required insists on it")


def hasty(interval: timedelta, instead: str) -> Iterator[Finding]:
    """A ``poll_interval`` that few servers bear. ``instead``: why so short a one is not needed."""
    if interval < SHORTEST_POLL:
        yield Finding("poll_interval", f"below 10s many servers refuse or throttle; {instead}")
