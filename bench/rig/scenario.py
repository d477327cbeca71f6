"""What a scenario of a hostile server is, and all of them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rig.rude import Said, Wire

Kind = Literal["imap", "pop3", "ews", "smtp"]
HUGE = 8 << 20
"""Octets of one line: the largest that a reader has ever taken."""
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """``honest``: what an honest server sends, only much of it; it must pass, and its processor time is not judged.
    ``quiet``: it stays within what is anybody's right, and need not be told of."""

    name: str
    kind: Kind
    serve: Callable[[Wire], None]
    honest: bool = False
    quiet: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


SCENARIOS: dict[str, Scenario] = {}


def scenario(kind: Kind, *, honest: bool = False, quiet: bool = False, **settings: Any) -> Callable[..., Any]:
    def enter(serve: Callable[[Wire], None]) -> Callable[[Wire], None]:
        name = serve.__name__.replace("_", "-")
        SCENARIOS[name] = Scenario(name, kind, serve, honest, quiet, settings)
        return serve

    return enter


def after(first: bytes, octets: bytes) -> Said:
    def flood(wire: Wire, tag: str, arguments: str) -> None:
        wire.say(first)
        wire.flood(octets)

    return flood
