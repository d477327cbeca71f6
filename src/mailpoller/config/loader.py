"""From files to a checked :class:`~mailpoller.config.model.Config`: read, join, merge, validate, cross-check."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from mailpoller.config import checks, lint
from mailpoller.config.document import Node, plain, read
from mailpoller.config.fields import annotations_at, keys_of, secret_keys
from mailpoller.config.merge import DROP_IN_SECTIONS, Sections, inherit, is_name, join_files, merge
from mailpoller.config.model import AlertsConfig, Config, Quarantine, QuarantineConfig, ServiceConfig
from mailpoller.config.problems import ConfigErrors, Problem, either, in_order
from mailpoller.config.registry import INSTALLED, Registry
from mailpoller.config.wording import unknown_key, validate
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
        self._files: list[Path] = [path]
        self._broken: list[tuple[Node, type[Block]]] = []

    def run(self) -> Config:
        main = read(self._path, self._problems)
        if main is None:
            raise self._errors()
        if main.value == {}:
            self._problems.append(main.problem("the file is empty"))
        sections = join_files(main, self._drop_ins(main), self._problems)
        service = self._service(sections)
        queues = cast(dict[str, SinkConfig], self._named(sections, "queues"))
        outgoing = cast(dict[str, OutgoingConfig], self._named(sections, "outgoing"))
        rules = cast(dict[str, RuleConfig], self._named(sections, "rules"))
        ledger = self._ledger(sections, service)
        quarantine = self._quarantine(sections.single("quarantine"), ("quarantine",))
        alerts = self._alerts(sections)
        mailboxes, overrides = self._mailboxes(sections)
        names: dict[str, Iterable[str]] = {name: sections.blocks[name] for name in DROP_IN_SECTIONS}
        config = Config(
            service=service or ServiceConfig(),
            ledger=ledger,  # type: ignore[arg-type]  # None only if there are problems: then nobody sees it
            queues=MappingProxyType(queues),
            outgoing=MappingProxyType(outgoing),
            quarantine=quarantine,
            alerts=alerts,
            rules=MappingProxyType(rules),
            mailboxes=MappingProxyType(mailboxes),
            files=tuple(self._files),
            overrides=MappingProxyType(overrides),
            places=MappingProxyType(self._places),
        )
        self._problems += checks.references(config, names, self._broken)
        self._problems += checks.mailboxes(config)
        if any(problem.severity == "error" for problem in self._problems):
            raise self._errors()
        warnings = in_order([*self._problems, *lint.doubts(config)], self._files)
        return replace(config, warnings=warnings)

    def _errors(self) -> ConfigErrors:
        return ConfigErrors(in_order(self._problems, self._files))

    # --- files -----------------------------------------------------------------------------------------------------
    def _drop_ins(self, main: Node) -> list[Node]:
        include = main.entries.get("include")
        if include is None or include.value is None:
            return []
        found: dict[Path, None] = {}
        for pattern in include.value if isinstance(include.value, list) else [include]:
            if not isinstance(pattern.value, str) or not pattern.value:
                self._problems.append(
                    pattern.problem("expected a file name pattern such as conf.d/*.yaml, or a list of them")
                )
                continue
            found |= dict.fromkeys(self._matching(pattern, pattern.value))
        self._files += found
        trees = [read(file, self._problems) for file in found]
        return [tree for tree in trees if tree is not None]

    def _matching(self, node: Node, pattern: str) -> list[Path]:
        if not glob.has_magic(pattern):
            file = self._path.parent / pattern
            if file.exists():
                return [file]
            self._problems.append(node.problem("there is no such file"))
            return []
        # Not Path.glob: that one takes hidden files, such as an editor's, and no absolute pattern.
        names = sorted(glob.glob(pattern, root_dir=self._path.parent))  # noqa: PTH207
        files = [self._path.parent / name for name in names if self._path.parent / name != self._path]
        if not files:
            self._problems.append(node.problem("no file matches this pattern", "warning"))
        return files

    # --- blocks ----------------------------------------------------------------------------------------------------
    def _service(self, sections: Sections) -> ServiceConfig | None:
        node = sections.single("service") or Node({}, self._path, 1, 1, "service")
        written = plain(node)
        if self._environment is not None and isinstance(written, dict):
            if not is_name(self._environment):
                raise ConfigErrors(
                    [
                        node.problem(
                            f"the environment, from {ENVIRONMENT} or the command line, must be letters, digits, - and _, at most 40"
                        )
                    ]
                )
            written["environment"] = self._environment
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
            self._problems.append(node.problem("expected a block of keys"))
            return None
        type_ = node.value.get("type")
        if type_ is None:
            known = ", ".join((*also, *self._registry.known(kind)))
            self._problems.append(node.problem(f"this key is required; there is {known}", key="type"))
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
        problems += [
            wrong.problem("expected a number: YAML reads a bare yes, no, on, off, true or false as true or false")
            for wrong in _booleans_for_numbers(model, node, ())
        ]
        if problems:
            self._problems += problems
            self._broken.append((node, model))
            return None
        return block

    # --- mailboxes -------------------------------------------------------------------------------------------------
    def _mailboxes(self, sections: Sections) -> tuple[dict[str, SourceConfig], dict[str, Quarantine]]:
        defaults, locked = self._defaults(sections)
        top = sections.single("quarantine")
        mailboxes: dict[str, SourceConfig] = {}
        overrides: dict[str, Quarantine] = {}
        used: set[type[Component]] = set()
        for name, merged in inherit(sections.blocks["mailboxes"], defaults, self._problems).items():
            model = self._class("sources", merged)
            if model is None:
                continue
            used.add(model)
            own = sections.blocks["mailboxes"][name]
            if name in sections.drop_ins:
                self._refuse_locked(own, model, locked)
            known = keys_of(model)
            kept = merged.like(
                {key: node for key, node in merged.entries.items() if key in known or key in own.entries}
            )
            self._default_queue(kept, sections)
            mailbox = self._block(model, kept, ("mailboxes", name))
            if mailbox is None:
                continue
            mailboxes[name] = mailbox
            own_quarantine = kept.entries.get("quarantine")
            if own_quarantine is not None and own_quarantine.value is not None:
                whole = merge(own_quarantine, top) if top else own_quarantine
                override = self._quarantine(whole, ("mailboxes", name, "quarantine"))
                if override is not None:
                    overrides[name] = override
        self._check_defaults(defaults, locked, used)
        return mailboxes, overrides

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
        elif enabled is None or enabled.value is not False:
            message = (
                f"this key is required where there are several queues: it gets the mail for which no rule names one; there is {either(sorted(queues))}"
                if queues
                else "there is no queue for this mailbox's mail: define one below queues"
            )
            self._problems.append(mailbox.problem(message, key="default_queue"))


def _booleans_for_numbers(model: type[Any], node: Node, loc: tuple[str | int, ...]) -> list[Node]:
    """Nodes where a number is wanted and a boolean stands: pydantic would take ``port: yes`` as 1."""
    if isinstance(node.value, bool):
        wanted = annotations_at(model, loc)
        return [node] if wanted and any(arm in (int, float) for arm in wanted) and not {bool, Any} & set(wanted) else []
    children: Iterable[tuple[str | int, Node]] = ()
    if isinstance(node.value, dict):
        children = node.value.items()
    elif isinstance(node.value, list):
        children = enumerate(node.value)
    return [found for key, child in children for found in _booleans_for_numbers(model, child, (*loc, key))]
