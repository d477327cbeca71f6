"""The source ``graph``: a mailbox in Exchange Online, by Microsoft Graph
(https://learn.microsoft.com/graph/api/resources/message).

``config`` is the YAML block, ``source`` what connects, ``session`` what the engine talks to; ``listing`` knows delta
queries, ``download`` fetches, ``settling`` carries out dispositions, ``folders`` finds folders by name. What the
outgoing shares is in ``remote.graph``.
"""

from __future__ import annotations

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Source
from mailpoller.remote.graph.address import check_installed
from mailpoller.sources.graph.config import GraphSettings

__all__ = ["GraphConfig"]


class GraphConfig(GraphSettings):
    """A mailbox in Exchange Online (Microsoft 365), by Microsoft Graph. The application needs ``Mail.ReadWrite``."""

    def build(self, name: str, runtime: Runtime) -> Source:
        """The source of the mailbox ``name``. Opens nothing; raises :class:`ConfigError` if what it needs is not
        installed."""
        from mailpoller.sources.graph.source import GraphSource

        check_installed()
        return GraphSource(name, self, runtime)
