"""The block ``defaults``: what holds for every mailbox that says nothing else, and which keys a drop-in may not set."""

from __future__ import annotations

from typing import Any

from mailpoller.config import sections as table
from mailpoller.config.fields import keys_of
from mailpoller.config.merge import Sections
from mailpoller.config.node import Node
from mailpoller.config.problems import Problem
from mailpoller.config.registry import Registry
from mailpoller.config.sections import Section
from mailpoller.config.wording import unknown_key
from mailpoller.core.component import Block
from mailpoller.core.errors import ConfigError
from mailpoller.core.source_config import SourceConfig

_NEVER_DEFAULT = ("extends", "formerly", "default_for")


class Defaults:
    """``node``: the keys without ``locked``, or None. What is wrong is added to ``problems``."""

    def __init__(self, sections: Sections, registry: Registry, problems: list[Problem]) -> None:
        self.node: Node | None = None
        self._sections = sections
        self._registry = registry
        self._problems = problems
        self._locked: dict[str, Node] = {}
        if (node := sections.single("defaults")) is None:
            return
        if not isinstance(node.value, dict):
            problems.append(node.problem("expected a block of keys"))
            return
        entry = node.value.get("locked")
        for key in entry.value if entry and isinstance(entry.value, list) else [entry] if entry and entry.value else []:
            if isinstance(key.value, str):
                self._locked[key.value] = key
            else:
                problems.append(key.problem("expected the name of a key, or a list of them"))
        self.node = node.like({key: child for key, child in node.value.items() if key != "locked"})

    def check(self, used: set[type[Block]]) -> None:
        """Every key must be one that some source knows; sources that no mailbox uses are imported only if need be."""
        asked = dict(self.node.entries if self.node else {})
        for key in _NEVER_DEFAULT:
            if key in asked:
                self._problems.append(asked.pop(key).problem("this is about one mailbox and cannot be a default"))
        known = {key for model in used for key in keys_of(model)} | set(keys_of(SourceConfig))
        if any(key not in known for key in (*asked, *self._locked)):
            known |= self._keys_of(table.MAILBOXES)
        self._problems += [
            node.problem(unknown_key(key, [*sorted(known), "locked"]))
            for key, node in asked.items()
            if key not in known
        ]
        if any(key not in known for key in self._locked):
            known = known.union(*(self._keys_of(row) for row in table.TABLE if row.lockable))
        self._problems += [
            node.problem(unknown_key(key, sorted(known))) for key, node in self._locked.items() if key not in known
        ]

    def refuse_locked(self, row: Section[Any], name: str) -> None:
        """A block of a drop-in may set none of the keys that are locked."""
        if not row.lockable or (row.key, name) not in self._sections.drop_ins:
            return
        for key, node in self._sections.blocks[row.key][name].entries.items():
            if key in self._locked:
                self._problems.append(
                    node.problem(f"this key is locked by {self._locked[key].place()}; remove it here")
                )

    def _keys_of(self, row: Section[Any]) -> set[str]:
        """Every key of every type of a section."""
        known: set[str] = set()
        for type_ in self._registry.known(row.kind):
            try:
                known |= set(keys_of(self._registry.load_plugin(row.kind, type_)))
            except ConfigError:
                continue  # a broken plug-in that nobody uses
        return known
