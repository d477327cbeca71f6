"""What is allowed and yet probably wrong: warnings that need no network.

Blocks are asked for what they have (``host``, ``port``, ``tls``, ``password``), not what they are, so that a third
party's plug-in is looked at like ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from mailpoller.config.checked import Config
from mailpoller.config.fields import secrets_of
from mailpoller.config.node import Node
from mailpoller.config.problems import Problem
from mailpoller.config.wording import locate
from mailpoller.core.component import Component, SourceConfig
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.oauth import provider_of

SHORTEST_POLL = timedelta(seconds=10)
SHORTEST_POP3 = timedelta(minutes=1)
"""Every poll by POP3 is a login, and providers count those: once a minute is what most of them allow."""
SHORTEST_POP3_GOOGLE = timedelta(minutes=10)

_IMPLICIT = {993: "IMAP", 995: "POP3", 465: "SMTP"}
"""Ports where TLS begins with the first octet (RFC 8314 section 3)."""
_CLEAR_FIRST = {143: "IMAP", 110: "POP3", 587: "SMTP submission", 25: "SMTP"}
_SPOKEN = {993: "imap", 143: "imap", 995: "pop3", 110: "pop3", 465: "smtp", 587: "smtp", 25: "smtp"}
"""The type of block that speaks what is spoken at a port."""


def doubts(config: Config) -> Iterator[Problem]:
    """A warning for each doubt."""
    if not config.mailboxes:
        yield Problem(config.files[0], 1, 1, "mailboxes", "no mailbox is defined: nothing is polled", "warning")
    for at, block in _peers(config):
        yield from _wire(block, config.places[at])
    for name, mailbox in config.mailboxes.items():
        yield from _mailbox(config, name, mailbox)
    yield from _loops(config)
    yield from _forgetful(config)
    yield from _exposed(config)


def _peers(config: Config) -> Iterator[tuple[tuple[str, ...], Component]]:
    """What may connect to somewhere."""
    for at, block in config.blocks():
        if isinstance(block, Component) and getattr(block, "enabled", True):
            yield at, block


def _wire(block: Component, node: Node) -> Iterator[Problem]:
    """Host, port and TLS mode against each other."""
    host, port, tls = getattr(block, "host", None), getattr(block, "port", None), getattr(block, "tls", None)
    if not isinstance(host, str):
        return
    host = host.casefold().rstrip(".")
    spoken = _SPOKEN.get(port) if isinstance(port, int) else None
    if spoken is not None and block.type != spoken and block.type in _SPOKEN.values():
        yield _warn(node, "port", f"port {port} is {spoken.upper()}, and this is type: {block.type}")
    elif port in _IMPLICIT and tls not in ("tls", None):
        yield _warn(
            node,
            "port",
            f"port {port} is {_IMPLICIT[port]} with TLS from the first octet, which is tls: tls, not {tls}",
        )
    elif port in _CLEAR_FIRST and tls == "tls":
        yield _warn(
            node,
            "port",
            f"port {port} is {_CLEAR_FIRST[port]} with TLS after STARTTLS, which is tls: starttls-required",
        )
    if tls == "none" and not is_loopback(host):
        yield _warn(node, "tls", "everything, a password too, crosses the network in clear")
    elif tls == "starttls" and not is_loopback(host):
        yield _warn(node, "tls", "an attacker can prevent this encryption; starttls-required insists on it")
    yield from _password(block, node, host)


def _password(block: Component, node: Node, host: str) -> Iterator[Problem]:
    """A password for somebody who takes none."""
    way = getattr(getattr(block, "auth", None), "type", "password")
    if getattr(block, "password", None) is None or way != "password":
        return
    provider = provider_of(host)
    if provider == "microsoft" and isinstance(block, SourceConfig):
        yield _warn(
            node, "password", "Microsoft 365 takes no passwords any more: this login cannot work; it needs OAuth 2.0"
        )
    elif host == "smtp-mail.outlook.com":
        yield _warn(
            node, "password", "outlook.com takes no passwords any more: this login cannot work; it needs OAuth 2.0"
        )
    elif provider == "microsoft":
        yield _warn(
            node,
            "password",
            "Microsoft 365 refuses passwords for SMTP unless an administrator allows them; plan for OAuth 2.0",
        )
    elif provider == "google":
        yield _warn(
            node,
            "password",
            "Google refuses the account's own password: this login can only work with an app password; else it needs "
            "OAuth 2.0",
        )


def _mailbox(config: Config, name: str, mailbox: SourceConfig) -> Iterator[Problem]:
    node = config.places["mailboxes", name]
    if any("@" not in address.strip("@") for address in _addresses(mailbox)):
        yield _warn(node, "address", "expected mail addresses, such as support@example.com")
    if reason := _too_often(mailbox):
        yield _warn(node, "poll_interval", reason)
    deletes = [
        key for key in ("disposition", "on_quarantine", "on_discard") if getattr(getattr(mailbox, key), "delete", False)
    ]
    if deletes and mailbox.mode == "live" and config.quarantine_of(name) is None:
        yield _warn(
            node,
            deletes[0],
            "deletes mail, but there is no quarantine: what cannot be processed is kept in a local directory only",
        )


def _too_often(mailbox: SourceConfig) -> str:
    """Why the server will not have it, or ""."""
    interval, host = mailbox.poll_interval, getattr(mailbox, "host", None)
    if not isinstance(host, str):
        return ""
    if mailbox.type == "pop3":
        if interval < SHORTEST_POP3_GOOGLE and provider_of(host) == "google":
            return (
                "every poll by POP3 is a login, and Gmail locks out who logs in more often than every 10m; by "
                "IMAP new mail arrives at once"
            )
        if interval < SHORTEST_POP3 and not is_loopback(host):
            return "every poll by POP3 is a login, and below 1m many servers refuse or throttle"
        return ""
    if interval >= SHORTEST_POLL:
        return ""
    if getattr(mailbox, "notice_interval", None) is not None:
        return "below 10s many servers refuse or throttle; news is asked for every notice_interval anyway"
    return "below 10s many servers refuse or throttle; with IDLE new mail arrives at once anyway"


def _addresses(mailbox: SourceConfig) -> list[str]:
    return [mailbox.address] if isinstance(mailbox.address, str) else mailbox.address or []


def _loops(config: Config) -> Iterator[Problem]:
    """Quarantine or alerts that are mailed to an address that is polled here."""
    polled: dict[str, str] = {}
    for name, mailbox in config.mailboxes.items():
        polled |= {address.casefold(): name for address in _addresses(mailbox) if mailbox.enabled}
    for at in [("alerts",), ("quarantine",), *(("mailboxes", name, "quarantine") for name in config.overrides)]:
        if (node := config.places.get(at)) is None or (to := node.entries.get("to")) is None:
            continue
        for entry in to.value if isinstance(to.value, list) else [to]:
            if isinstance(entry.value, str) and (whose := polled.get(entry.value.casefold())):
                yield entry.problem(f"the mailbox {whose} polls this address: our own mail would come back", "warning")


def _forgetful(config: Config) -> Iterator[Problem]:
    """Queues that forget ids which the ledger may still bring again."""
    longest = max((mailbox.keep for mailbox in config.mailboxes.values()), default=timedelta(0))
    for name, queue in config.queues.items():
        remember = getattr(queue, "remember", None)
        if isinstance(remember, timedelta) and remember < longest:
            node = config.places["queues", name]
            yield _warn(node, "remember", "shorter than keep of a mailbox: a repeat might not be recognised")


def _exposed(config: Config) -> Iterator[Problem]:
    """Secrets in a file that everybody on this machine may read, or that are written as no secret would be."""
    readable = {file for file in config.files if _is_public(file)}
    for at, block in config.blocks():
        for keys, secret in secrets_of(block):
            node, _ = locate(config.places[at], keys)
            if secret.kind == "plain" and re.fullmatch(r"\$\w+|\$?\{.*\}", secret.reveal()):
                yield node.problem("this looks like a variable and is the secret itself: write env:NAME", "warning")
            if secret.kind == "plain" and node.file in readable:
                yield node.problem(
                    "a secret in a file that every user of this machine may read: use credential:, file: or env:, or "
                    "chmod o-r",
                    "warning",
                )


def _is_public(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & 0o004)
    except OSError:
        return False


def _warn(node: Node, key: str, message: str) -> Problem:
    found, rest = locate(node, (key,))
    return found.problem(message, "warning", key=rest)
