"""From files to a checked :class:`~mailpoller.config.model.Config`: read, join, merge, validate, cross-check."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from mailpoller.config import checks, lint
from mailpoller.config.fields import keys_of, secret_keys
from mailpoller.config.files import read_files
from mailpoller.config.merge import Sections, dangling, inherit, is_name, join_files, merge
from mailpoller.config.merge import orphans as orphans_of
from mailpoller.config.model import AlertsConfig, Config, Quarantine, QuarantineConfig, ServiceConfig
from mailpoller.config.node import Node, plain
from mailpoller.config.problems import ConfigErrors, Problem, either, in_order
from mailpoller.config.registry import INSTALLED, Registry
from mailpoller.config.wording import REQUIRED, unknown_key, validate
from mailpoller.core.component import (
    Block,
    Component,
    LedgerConfig,
    OutgoingConfig,
    RuleConfig,
    SinkConfig,
    SourceConfig,
)
from mailpoller.core.errors import ConfigError

ENVIRONMENT = "MAILPOLLER_ENVIRONMENT"
"""The variable that overrules ``service.environment``."""

_BAD_ENVIRONMENT = f"from {ENVIRONMENT} or the command line, must be letters, digits, - and _, at most 40"
_NEVER_DEFAULT = ("extends", "formerly")
_KIND_OF = {"queues": "sinks", "outgoing": "outgoings", "rules": "rules"}


def load(path: Path, *, environment: str | None = None, registry: Registry = INSTALLED) -> Config:
    """Read ``path`` and its drop-ins, and check everything that can be checked without a network.

    ``environment`` overrules ``MAILPOLLER_ENVIRONMENT``, which overrules ``service.environment``. Relative patterns in
    ``include`` start at the file's own directory. Raises :class:`ConfigErrors` with every problem found, warnings
    among them. Secrets are not looked at: see :meth:`Config.missing_secrets`.
    """
    return _Loading(path, environment, registry).run()


class _Loading:
    def __init__(self, path: Path, environment: str | None, registry: Registry) -> None:
        self._path = path
        self._environment = environment or os.environ.get(ENVIRONMENT) or None
        self._registry = registry
        self._problems: list[Problem] = []
        self._places: dict[tuple[str, ...], Node] = {}
        self._files: tuple[Path, ...] = (path,)
        self._complete = True
        """False: a drop-in could not be read, so a name that leads nowhere is not known to be wrong."""
        self._broken: list[tuple[Node, type[Block]]] = []

    def run(self) -> Config:
        files = read_files(self._path, self._problems)
        if files is None:
            raise ConfigErrors(self._problems)
        self._files, self._complete = files.names, files.complete
        sections = join_files(files.main, files.drop_ins, self._problems)
        service = self._service(sections)
        queues = cast(dict[str, SinkConfig], self._named(sections, "queues"))
        outgoing = cast(dict[str, OutgoingConfig], self._named(sections, "outgoing"))
        rules = cast(dict[str, RuleConfig], self._named(sections, "rules"))
        ledger = self._ledger(sections, service)
        quarantine = self._quarantine(sections.single("quarantine"), ("quarantine",))
        alerts = self._alerts(sections)
        mailboxes, overrides = self._mailboxes(sections)
        config = Config(
            service=service or ServiceConfig(),
            ledger=ledger,  # type: ignore[arg-type]  # None only if there are problems: then nobody sees it
            queues=MappingProxyType(queues),
            outgoing=MappingProxyType(outgoing),
            quarantine=quarantine,
            alerts=alerts,
            rules=MappingProxyType(rules),
            mailboxes=MappingProxyType(mailboxes),
            files=self._files,
            overrides=MappingProxyType(overrides),
            places=MappingProxyType(self._places),
        )
        if self._complete:
            self._problems += checks.references(config, sections.names, self._broken)
        self._problems += checks.agreement(config)
        if any(problem.severity == "error" for problem in self._problems):
            raise ConfigErrors(in_order(self._problems, self._files))
        warnings = in_order([*self._problems, *lint.doubts(config)], self._files)
        return replace(config, warnings=warnings)

    # --- blocks ----------------------------------------------------------------------------------------------------
    def _service(self, sections: Sections) -> ServiceConfig | None:
        node = sections.single("service") or Node({}, self._path, 1, 1, "service")
        written = plain(node)
        if self._environment is not None and isinstance(written, dict):
            if is_name(self._environment):
                written["environment"] = self._environment
            else:
                self._problems.append(node.problem(_BAD_ENVIRONMENT, key="environment"))
        return cast("ServiceConfig | None", self._block(ServiceConfig, node, ("service",), written))

    def _ledger(self, sections: Sections, service: ServiceConfig | None) -> LedgerConfig | None:
        node = sections.single("ledger")
        if node is None:
            directory = (service or ServiceConfig()).state_directory
            at = Node(None, self._path, 1, 1, "ledger")
            node = at.like({"type": at.like("sqlite"), "path": at.like(str(directory / "ledger.db"))})
        return cast("LedgerConfig | None", self._component("ledgers", node, ("ledger",)))

    def _named(self, sections: Sections, section: str) -> dict[str, Component]:
        made: dict[str, Component] = {}
        for name, node in sections.blocks[section].items():
            if section == "rules" and "type" not in node.entries:
                node = node.like(node.entries | {"type": node.like("match")})
            component = self._component(_KIND_OF[section], node, (section, name))
            if component is not None:
                made[name] = component
        return made

    def _quarantine(self, node: Node | None, at: tuple[str, ...]) -> Quarantine | None:
        if node is None:
            return None
        kind = node.entries.get("type")
        if kind is not None and kind.value == "queue":
            return cast("QuarantineConfig | None", self._block(QuarantineConfig, node, at))
        return cast("SinkConfig | None", self._component("sinks", node, at, also=("queue",)))

    def _alerts(self, sections: Sections) -> AlertsConfig | None:
        node = sections.single("alerts")
        return cast("AlertsConfig | None", self._block(AlertsConfig, node, ("alerts",))) if node else None

    def _component(self, kind: str, node: Node, at: tuple[str, ...], also: tuple[str, ...] = ()) -> Component | None:
        model = self._class(kind, node, also)
        return cast("Component | None", self._block(model, node, at)) if model else None

    def _class(self, kind: str, node: Node, also: tuple[str, ...] = ()) -> type[Component] | None:
        if not isinstance(node.value, dict):
            self._problems.append(node.problem("expected a block of keys: type, and what that needs"))
            return None
        type_ = node.value.get("type")
        if type_ is None:
            known = either(sorted((*also, *self._registry.known(kind))))
            self._problems.append(node.problem(f"{REQUIRED}; there is {known}", key="type"))
            return None
        if not isinstance(type_.value, str):
            self._problems.append(type_.problem("expected text"))
            return None
        try:
            return self._registry.load_plugin(kind, type_.value, also)
        except ConfigError as error:
            self._problems.append(type_.problem(str(error)))
            return None

    def _block(self, model: type[Any], node: Node, at: tuple[str, ...], written: Any = None) -> Any:
        self._places[at] = node
        block, problems = validate(model, node, plain(node) if written is None else written)
        if problems:
            self._problems += problems
            self._broken.append((node, model))
            return None
        return block

    # --- mailboxes -------------------------------------------------------------------------------------------------
    def _mailboxes(self, sections: Sections) -> tuple[dict[str, SourceConfig], dict[str, Quarantine]]:
        defaults, locked = self._defaults(sections)
        top, orphans = sections.single("quarantine"), orphans_of(sections)
        if self._complete:
            self._problems += [
                node.problem(dangling("mailbox", str(node.value), sections.names["mailboxes"]))
                for node in orphans.values()
            ]
        mailboxes: dict[str, SourceConfig] = {}
        overrides: dict[str, Quarantine] = {}
        used: set[type[Component]] = set()
        for name, merged in inherit(sections, defaults, self._problems).items():
            before = len(self._problems)
            model = self._class("sources", merged)
            if model is not None:
                used.add(model)
                if name in sections.drop_ins:
                    self._refuse_locked(sections.blocks["mailboxes"][name], model, locked)
                node = self._fitted(name, merged, model, sections)
                if (mailbox := self._block(model, node, ("mailboxes", name))) is not None:
                    mailboxes[name] = mailbox
                    if (override := self._override(name, node, top)) is not None:
                        overrides[name] = override
            if name in orphans:  # whatever is missing may stand in what it means to extend
                self._problems[before:] = [
                    found for found in self._problems[before:] if not found.message.startswith(REQUIRED)
                ]
        self._check_defaults(defaults, locked, used)
        return mailboxes, overrides

    def _fitted(self, name: str, merged: Node, model: type[Component], sections: Sections) -> Node:
        """The mailbox without what it inherits and its type does not have, and with its default queue."""
        own, known = sections.blocks["mailboxes"][name].entries, keys_of(model)
        node = merged.like({key: child for key, child in merged.entries.items() if key in known or key in own})
        self._default_queue(node, sections)
        return node

    def _override(self, name: str, mailbox: Node, top: Node | None) -> Quarantine | None:
        """The mailbox's own quarantine, merged into the top-level one; None if it has none."""
        own = mailbox.entries.get("quarantine")
        if own is None or own.value is None:
            return None
        return self._quarantine(merge(own, top) if top else own, ("mailboxes", name, "quarantine"))

    def _defaults(self, sections: Sections) -> tuple[Node | None, dict[str, Node]]:
        node = sections.single("defaults")
        if node is None:
            return None, {}
        if not isinstance(node.value, dict):
            self._problems.append(node.problem("expected a block of keys"))
            return None, {}
        locked: dict[str, Node] = {}
        entry = node.value.get("locked")
        for key in entry.value if entry and isinstance(entry.value, list) else [entry] if entry and entry.value else []:
            if isinstance(key.value, str):
                locked[key.value] = key
            else:
                self._problems.append(key.problem("expected the name of a key, or a list of them"))
        return node.like({key: child for key, child in node.value.items() if key != "locked"}), locked

    def _check_defaults(self, defaults: Node | None, locked: Mapping[str, Node], used: set[type[Component]]) -> None:
        """Every key must be one that some source knows; sources that no mailbox uses are imported only if need be."""
        asked = dict(defaults.entries if defaults else {})
        for key in _NEVER_DEFAULT:
            if key in asked:
                self._problems.append(asked.pop(key).problem("this is about one mailbox and cannot be a default"))
        known = {key for model in used for key in keys_of(model)} | set(keys_of(SourceConfig))
        if any(key not in known for key in (*asked, *locked)):
            for type_ in self._registry.known("sources"):
                try:
                    known |= set(keys_of(self._registry.load_plugin("sources", type_)))
                except ConfigError:
                    continue  # a broken plug-in that nobody uses
        self._problems += [
            node.problem(unknown_key(key, [*sorted(known), "locked"]))
            for key, node in asked.items()
            if key not in known
        ]
        self._problems += [
            node.problem(unknown_key(key, sorted(known))) for key, node in locked.items() if key not in known
        ]

    def _refuse_locked(self, own: Node, model: type[Component], locked: Mapping[str, Node]) -> None:
        credentials = {"username"} | secret_keys(model)
        for key, node in own.entries.items():
            if key in locked and key not in credentials:
                self._problems.append(node.problem(f"this key is locked by {locked[key].place()}; remove it here"))

    def _default_queue(self, mailbox: Node, sections: Sections) -> None:
        """Where there is one queue, it is the default; where there are several, a mailbox that is polled must choose."""
        queues, enabled = sections.blocks["queues"], mailbox.entries.get("enabled")
        written = mailbox.entries.get("default_queue")
        if written is not None and written.value is not None:
            return
        if len(queues) == 1:
            mailbox.entries["default_queue"] = mailbox.like(next(iter(queues)))
        elif self._complete and (enabled is None or enabled.value is not False):
            message = (
                f"{REQUIRED} where there are several queues: it gets the mail for which no rule names one; there is {either(sorted(queues))}"
                if queues
                else "there is no queue for this mailbox's mail: define one below queues"
            )
            self._problems.append(mailbox.problem(message, key="default_queue"))
