"""The checked configuration: what the composition root builds the service from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mailpoller.config.fields import secrets_of
from mailpoller.config.node import Node, join
from mailpoller.config.problems import Problem
from mailpoller.config.wording import locate
from mailpoller.core.component import Block, LedgerConfig, OutgoingConfig, RuleConfig, SinkConfig, SourceConfig
from mailpoller.core.errors import ConfigError
from mailpoller.core.literals import Duration, MailAddress, MailAddresses, OutgoingName, QueueName, Size

PRODUCTION = "production"
"""The environment whose mailboxes need not say so."""


def _at_least(least: timedelta, written: str) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if value < least:
            raise ValueError(f"must be at least {written}")
        return value

    return AfterValidator(check)


def _word(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", value):
        raise ValueError("must be letters, digits, - and _, at most 40")
    return value


class ServiceConfig(Block):
    """The process: where it keeps its state, how much it takes in hand, how it logs."""

    environment: Annotated[str, AfterValidator(_word)] = PRODUCTION
    """What this installation is for. Mailboxes of another environment are not polled; those without one are polled only in
    ``production``. ``--environment`` and ``MAILPOLLER_ENVIRONMENT`` overrule it."""
    state_directory: Path = Path("/var/lib/mailpoller")
    """Spool, tokens and the last-resort quarantine. Created with mode 0750."""
    control_socket: Path = Path("/run/mailpoller/control.sock")
    """Where ``mailpoller status``, ``poll`` and the like reach the running service; its group may use it."""
    stop_grace: Annotated[Duration, _at_least(timedelta(0), "0s")] = timedelta(seconds=20)
    """How long a stop waits for messages in hand before it drops them (none is lost: they are done again). Keep it below
    systemd's TimeoutStopSec."""
    memory: Size = Field(default=64_000_000, ge=1_000_000)
    """Octets of mail in hand at any time, of all mailboxes together. Mail waits in its mailbox for room."""
    memory_per_mailbox: Size = Field(default=32_000_000, ge=1_000_000)
    """Octets of mail in hand of one mailbox. Four batches keep a far line busy: one asked for, one fetched, one judged, one delivered."""
    batch_messages: int = Field(default=400, ge=1, le=10_000)
    """The most messages that are fetched, judged and committed together. Every batch waits for the disk a few times, so that
    small messages are carried faster in larger batches, and a crash leaves more of them to be worked on one by one."""
    batch_size: Size = Field(default=8_000_000, ge=1)
    """The most octets of a batch; a larger message travels alone."""
    max_connections: int = Field(default=0, ge=0)
    """The most sessions that are open at once; 0: as many as there are mailboxes. Where there are more mailboxes they take turns:
    who waits for news without any gives its place to one that is due, and is polled at ``poll_interval``."""
    max_connections_per_host: int = Field(default=0, ge=0)
    """The same for the mailboxes of one host."""
    max_strikes: int = Field(default=3, ge=1, le=100)
    """After killing the process this often a message is quarantined unparsed."""
    quarantine_marker: str = "[mailpoller quarantine test message]"
    """A message with this in its subject is quarantined, so that the quarantine can be tried. Empty: no such message."""
    poll_budget: Annotated[Duration, _at_least(timedelta(minutes=1), "1m")] = timedelta(minutes=15)
    """A mailbox without a completed poll or any progress for this long is given a new task and connection."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severity that is logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """``json``: one object a line; ``console``: for eyes; ``auto``: console on a terminal, else json."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.memory_per_mailbox > self.memory:
            raise ValueError("memory_per_mailbox must not be more than memory")
        if self.batch_size > self.memory_per_mailbox:
            raise ValueError("batch_size must not be more than memory_per_mailbox")
        return self


class AlertsConfig(Block):
    """Mail to humans when something goes wrong, and when it is well again."""

    outgoing: OutgoingName
    """The outgoing that alerts are sent by."""
    to: MailAddresses
    """Who gets them: one address or a list. Not a mailbox that is polled here."""
    sender: MailAddress | None = None
    """The address in From; that of the outgoing if there is none."""
    reminder: Annotated[Duration, _at_least(timedelta(minutes=1), "1m")] | None = None
    """Say again after this long that a trouble lasts. Without it there is one mail when it begins and one when it ends."""


