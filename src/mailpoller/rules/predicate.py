"""A condition made into a Python closure, once, so that asking a message costs about a microsecond.

A predicate answers with the words in which it holds (constants, never a piece of the message), and with "" if it
does not. What can be told from the header is asked first, so that a body is parsed only when it decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mailpoller.core.message import Message
from mailpoller.core.record import record


@record
class Predicate:
    """A condition, compiled.

    ``holds``: the words in which it holds of a message, or "". ``says``: what it asks, in words.
    ``needs_body``: it may look below the header. ``asks_class``: it holds of a message for its class, whatever else.
    ``asks_forced``: it asks for ``force_default_queue``.
    """

    holds: Callable[[Message], str]
    says: str
    needs_body: bool = False
    asks_class: bool = False
    asks_forced: bool = False


def all_of(parts: Sequence[Predicate]) -> Predicate:
    """Holds where each of them does."""
    if len(parts) == 1:
        return parts[0]
    asked = [part.holds for part in _cheapest_first(parts)]

    def holds(message: Message) -> str:
        reasons = []
        for ask in asked:
            if not (why := ask(message)):
                return ""
            reasons.append(why)
        return ", ".join(reasons)

    return Predicate(
        holds,
        ", ".join(part.says for part in parts),
        any(part.needs_body for part in parts),
        any(part.asks_class for part in parts),
        any(part.asks_forced for part in parts),
    )


def any_of(parts: Sequence[Predicate]) -> Predicate:
    """Holds where one of them does."""
    asked = [part.holds for part in _cheapest_first(parts)]

    def holds(message: Message) -> str:
        for ask in asked:
            if why := ask(message):
                return why
        return ""

    return Predicate(
        holds,
        f"({' or '.join(part.says for part in parts)})",
        any(part.needs_body for part in parts),
        all(part.asks_class for part in parts),
        any(part.asks_forced for part in parts),
    )


def not_(part: Predicate) -> Predicate:
    """Holds where it does not."""
    ask, says = part.holds, f"not ({part.says})"
    return Predicate(lambda message: "" if ask(message) else says, says, part.needs_body, asks_forced=part.asks_forced)


def _cheapest_first(parts: Sequence[Predicate]) -> list[Predicate]:
    return sorted(parts, key=lambda part: part.needs_body)
