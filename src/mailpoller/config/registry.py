"""Which plug-ins are installed: entry points, imported only when a file uses them.

The entry point's group is ``mailpoller.`` and the kind, its name the block's ``type``, its object the config class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

from mailpoller.config.problems import did_you_mean, either
from mailpoller.core.component import (
    DESTINATIONS,
    KINDS,
    BlobsConfig,
    Component,
    LedgerConfig,
    OutgoingConfig,
    SinkConfig,
)
from mailpoller.core.errors import ConfigError
from mailpoller.core.intake_config import IntakeSettings
from mailpoller.core.rule_config import RuleConfig
from mailpoller.core.source_config import SourceConfig

kinds = KINDS
"""``sources``, ``sinks``, ``rules``, ``ledgers``, ``outgoings``, ``blobs``, ``intakes``."""

BASES: Mapping[str, type[Component]] = {
    base.kind: base
    for base in (SourceConfig, SinkConfig, RuleConfig, LedgerConfig, OutgoingConfig, BlobsConfig, IntakeSettings)
} | {DESTINATIONS: SinkConfig}
"""The class that every config class of a kind extends."""

_NOUNS = {
    "sources": "source",
    "sinks": "sink",
    "rules": "rule",
    "ledgers": "ledger",
    "outgoings": "outgoing",
    "blobs": "store of blobs",
    "intakes": "intake",
    DESTINATIONS: "destination",
}
_GROUPS = (*KINDS, DESTINATIONS)


class Registry:
    """The plug-ins of this installation; ``extra`` adds or replaces some, for tests: ``(kind, type) -> class``."""

    def __init__(
        self, extra: Mapping[tuple[str, str], type[Component]] | None = None, *, installed: bool = True
    ) -> None:
        self._classes: dict[tuple[str, str], type[Component]] = dict(extra or {})
        self._installed = installed

    @cached_property
    def _entries(self) -> dict[tuple[str, str], EntryPoint]:
        if not self._installed:
            return {}
        # All groups in one call: each call of entry_points() reads the metadata of every installed package anew.
        found = entry_points()
        return {(kind, entry.name): entry for kind in _GROUPS for entry in found.select(group=f"mailpoller.{kind}")}

    def known(self, kind: str) -> list[str]:
        """The types of a kind, sorted. Imports nothing."""
        return sorted({type_ for of, type_ in (*self._entries, *self._classes) if of == kind})

    def load_plugin(self, kind: str, type_: str, also: Sequence[str] = ()) -> type[Component]:
        """The config class of a type. ``also``: further types to offer to who has named an unknown one.

        Raises :class:`ConfigError` if there is none (naming the closest), or if the package that promised it cannot
        keep its word.
        """
        if made := self._classes.get((kind, type_)):
            return made
        entry = self._entries.get((kind, type_))
        if entry is None:
            known = sorted({*self.known(kind), *also})
            hint = did_you_mean(type_, known) or (f"; there is {either(known)}" if known else "; none is installed")
            raise ConfigError(f"no {_NOUNS[kind]} is of this type{hint}")
        try:
            found = entry.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"the plug-in {entry.value} cannot be loaded: {error}") from error
        if not (isinstance(found, type) and issubclass(found, BASES[kind])):
            raise ConfigError(f"the plug-in {entry.value} is not a {BASES[kind].__name__}")
        self._classes[kind, type_] = found
        return found


INSTALLED = Registry()
"""What this Python has installed."""


def installed_now() -> frozenset[tuple[str, str, str]]:
    """Every plug-in with its package and version, read anew: what differs from an earlier answer was installed, or
    removed, since then, and this process does not have it. Reads files."""
    found = entry_points()
    return frozenset(
        (f"{kind} {entry.name}", entry.dist.name, entry.dist.version)
        for kind in _GROUPS
        for entry in found.select(group=f"mailpoller.{kind}")
        if entry.dist is not None
    )


def load_plugin(kind: str, type_: str) -> type[Component]:
    """:meth:`Registry.load_plugin` of what is installed."""
    return INSTALLED.load_plugin(kind, type_)


def known(kind: str) -> list[str]:
    """:meth:`Registry.known` of what is installed."""
    return INSTALLED.known(kind)
