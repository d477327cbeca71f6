"""The decorator of the small immutable types that every message is made of a dozen of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A dataclass with slots, compared and hashed by its fields, whose fields are never assigned again.

    The type checker holds everybody to that, and not the class itself: ``frozen=True`` makes the creation of an object
    three to four times as dear, which was a tenth of all processor time per message. What compares, hashes and shows
    it is made when it is first needed: for most types never, and to make it for all was a sixth of every start.
    """
    made = dataclass(slots=True, eq=False, repr=False)(cls)
    own = cls.__dict__
    compared = "".join(f"self.{one.name}," for one in fields(made) if one.compare)  # type: ignore[arg-type]
    if own.get("__hash__") is None:
        _later(made, "__hash__", "self", f"return hash(({compared}))")
    if "__eq__" not in own:
        same = f"({compared}) == ({compared.replace('self.', 'other.')})"
        _later(made, "__eq__", "self, other", f"return {same} if other.__class__ is self.__class__ else NotImplemented")
    if "__repr__" not in own:
        shown = ", ".join(f"{one.name}={{self.{one.name}!r}}" for one in fields(made) if one.repr)  # type: ignore[arg-type]
        _later(made, "__repr__", "self", f"return f'{{type(self).__qualname__}}({shown})'")
    return made


def _later(made: type, name: str, parameters: str, body: str) -> None:
    """Give the class a method that is compiled when it is first called."""

    def first(self: Any, *others: Any) -> Any:
        namespace: dict[str, Callable[..., Any]] = {}
        exec(f"def {name}({parameters}):\n {body}\n", {}, namespace)  # noqa: S102 (as dataclasses does it)
        setattr(made, name, namespace[name])
        return namespace[name](self, *others)

    setattr(made, name, first)
