"""Extras: optional packages that some blocks need, and how they are installed."""

from __future__ import annotations

from mailpoller.core.errors import ConfigError
from mailpoller.core.record import record


@record
class Extra:
    """What a block needs as it is written, and what need not be installed.

    ``key``: the key that asks for it, in the block that says so. ``module``: what is imported. ``package``: what pip
    installs, such as ``mailpoller[oauth]``.
    """

    key: str
    module: str
    package: str

    def __str__(self) -> str:
        return f"needs {self.module}: pip install '{self.package}'"


def without(error: ModuleNotFoundError) -> ConfigError:
    """A module that is not there, of which no block had said that it needs it: no bug, and mended by installing it."""
    return ConfigError(f"needs {error.name or 'a module'}, which is not installed in this Python")
