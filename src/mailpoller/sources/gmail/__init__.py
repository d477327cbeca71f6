"""The source ``gmail``: a mailbox of Gmail or Google Workspace, by the Gmail API (version 1).

``config`` holds the YAML block, ``source`` what connects, ``session`` what the engine talks to. ``client`` asks one
mailbox in turn, ``quota`` says when it is our turn, ``errors`` what a refusal means. ``labels``, ``listing``,
``download`` with ``encoded``, and ``settling`` are what a session does; ``probe`` tries it step by step.
"""

from __future__ import annotations

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Source
from mailpoller.sources.gmail.config import GmailSettings

__all__ = ["GmailConfig"]


class GmailConfig(GmailSettings):
    """A mailbox of Gmail or Google Workspace, by the Gmail API. The token needs the scope ``gmail.modify``."""

    def build(self, name: str, runtime: Runtime) -> Source:
        """The source of the mailbox ``name``. Opens nothing; raises :class:`ConfigError` if what it needs is not
        installed."""
        from mailpoller.sources.gmail.source import GmailSource

        return GmailSource(name, self, runtime)
