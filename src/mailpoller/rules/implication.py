"""What follows from conditions alone, whatever the mail: that one can never hold, or holds wherever another does.

Nothing here is complete: what is said is true, and much that is true is not said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mailpoller.rules.condition import Condition
from mailpoller.rules.quantities import SizeTest
from mailpoller.rules.texts import AddressTest, TextTest

Atom = tuple[str, Any]
"""A key of a condition, one inside another after a colon, and what is asked there."""

MOST_PAIRS = 10_000
"""Pairs of atoms that are compared; of larger conditions nothing is said."""
_ONE_VALUE = ("subject",)


def atoms(condition: Condition) -> Iterator[Atom]:
    """What must all hold where ``condition`` does: its keys, and those of the conditions below ``all``. What stands
    below ``any`` is one of them, as it is; what must not hold is ``not``."""
    for name in type(condition).model_fields:
        value = getattr(condition, name)
        if value is None:
            continue
        if name in ("header", "event", "fields"):
            yield from ((f"{name}:{key.lower() if name == 'header' else key}", test) for key, test in value.items())
        elif name == "all":
            for inner in value:
                yield from atoms(inner)
        elif name == "any":
            yield ("any", tuple(value))
        elif name in ("none", "not_"):
            yield from (("not", inner) for inner in (value if name == "none" else [value]))
        else:
            yield name, value


def contradiction(condition: Condition) -> str:
    """Why ``condition`` can never hold, in words; "" if nothing says so."""
    asked = list(atoms(condition))
    if len(asked) ** 2 > MOST_PAIRS:
        return ""
    for key, value in asked:
        if key == "not" and all(_follows(asked, atom) for atom in atoms(value)):
            return "what must not hold is what must hold"
        if key == "any" and all(contradiction(inner) for inner in value):
            return "none of what stands below any can hold"
        for other_key, other in asked:
            if other_key == key and value is not other and _exclusive(key, value, other):
                return f"two tests of {key.rstrip('_')} exclude each other"
    return ""


def covers(wide: Condition, narrow: Condition) -> bool:
    """True if ``wide`` holds wherever ``narrow`` does, as far as that can be told."""
    asked, wanted = list(atoms(narrow)), list(atoms(wide))
    return len(asked) * len(wanted) <= MOST_PAIRS and all(_follows(asked, atom) for atom in wanted)


def _follows(asked: list[Atom], atom: Atom) -> bool:
    """True if one of what is asked makes ``atom`` hold."""
    key, value = atom
    if key == "any":
        return any(all(_follows(asked, one) for one in atoms(inner)) for inner in value) or any(
            other_key == "any" and all(any(covers(wide, inner) for wide in value) for inner in other)
            for other_key, other in asked
        )
    return any(other_key == key and _implies(other, value) for other_key, other in asked)


def _implies(narrow: Any, wide: Any) -> bool:
    """True if the test ``wide`` passes wherever ``narrow`` does; both are of one key."""
    if narrow == wide:
        return True
    if isinstance(narrow, Condition) and isinstance(wide, Condition):  # of what must not hold
        return covers(narrow, wide)
    if isinstance(narrow, TextTest) and isinstance(wide, TextTest):
        return _text_implies(narrow, wide)
    if isinstance(narrow, SizeTest) and isinstance(wide, SizeTest):
        return _above(narrow) >= _above(wide) and _below(narrow) <= _below(wide)
    if isinstance(narrow, tuple) and isinstance(wide, tuple):  # classes, departments
        return set(narrow) <= set(wide)
    return False


def _above(test: SizeTest) -> float:
    return -1 if test.above is None else test.above


def _below(test: SizeTest) -> float:
    return float("inf") if test.below is None else test.below


def _text_implies(narrow: TextTest, wide: TextTest) -> bool:
    if wide.case == "sensitive" and narrow.case != "sensitive":
        return False
    said = {name for name in wide.asks if getattr(wide, name) is not None}
    if said == {"contains"}:
        given = narrow.contains or narrow.equals
        return given is not None and all(any(_in(part, text, wide) for part in wide.contains or ()) for text in given)
    if said == {"domain"} and isinstance(wide, AddressTest) and isinstance(narrow, AddressTest):
        return narrow.domain is not None and all(
            any(_below_domain(one, other) for other in wide.domain or ()) for one in narrow.domain
        )
    if len(said) == 1:
        (name,) = said
        mine, other = getattr(wide, name), getattr(narrow, name)
        if name in ("equals", "matches") and other is not None and narrow.case == wide.case:
            return set(other) <= set(mine)
    return False


def _in(part: str, text: str, wide: TextTest) -> bool:
    return part in text if wide.case == "sensitive" else part.casefold() in text.casefold()


def _below_domain(one: str, other: str) -> bool:
    one, other = one.strip(".").lower(), other.strip(".").lower()
    return one == other or one.endswith(f".{other}")


def _exclusive(key: str, one: Any, other: Any) -> bool:
    """True if no mail passes both tests of one key."""
    if isinstance(one, bool) and isinstance(other, bool):
        return one is not other
    if key == "class_":
        return not set(one) & set(other)
    if key == "importance":
        return bool(one != other)
    if isinstance(one, SizeTest) and isinstance(other, SizeTest):
        return min(_below(one), _below(other)) - max(_above(one), _above(other)) < 2
    if key in _ONE_VALUE and isinstance(one, TextTest) and isinstance(other, TextTest):
        equal = one.equals is not None and other.equals is not None
        return equal and not {text.casefold() for text in one.equals or ()} & {
            text.casefold() for text in other.equals or ()
        }
    return isinstance(one, TextTest) and isinstance(other, TextTest) and {one.exists, other.exists} == {True, False}
