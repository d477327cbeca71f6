"""From files to a checked :class:`~mailpoller.config.checked.Config`: read, join, merge, validate, cross-check."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from mailpoller.config import checks, lint
from mailpoller.config import sections as table
from mailpoller.config.checked import At, Config
from mailpoller.config.defaults import Defaults
from mailpoller.config.destinations import destinations
from mailpoller.config.fields import keys_of
from mailpoller.config.files import AS_THEY_ARE, Instead, read_files
from mailpoller.config.identities import Chosen, by_department, is_off, of_department, usual, with_outgoing
from mailpoller.config.idle import without_effect
from mailpoller.config.merge import Sections, dangling, inherit, is_name, join_files, merge
from mailpoller.config.merge import orphans as orphans_of
from mailpoller.config.model import Quarantine, QuarantineStoreConfig, ServiceConfig
from mailpoller.config.node import Node, plain
from mailpoller.config.partial import partial
from mailpoller.config.problems import ConfigErrors, Problem, either, in_order
from mailpoller.config.registry import INSTALLED, Registry
from mailpoller.config.sections import Section
from mailpoller.config.sparing import spared
from mailpoller.config.wording import REQUIRED, is_lack, validate
from mailpoller.core.component import DESTINATIONS, Block
from mailpoller.core.errors import ConfigError
from mailpoller.core.rule_config import RuleConfig
from mailpoller.core.source_config import SourceConfig

ENVIRONMENT = "MAILPOLLER_ENVIRONMENT"
"""The variable that overrules ``service.environment``."""

_BAD_ENVIRONMENT = f"from {ENVIRONMENT} or the command line, must be letters, digits, - and _, at most 40"
_EMPTY_QUARANTINE = (
    "nothing is written: leave this key away to keep the quarantine that holds without it, "
    "or write what differs here, such as {type: queue, queue: NAME}"
)


def load(
    path: Path,
    *,
    environment: str | None = None,
    registry: Registry = INSTALLED,
    sparing: bool = False,
    instead: Instead = AS_THEY_ARE,
) -> Config:
    """Read ``path`` and its drop-ins, and check everything that can be checked without a network.

    ``environment`` overrules ``MAILPOLLER_ENVIRONMENT``, which overrules ``service.environment``. Relative patterns in
    ``include`` start at the file's own directory. Raises :class:`ConfigErrors` with every problem found, warnings
    among them; with ``sparing`` not if all errors are those of single mailboxes, and another one is right: see
    :attr:`Config.wrong`. Secrets are not looked at (:meth:`Config.missing_secrets`). ``instead`` of the files: this.
    """
    return _Loading(path, environment, registry).run(sparing=sparing, instead=instead)


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
        self._incomplete: dict[str, tuple[Problem, ...]] = {}
        self._usual: Chosen | None = None
        self._chosen: dict[At, str] = {}
        self._around: dict[str, Block] = {}
        self._unmade: dict[str, tuple[Problem, ...]] = {}
        self._written: dict[str, Node] = {}

    def run(self, *, sparing: bool, instead: Instead) -> Config:
        files = read_files(self._path, self._problems, instead)
        if files is None:
            raise ConfigErrors(self._problems)
        self._files, self._complete = files.names, files.complete
        sections = join_files(files.main, files.drop_ins, self._problems)
        defaults = Defaults(sections, self._registry, self._problems)
        outgoings = inherit(sections, None, self._problems, table.OUTGOING.key)
        self._usual = usual(outgoings, self._problems)
        made: dict[str, Any] = {}
        overrides: dict[str, Quarantine] = {}
        for row in table.TABLE:
            if row is table.MAILBOXES:
                mailboxes, overrides = self._mailboxes(sections, defaults)
                made[row.key] = MappingProxyType(mailboxes)
            elif row is table.OUTGOING:
                made[row.key] = MappingProxyType(self._outgoings(sections, defaults, outgoings))
            elif row.many:
                made[row.key] = MappingProxyType(self._named(sections, defaults, row))
            elif row.shape == "block":
                made[row.key] = self._single(sections, row, made)
        made[table.SERVICE.key] = made[table.SERVICE.key] or ServiceConfig()
        made[table.QUEUES.key] = MappingProxyType(
            {**made[table.QUEUES.key], **self._destinations(made[table.RULES.key])}
        )
        config = Config(
            MappingProxyType(made),  # a section that is wrong is missing in it: then nobody sees it
            files=self._files,
            overrides=MappingProxyType(overrides),
            around=MappingProxyType(self._around),
            incomplete=MappingProxyType(self._incomplete),
            chosen=MappingProxyType(self._chosen),
            places=MappingProxyType(self._places),
        )
        if self._complete:
            self._problems += checks.references(config, sections.names, self._broken)
        self._problems += checks.disabled(config, (name for name, node in outgoings.items() if is_off(node)))
        self._problems += checks.agreement(config)
        findings = list(lint.findings(config))
        self._problems += [one for one in findings if one.severity == "error"]
        if errors := [problem for problem in in_order(self._problems, self._files) if problem.severity == "error"]:
            nodes = sections.blocks[table.MAILBOXES.key] | self._written
            found = spared(config, errors, self._unmade, nodes) if sparing and self._complete else None
            if found is None:
                raise ConfigErrors(in_order(self._problems, self._files), mailboxes=len(sections.names["mailboxes"]))
            config, findings = found, list(lint.findings(found))
            self._problems = [problem for problem in self._problems if problem.severity != "error"]
        warnings = in_order([*self._problems, *findings, *lint.doubts(config), *without_effect(config)], self._files)
        return replace(config, warnings=warnings)

    # --- blocks ----------------------------------------------------------------------------------------------------
    def _single(self, sections: Sections, row: Section[Any], made: Mapping[str, Any]) -> Block | None:
        node = sections.single(row.key)
        if row.around is not None:
            node = self._inside(row, row.around, node)
        if node is None:
            if row.left_out is None:
                return None
            at = Node(None, self._path, 1, 1, row.key)
            node = at.like({key: at.like(value) for key, value in row.left_out(made).items()})
        return self._made(row, node, (row.key,), self._here(node) if row is table.SERVICE else None)

    def _inside(self, row: Section[Any], around: type[Block], node: Node | None) -> Node | None:
        """The block of a section that may stand inside of another one, if there is one; that one is made."""
        inside, outer = _parted(around, node)
        if outer is not None:
            made, problems = validate(around, outer, plain(outer))
            self._problems += problems
            if made is not None:
                self._around[row.key] = made
        return inside

    def _here(self, service: Node) -> Any:
        """The service's keys, with the environment from the command line or the environment."""
        written = plain(service)
        if self._environment is not None and isinstance(written, dict):
            if is_name(self._environment):
                written["environment"] = self._environment
            else:
                self._problems.append(service.problem(_BAD_ENVIRONMENT, key="environment"))
        return written

    def _named(self, sections: Sections, defaults: Defaults, row: Section[Any]) -> dict[str, Block]:
        made: dict[str, Block] = {}
        for name, node in sections.blocks[row.key].items():
            if row.usual_type and "type" not in node.entries:
                node = node.like(node.entries | {"type": node.like(row.usual_type)})
            defaults.refuse_locked(row, name)
            block = self._made(row, node, (row.key, name))
            if block is not None:
                made[name] = block
        return made

    def _made(
        self, row: Section[Any], node: Node, at: At, written: Any = None, identity: Chosen | None = None
    ) -> Block | None:
        model = self._class(row, node) if row.kind else row.model
        if model is None:
            return None
        node = self._identified(model, node, at, identity or self._usual)
        return cast("Block | None", self._block(model, node, at, written))

    def _identified(self, model: type[Block], node: Node, at: At, chosen: Chosen | None) -> Node:
        """The block with the outgoing that holds for it, if it has such a key and names none."""
        if chosen is None or (found := with_outgoing(model, node, chosen)) is node:
            return node
        self._chosen[at] = chosen.why
        return found

    def _destinations(self, rules: Mapping[str, RuleConfig]) -> dict[str, Block]:
        """The queues that only rules name."""
        found: dict[str, Block] = {}
        for name, type_, written in destinations(rules, self._places):
            at = (table.QUEUES.key, name)
            try:
                model = self._registry.load_plugin(DESTINATIONS, type_)
            except ConfigError as error:
                self._problems.append(written.problem(str(error)))
                continue
            node = self._identified(model, written, at, self._usual)
            if (queue := self._block(model, node, at)) is not None:
                found[name] = queue
        return found

    def _outgoings(self, sections: Sections, defaults: Defaults, merged: Mapping[str, Node]) -> dict[str, Block]:
        """Those that can be made; one that is disabled may lack what it needs, and is a template then."""
        row, orphans = table.OUTGOING, orphans_of(sections, table.OUTGOING.key)
        if self._complete:
            self._problems += [
                node.problem(dangling(row.noun, str(node.value), sections.names[row.key])) for node in orphans.values()
            ]
        made: dict[str, Block] = {}
        for name, node in merged.items():
            defaults.refuse_locked(row, name)
            before = len(self._problems)
            if is_off(node) and "type" not in node.entries:
                continue
            model = self._class(row, node)
            if model is not None:
                own, known = sections.blocks[row.key][name].entries, keys_of(model)
                fitted = node.like({key: child for key, child in node.entries.items() if key in known or key in own})
                if (block := self._block(model, fitted, (row.key, name))) is not None:
                    made[name] = block
            if is_off(node) or name in orphans:
                self._problems[before:] = [found for found in self._problems[before:] if not is_lack(found)]
        return made

    def _class(self, row: Section[Any], node: Node) -> type[Block] | None:
        """What a block's ``type`` names."""
        if not isinstance(node.value, dict):
            self._problems.append(node.problem("expected a block of keys: type, and what that needs"))
            return None
        type_ = node.value.get("type")
        if type_ is None:
            known = either(sorted((*row.own_types, *self._registry.known(row.kind))))
            self._problems.append(node.problem(f"{REQUIRED}; there is {known}", key="type"))
            return None
        if not isinstance(type_.value, str):
            self._problems.append(type_.problem("expected text"))
            return None
        if type_.value in row.own_types:
            return row.model
        try:
            return self._registry.load_plugin(row.kind, type_.value, row.own_types)
        except ConfigError as error:
            self._problems.append(type_.problem(str(error)))
            return None

    def _block(self, model: type[Any], node: Node, at: At, written: Any = None) -> Any:
        self._places[at] = node
        block, problems = validate(model, node, plain(node) if written is None else written)
        if problems:
            self._problems += problems
            self._broken.append((node, model))
            return None
        return block

    # --- mailboxes -------------------------------------------------------------------------------------------------
    def _mailboxes(
        self, sections: Sections, defaults: Defaults
    ) -> tuple[dict[str, SourceConfig], dict[str, Quarantine]]:
        row = table.MAILBOXES
        top, _ = _parted(QuarantineStoreConfig, sections.single(table.QUARANTINE.key))
        orphans = orphans_of(sections)
        if self._complete:
            self._problems += [
                node.problem(dangling(row.noun, str(node.value), sections.names[row.key])) for node in orphans.values()
            ]
        mailboxes: dict[str, SourceConfig] = {}
        overrides: dict[str, Quarantine] = {}
        used: set[type[Block]] = set()
        inherited = inherit(sections, defaults.node, self._problems)
        departments = by_department(inherited)
        for name, merged in inherited.items():
            before = len(self._problems)
            self._written[name] = self._places[row.key, name] = merged
            disabled = is_off(merged)
            defaults.refuse_locked(row, name)
            model = SourceConfig if disabled and "type" not in merged.entries else self._class(row, merged)
            if model is not None:
                used.add(model)
                fitted = self._fitted(name, merged, model, sections)
                chosen = of_department(fitted, departments) or self._usual
                node = self._identified(model, fitted, (row.key, name), chosen)
                mailbox = self._block(model, node, (row.key, name))
                override = self._override(name, node, top)
                if disabled and self._may_lack(name, before) and mailbox is None:
                    mailbox = partial(model, plain(node))
                if mailbox is not None:
                    mailboxes[name] = mailbox
                    if override is not None:
                        overrides[name] = override
            if name in orphans:  # whatever is missing may stand in what it means to extend
                self._problems[before:] = [found for found in self._problems[before:] if not is_lack(found)]
            if name not in mailboxes:
                self._unmade[name] = tuple(one for one in self._problems[before:] if one.severity == "error")
        defaults.check(used)
        return mailboxes, overrides

    def _may_lack(self, name: str, before: int) -> bool:
        """Put aside what a disabled mailbox lacks; True if nothing else was wrong with it."""
        found = self._problems[before:]
        self._problems[before:] = [problem for problem in found if not is_lack(problem)]
        if lacking := in_order(filter(is_lack, found), self._files):
            self._incomplete[name] = lacking
        return len(self._problems) == before

    def _fitted(self, name: str, merged: Node, model: type[Block], sections: Sections) -> Node:
        """The mailbox without what it inherits and its type does not have, and with its default queue."""
        own, known = sections.blocks["mailboxes"][name].entries, keys_of(model)
        if model is SourceConfig:
            own = {}  # of what type it is, says who extends it, and only then its keys can be judged
        node = merged.like({key: child for key, child in merged.entries.items() if key in known or key in own})
        self._default_queue(node, sections)
        return node

    def _override(self, name: str, mailbox: Node, top: Node | None) -> Quarantine | None:
        """The mailbox's own quarantine, merged into the top-level one; None if it has none."""
        own = mailbox.entries.get("quarantine")
        if own is None:
            return None
        if own.value is None:
            self._problems.append(own.problem(_EMPTY_QUARANTINE))
            return None
        own, outer = _parted(QuarantineStoreConfig, own)
        for key, child in outer.entries.items() if outer is not None else ():
            self._problems.append(child.problem(f"{key} is about all mailboxes: write it below quarantine itself"))
        if own is None:
            return None
        at = (table.MAILBOXES.key, name, "quarantine")
        named = mailbox.entries.get(table.OUTGOING.key)
        identity = Chosen(str(named.value), named, f"that of the mailbox {name}") if named and named.value else None
        whole = merge(own, top) if top else own
        return cast("Quarantine | None", self._made(table.QUARANTINE, whole, at, identity=identity))

    def _default_queue(self, mailbox: Node, sections: Sections) -> None:
        """Where there is one queue, it is the default; where there are several, a mailbox that is polled must
        choose."""
        queues, enabled = sections.blocks["queues"], mailbox.entries.get("enabled")
        written = mailbox.entries.get("default_queue")
        if written is not None and written.value is not None:
            return
        if len(queues) == 1:
            mailbox.entries["default_queue"] = mailbox.like(next(iter(queues)))
        elif self._complete and (enabled is None or enabled.value is not False):
            message = (
                f"{REQUIRED} where there are several queues: it gets the mail for which no rule names one; there is "
                f"{either(sorted(queues))}"
                if queues
                else "there is no queue for this mailbox's mail: define one below queues"
            )
            self._problems.append(mailbox.problem(message, key="default_queue"))


def _parted(around: type[Block], node: Node | None) -> tuple[Node | None, Node | None]:
    """A block, and the one that it stands inside of: that is one without a ``type``, and with a key of ``around``."""
    if node is None or not isinstance(node.value, dict) or "type" in node.entries:
        return node, None
    if not node.entries.keys() & {table.INSIDE, *keys_of(around)}:
        return node, None
    inside = node.entries.get(table.INSIDE)
    if inside is not None and inside.value is None:
        inside = None
    return inside, node.like({key: child for key, child in node.entries.items() if key != table.INSIDE})
