"""What is allowed and yet probably wrong: warnings that need no network.

What concerns one type of block its class says (:meth:`~mailpoller.core.component.Component.findings`). Here is what
holds whatever the type, and what only several blocks together show.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from mailpoller.config import rule_lint, sections
from mailpoller.config.checked import Config
from mailpoller.config.fields import secrets_of
from mailpoller.config.merge import is_name
from mailpoller.config.node import Node
from mailpoller.config.problems import Problem
from mailpoller.config.wording import locate
from mailpoller.core.component import Component, Watermarks
from mailpoller.core.source_config import SourceConfig


def findings(config: Config) -> Iterator[Problem]:
    """What the blocks themselves have to say, errors among it."""
    for at, block in config.blocks():
        lacking = at[0] == "mailboxes" and at[-1] in config.incomplete
        if isinstance(block, Component) and not lacking:
            for one in block.findings():
                node, rest = locate(config.places[at], one.key.split("."))
                yield node.problem(one.text, one.severity, key=rest)


def doubts(config: Config) -> Iterator[Problem]:
    """A warning for each doubt."""
    if not config.mailboxes:
        yield Problem(config.files[0], 1, 1, "mailboxes", "no mailbox is defined: nothing is polled", "warning")
    for name, mailbox in config.mailboxes.items():
        yield from _mailbox(config, name, mailbox)
    yield from rule_lint.doubts(config)
    yield from _loops(config)
    yield from _watermarks(config)
    yield from _forgetful(config)
    yield from _exposed(config)


def _mailbox(config: Config, name: str, mailbox: SourceConfig) -> Iterator[Problem]:
    node = config.places["mailboxes", name]
    if any("@" not in address.strip("@") for address in _addresses(mailbox)):
        yield _warn(node, "address", "expected mail addresses, such as support@example.com")
    deletes = [
        key
        for key in ("disposition", "on_quarantine", "on_discard")
        if (wanted := getattr(mailbox, key)) is not None and wanted.at_once.delete
    ]
    if deletes and mailbox.mode == "live" and config.quarantine_of(name) is None:
        yield _warn(
            node,
            deletes[0],
            "deletes mail, and nobody is told of what cannot be processed: it is in the quarantine only",
        )


def _addresses(mailbox: SourceConfig) -> Sequence[str]:
    return mailbox.own_addresses() if mailbox.address is not None else []


def _watermarks(config: Config) -> Iterator[Problem]:
    """Watermarks that nobody can be told of as they want it, or that no level can pass."""
    usual = config.of(sections.WATERMARKS)
    asked: list[tuple[Node, tuple[str, ...], Watermarks]] = []
    if usual is not None:
        asked.append((config.places["watermarks",], (), usual))
    for name, one in config.mailboxes.items():
        if (own := getattr(one, "watermarks", None)) is not None:
            asked.append((config.places["mailboxes", name], ("watermarks",), own.over(usual)))
    for name, outgoing in config.outgoing.items():
        if (own := outgoing.watermarks) is not None:
            asked.append((config.places["outgoing", name], ("watermarks",), own.over(usual)))
    for node, at, marks in asked:
        if marks.alert_to and config.alerts is None:
            yield _about(node, (*at, "alert_to"), "no mail is sent: there is no alerts, whose outgoing would send it")
        if marks.high is None and marks.max_age is None:
            yield _about(node, (*at, "high"), "neither this nor max_age is said, so nothing is ever too much")
        elif marks.high is not None and marks.low is not None and marks.low >= marks.high:
            yield _about(node, (*at, "low"), "is not less than high, so the alarm is over just below high")


def _about(node: Node, keys: tuple[str, ...], message: str) -> Problem:
    found, rest = locate(node, keys)
    return found.problem(message, "warning", key=rest)


def _loops(config: Config) -> Iterator[Problem]:
    """What is mailed to an address that is polled here: notes, alerts, and what rules send on."""
    polled: dict[str, str] = {}
    for name, mailbox in config.mailboxes.items():
        polled |= {address.casefold(): name for address in _addresses(mailbox) if mailbox.enabled}
    ours = [("alerts",), ("quarantine",), *(("mailboxes", name, "quarantine") for name in config.overrides)]
    ours += [("queues", name) for name in config.queues if not is_name(name)]  # those that rules make
    for at in ours:
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
            if secret.kind == "file" and _is_public(Path(secret.location)):
                yield node.problem(f"every user of this machine may read {secret.location}: chmod o-r", "warning")
            if secret.kind == "plain" and node.file in readable:
                yield node.problem(
                    "a secret in a file that every user of this machine may read: use credential:, file: or env:, or "
                    "chmod o-r",
                    "warning",
                )


def _is_public(file: Path) -> bool:
    """True if others may read the file, and pass through the directories above it."""
    try:
        if not file.stat().st_mode & stat.S_IROTH:
            return False
        return all(above.stat().st_mode & stat.S_IXOTH for above in file.resolve().parents)
    except (OSError, ValueError, RuntimeError):
        return False


def _warn(node: Node, key: str, message: str) -> Problem:
    found, rest = locate(node, (key,))
    return found.problem(message, "warning", key=rest)
