"""What every kind of rule has in its block."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from mailpoller.core.component import Component, Runtime
from mailpoller.core.ports import Rule
from mailpoller.core.record import record
from mailpoller.core.source_config import SourceConfig


@record
class Destination:
    """Where a rule brings mail by itself: a queue that nobody else names, made of what the rule says.

    ``name``: the queue's; equal destinations have equal names, and it is none that a configuration can write.
    ``keys``: where the rule says it. ``type``: the plug-in of the kind ``destinations`` that it is built by; ``block``:
    the keys of its block.
    """

    name: str
    keys: tuple[str, ...]
    type: str
    block: Mapping[str, Any]


class RuleConfig(Component):
    """A rule: what judges a message."""

    kind: ClassVar[str] = "rules"
    type: str = "match"
    name: str
    """The rule's name, by which mailboxes ask for it."""

    # What ``check`` asks, to tell of rules that can have no effect. Who cannot tell leaves them as they are.
    @property
    def ends_judging(self) -> bool:
        """True if no rule is asked after it wherever it matches."""
        return False

    @property
    def asks_forced(self) -> bool | None:
        """True if it is asked in a mailbox with ``force_default_queue``; None: that cannot be told yet."""
        return None

    @property
    def makes_fields(self) -> Collection[str]:
        """The fields of the event that it may set."""
        return ()

    @property
    def destinations(self) -> Sequence[Destination]:
        """Where it brings mail by itself."""
        return ()

    def covers(self, other: RuleConfig) -> bool:
        """True if it matches wherever ``other`` does; False if that is not known."""
        return False

    def unmet(self, mailboxes: Sequence[SourceConfig], fields: Collection[str]) -> str:
        """Why it matches in none of these mailboxes, in words; "" if nothing says so. ``fields``: those that rules
        before it may set."""
        return ""

    def build(self, name: str, runtime: Runtime) -> Rule:
        """The rule. Raises :class:`ConfigError` if it cannot ever work."""
        raise NotImplementedError
