"""The checked configuration: what the composition root builds the service from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from mailpoller.config import sections
from mailpoller.config.extras import missing_extras
from mailpoller.config.fields import needed_files_of, references_of, secrets_of
from mailpoller.config.model import PRODUCTION, AlertsConfig, Quarantine, QuarantineStoreConfig, ServiceConfig
from mailpoller.config.node import Node, join
from mailpoller.config.problems import ConfigErrors, Problem
from mailpoller.config.sections import Section
from mailpoller.config.wording import locate
from mailpoller.core.component import Block, LedgerConfig, OutgoingConfig, SinkConfig
from mailpoller.core.errors import ConfigError
from mailpoller.core.record import record
from mailpoller.core.regular import LARGEST_FILE, require_regular
from mailpoller.core.rule_config import RuleConfig
from mailpoller.core.source_config import SourceConfig

T = TypeVar("T")
At = tuple[str, ...]
"""Where a block stands: ``("ledger",)``, ``("queues", name)``."""


@record
class Config:
    """The whole configuration, merged and checked: every name in it leads somewhere.

    Made by :func:`mailpoller.config.load`. ``mailboxes`` holds all of them, also those that are disabled or belong to
    another environment; ask :meth:`runs`. ``warnings`` are what :func:`~mailpoller.config.load` found doubtful.
    """

    made: Mapping[str, Any]
    """section -> its block, or name -> block of its blocks. None if it is one block and was left out."""
    warnings: tuple[Problem, ...] = ()
    files: tuple[Path, ...] = ()
    """The files that were read, the main one first."""
    overrides: Mapping[str, Quarantine] = field(default_factory=dict, repr=False)
    """mailbox -> its own quarantine, merged; only of those that have one."""
    around: Mapping[str, Block] = field(default_factory=dict, repr=False)
    """section -> the block that stands around its block, of those that may have one."""
    incomplete: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict, repr=False)
    """mailbox -> what it lacks; only disabled ones, for all others it is an error. Such a mailbox has no attribute
    for a key that it lacks, and cannot be built: see :meth:`require`."""
    chosen: Mapping[At, str] = field(default_factory=dict, repr=False)
    """block -> why its ``outgoing`` is the one it is, of those that name none."""
    wrong: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict, repr=False)
    """mailbox -> its errors; only if it was read so as to run all others. Such a mailbox says whether it is polled, and
    cannot be built: see :meth:`require`."""
    places: Mapping[At, Node] = field(default_factory=dict, repr=False, compare=False)
    """("mailboxes", name) -> the merged tree with the place of every key, for :mod:`mailpoller.config` alone."""

    def of(self, section: Section[T]) -> T:
        """What was made of a section."""
        return cast(T, self.made[section.key])

    def but(self, **made: Any) -> Config:
        """The same with other contents of these sections."""
        return replace(self, made={**self.made, **made})

    @property
    def service(self) -> ServiceConfig:
        return self.of(sections.SERVICE)

    @property
    def ledger(self) -> LedgerConfig:
        return self.of(sections.LEDGER)

    @property
    def queues(self) -> Mapping[str, SinkConfig]:
        return self.of(sections.QUEUES)

    @property
    def outgoing(self) -> Mapping[str, OutgoingConfig]:
        return self.of(sections.OUTGOING)

    @property
    def quarantine(self) -> Quarantine | None:
        return self.of(sections.QUARANTINE)

    @property
    def quarantine_store(self) -> QuarantineStoreConfig:
        """How quarantined messages are held."""
        found = self.around.get(sections.QUARANTINE.key)
        return found if isinstance(found, QuarantineStoreConfig) else QuarantineStoreConfig()

    @property
    def alerts(self) -> AlertsConfig | None:
        return self.of(sections.ALERTS)

    @property
    def rules(self) -> Mapping[str, RuleConfig]:
        return self.of(sections.RULES)

    def rules_of(self, mailbox: str) -> tuple[str, ...]:
        """The rules that judge this mailbox's messages, in their order: those of its sets, then its own, each once."""
        block, sets = self.mailboxes[mailbox], self.of(sections.RULE_SETS)
        named = [rule for one in block.rule_sets for rule in sets[one].rules]
        return tuple(dict.fromkeys((*named, *block.rules)))

    def reachable(self, mailbox: str) -> frozenset[str]:
        """The queues that the default, the policies and the rules can send this mailbox's mail to, read off the blocks'
        own references."""
        block = self.mailboxes[mailbox]
        names = {block.default_queue} if block.default_queue else set()
        names.update(policy.queue for policy in block.policies().values() if policy.queue)
        if not block.force_default_queue:
            for rule in map(self.rules.__getitem__, self.rules_of(mailbox)):
                names.update(name for _, section, name in references_of(rule) if section == sections.QUEUES.key)
                names.update(one.name for one in rule.destinations)
        return frozenset(names)

    @property
    def mailboxes(self) -> Mapping[str, SourceConfig]:
        return self.of(sections.MAILBOXES)

    def blocks(self) -> Iterator[tuple[At, Block]]:
        """Every block with its place, section by section; a mailbox's own quarantine comes right after the
        mailboxes."""
        for section in sections.TABLE:
            made = self.made.get(section.key)
            if isinstance(made, Block):
                yield (section.key,), made
            elif made is not None:
                yield from (((section.key, name), block) for name, block in made.items())
            if section is sections.MAILBOXES:
                yield from (((section.key, name, "quarantine"), block) for name, block in self.overrides.items())

    def quarantine_of(self, mailbox: str) -> Quarantine | None:
        """Where notices of this mailbox's quarantined messages go; None: nobody is told."""
        return self.overrides.get(mailbox, self.quarantine)

    def runs(self, mailbox: str) -> bool:
        """True if the mailbox is polled."""
        return self.idle_reason(mailbox) is None

    def holds_back(self, outgoing: str) -> str:
        """Why nothing that is handed in is sent by this outgoing, in words; nothing if it is."""
        block, here = self.outgoing[outgoing], self.service.environment
        if not block.enabled:
            return "it is disabled (enabled: false)"
        if (block.environment or PRODUCTION) != here:
            belongs = f"it belongs to the environment {block.environment}" if block.environment else "it names none"
            return f"{belongs}, and this environment is {here}"
        return ""

    def require(self, mailbox: str) -> SourceConfig:
        """The mailbox, to build it or to log in to it. Raises :class:`ConfigErrors` with all that is wrong with it, or
        that it lacks."""
        if problems := self.wrong.get(mailbox) or self.incomplete.get(mailbox):
            raise ConfigErrors(problems)
        return self.mailboxes[mailbox]

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

        Severity ``warning`` for credentials while there is no systemd unit around us (``check`` in a shell),
        ``error`` for all others. Whose secret it is waits for it; everybody else is not concerned.
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

    def missing_files(self) -> list[Problem]:
        """A warning for each file of certificates or keys that is not there, or is none, of all that would be used
        here: who needs it fails for it when it connects, and nobody else does."""
        missing: list[Problem] = []
        for at, block in self._used():
            for keys, path in needed_files_of(block):
                try:
                    require_regular(path, LARGEST_FILE)
                except (OSError, ValueError) as error:
                    reason = getattr(error, "strerror", None) or "not a usable name"
                    missing.append(self.problem(at, keys, f"{path}: {reason}", "warning"))
        return missing

    def hold_secrets(self) -> None:
        """Have every secret that can be read now remembered, for a process that may not read it later
        (:meth:`Secret.hold`)."""
        for _, model in self.blocks():
            for _, secret in secrets_of(model):
                secret.hold()

    def hold_as(self, former: Config) -> None:
        """Have every secret remembered that ``former`` remembers: this process may not be able to read it any more."""
        held = {(one.kind, one.location): one for _, model in former.blocks() for _, one in secrets_of(model)}
        for _, model in self.blocks():
            for _, secret in secrets_of(model):
                if (known := held.get((secret.kind, secret.location))) is not None and secret.kind != "plain":
                    secret.hold_as(known)

    def missing_extras(self) -> list[Problem]:
        """A problem for each optional package that is not installed, of all that would be used here, where it is
        asked for. Whoever needs it waits for it."""
        return [
            self.problem(at, keys, str(extra), "error")
            for at, block in self._used()
            for keys, extra in missing_extras(block)
        ]

    def missing(self) -> list[Problem]:
        """All that parts lack on this machine: secrets, files and optional packages."""
        return [*self.missing_secrets(), *self.missing_files(), *self.missing_extras()]

    def _used(self) -> Iterator[tuple[At, Block]]:
        """The blocks of which something is made here: not those of mailboxes that are not polled, or of outgoings that
        are disabled."""
        for at, block in self.blocks():
            if isinstance(block, OutgoingConfig) and not block.enabled:
                continue
            if at[0] != sections.MAILBOXES.key or self.runs(at[1]):
                yield at, block

    def problem(
        self, block: At, keys: tuple[str | int, ...], message: str, severity: Literal["error", "warning"]
    ) -> Problem:
        """A problem with a key of a block, where that key was written; of the block or the file if that is not
        known."""
        if (node := self.places.get(block)) is None:
            path = ""
            for key in (*block, *(str(key) for key in keys)):
                path = join(path, key)
            return Problem(self.files[0] if self.files else Path("-"), 1, 1, path, message, severity)
        found, rest = locate(node, keys)
        return found.problem(message, severity, key=rest)
