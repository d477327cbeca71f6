"""The source ``ews``: a mailbox on an Exchange server of one's own, by Exchange Web Services (SOAP over HTTPS).

``config`` is the block in the YAML file, ``source`` connects and ``probe`` tries; ``session`` is what the engine
talks to, and leaves the work to ``folders``, ``listing``, ``download`` and ``settling``. They speak through
``client`` (one connection, one request at a time), which has ``authentication`` for logging in, ``soap`` for writing
requests and ``reader`` for answers.
"""

from __future__ import annotations

from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.ports import Source
from mailpoller.sources.ews.config import EwsSettings

__all__ = ["EwsConfig"]


class EwsConfig(EwsSettings):
    """A mailbox on an Exchange server of your own (2013 SP1 or later), by Exchange Web Services. Not for Exchange
    Online."""

    def build(self, name: str, runtime: Runtime) -> Source:
        """The source of the mailbox ``name``. Opens nothing; raises :class:`ConfigError` if what it needs is not
        installed."""
        try:
            from mailpoller.sources.ews.source import EwsSource
        except ImportError as error:
            raise ConfigError(f"type: ews needs {error.name}: pip install 'mailpoller[ews]'") from None
        return EwsSource(name, self, runtime)
