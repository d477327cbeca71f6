"""The intake of type ``http``: programs post entries to a Unix socket of this machine, and have the answer at once.

``listener`` answers, ``request`` reads. Nothing but the block is imported unless such an intake is built.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.extras import Extra
from mailpoller.core.intake_config import IntakeSettings
from mailpoller.core.ports import EntryListener

__all__ = ["HttpIntakeConfig"]

LONGEST_PATH = 107
"""Octets of a socket's path (unix(7))."""

Named = Annotated[str, StringConstraints(min_length=1, max_length=64)]


def _short(path: Path) -> Path:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ValueError(f"the path of a socket has {LONGEST_PATH} octets at most")
    return path


class HttpIntakeConfig(IntakeSettings):
    """HTTP on a Unix socket of this machine: programs post entries, and have the answer at once."""

    listens = True

    type: Literal["http"]
    socket: Annotated[Path, AfterValidator(_short)]
    """The socket. Made, with its directory, when the service starts."""
    users: list[Named] = Field(default_factory=list)
    """The Unix users that may send, beside root, as the kernel tells them."""
    groups: list[Named] = Field(default_factory=list)
    """The Unix groups whose members may send. Without ``users`` and ``groups`` it is the service's group."""

    def extras(self) -> Iterator[Extra]:
        """h11 speaks HTTP."""
        yield Extra("type", "h11", "mailpoller[http]")

    def build(self, name: str, runtime: Runtime) -> EntryListener:
        """The socket. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.intakes.http.listener import HttpIntake
        except ImportError as error:
            raise ConfigError(f"type: http needs {error.name}: pip install 'mailpoller[http]'") from None
        return HttpIntake(self.socket, frozenset(self.users), frozenset(self.groups))
