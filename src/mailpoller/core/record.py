"""The decorator of the small immutable types that every message is made of a dozen of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A dataclass with slots, compared and hashed by its fields, whose fields are never assigned again.

    The type checker holds everybody to that, and not the class itself: ``frozen=True`` makes the creation of an object
    three to four times as dear, which was a tenth of all processor time per message.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
