"""The source ``graph``: a mailbox in Exchange Online, by Microsoft Graph (https://learn.microsoft.com/graph/api/resources/message).

``config`` is the YAML block, ``source`` what connects, ``session`` what the engine talks to; ``listing`` knows delta queries, ``download``
fetches, ``settling`` carries out dispositions, ``folders`` finds folders by name. What the outgoing shares is in ``transport.graph``.
"""

from __future__ import annotations

from mailpoller.sources.graph.config import GraphConfig

__all__ = ["GraphConfig"]
