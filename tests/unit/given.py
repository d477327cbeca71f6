"""Config classes for parts that are there already: fakes take the road of every plug-in."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import PrivateAttr

from mailpoller.core.component import Component, Runtime

Kind = TypeVar("Kind", bound=Component)


def given(kind: type[Kind], part: object, **settings: Any) -> Kind:
    """A block of this kind with these settings, of which ``part`` is built."""
    block = _class_for(kind).model_validate({"type": "fake", **settings})
    block._part = part  # type: ignore[attr-defined]
    return block


@cache
def _class_for(kind: type[Kind]) -> type[Kind]:
    """One class for all parts: it takes milliseconds to make one, and what is remembered of classes stays for ever."""

    def build(self: Component, name: str, runtime: Runtime) -> object:
        return self._part  # type: ignore[attr-defined]

    held = {"build": build, "_part": PrivateAttr(), "__annotations__": {"_part": object}}
    return type(kind.__name__, (kind,), held)
