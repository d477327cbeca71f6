"""Config classes for parts that are there already: fakes take the road of every plug-in."""

from __future__ import annotations

from typing import Any, TypeVar

from mailpoller.core.component import Component, Runtime

Kind = TypeVar("Kind", bound=Component)


def given(kind: type[Kind], part: object, **settings: Any) -> Kind:
    """A block of this kind with these settings, of which ``part`` is built."""

    def build(self: Component, name: str, runtime: Runtime) -> object:
        return part

    return type(kind.__name__, (kind,), {"build": build}).model_validate({"type": "fake", **settings})