class QuarantineConfig(Block):
    """Quarantined messages go to one of the configured queues."""

    type: Literal["queue"]
    queue: QueueName
    """The queue that gets them."""


Quarantine = QuarantineConfig | SinkConfig


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, merged and checked: every name in it leads somewhere.

    Made by :func:`mailpoller.config.load`. ``mailboxes`` holds all of them, also those that are disabled or belong to another
    environment; ask :meth:`runs`. ``warnings`` are what :func:`~mailpoller.config.load` found doubtful.
    """

    service: ServiceConfig
    ledger: LedgerConfig
    queues: Mapping[str, SinkConfig]
    outgoing: Mapping[str, OutgoingConfig] = field(default_factory=dict)
    quarantine: Quarantine | None = None
    alerts: AlertsConfig | None = None
    rules: Mapping[str, RuleConfig] = field(default_factory=dict)
    mailboxes: Mapping[str, SourceConfig] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
    files: tuple[Path, ...] = ()
    """The files that were read, the main one first."""
    overrides: Mapping[str, Quarantine] = field(default_factory=dict, repr=False)
    """mailbox -> its own quarantine, merged; only of those that have one."""
    places: Mapping[tuple[str, ...], Node] = field(default_factory=dict, repr=False, compare=False)
    """("mailboxes", name) -> the merged tree with the place of every key, for :mod:`mailpoller.config` alone."""

    def quarantine_of(self, mailbox: str) -> Quarantine | None:
        """Where this mailbox's quarantined messages go; None: to the local directory of last resort."""
        return self.overrides.get(mailbox, self.quarantine)

    def runs(self, mailbox: str) -> bool:
        """True if the mailbox is polled."""
        return self.idle_reason(mailbox) is None

    def idle_reason(self, mailbox: str) -> str | None:
        """Why the mailbox is not polled, in words, or None if it is."""
        wanted = self.mailboxes[mailbox]
        if not wanted.enabled:
            return "it is disabled (enabled: false)"
        here = self.service.environment
        if wanted.environment is None and here != PRODUCTION:
            return f"it names no environment, so it is polled only in {PRODUCTION}; this is {here}"
        if wanted.environment is not None and wanted.environment != here:
            return f"it belongs to the environment {wanted.environment}; this is {here}"
        return None

    def missing_secrets(self) -> list[Problem]:
        """A problem for each secret that cannot be read now, of all that would be used here.

        Severity ``warning`` for credentials while there is no systemd unit around us (``check`` in a shell), ``error`` for
        all others. ``run`` treats each of them as an error; ``check`` treats each as a warning.
        """
        missing: list[Problem] = []
        for block, model in self._used():
            for keys, secret in secrets_of(model):
                try:
                    if not secret.reveal():
                        missing.append(self.problem(block, keys, f"{secret} is empty", "error"))
                except ConfigError as error:
                    outside = secret.kind == "credential" and not os.environ.get("CREDENTIALS_DIRECTORY")
                    missing.append(self.problem(block, keys, str(error), "warning" if outside else "error"))
        return missing

    def _used(self) -> list[tuple[tuple[str, ...], Block]]:
        used: list[tuple[tuple[str, ...], Block]] = [(("ledger",), self.ledger)]
        used += [(("queues", name), queue) for name, queue in self.queues.items()]
        used += [(("outgoing", name), outgoing) for name, outgoing in self.outgoing.items()]
        used += [(("quarantine",), self.quarantine)] if self.quarantine else []
        running = [name for name in self.mailboxes if self.runs(name)]
        used += [(("mailboxes", name), self.mailboxes[name]) for name in running]
        used += [
            (("mailboxes", name, "quarantine"), self.overrides[name]) for name in running if name in self.overrides
        ]
        return used

    def problem(
        self, block: tuple[str, ...], keys: tuple[str | int, ...], message: str, severity: Literal["error", "warning"]
    ) -> Problem:
        """A problem with a key of a block, where that key was written; of the block or the file if that is not known."""
        if (node := self.places.get(block)) is None:
            path = ""
            for key in (*block, *(str(key) for key in keys)):
                path = join(path, key)
            return Problem(self.files[0] if self.files else Path("-"), 1, 1, path, message, severity)
        found, rest = locate(node, keys)
        return found.problem(message, severity, key=rest)
