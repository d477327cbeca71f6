"""What every kind of rule has in its block."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from mailpoller.core.component import Component, Runtime
from mailpoller.core.ports import Rule
from mailpoller.core.source_config import SourceConfig


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
