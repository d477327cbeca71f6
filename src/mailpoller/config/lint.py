"""What is allowed and yet probably wrong: warnings that need no network."""

from __future__ import annotations

from collections.abc import Iterator

from mailpoller.config.model import Config
from mailpoller.config.problems import Problem


def doubts(config: Config) -> Iterator[Problem]:
    """A warning for each."""
    yield from ()
