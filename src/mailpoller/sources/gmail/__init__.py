"""The source ``gmail``: a mailbox of Gmail or Google Workspace, by the Gmail API (version 1).

``config`` holds the YAML block, ``source`` what connects, ``session`` what the engine talks to. ``client`` asks one mailbox in turn,
``quota`` says when it is our turn, ``errors`` what a refusal means. ``labels``, ``listing``, ``download`` with ``encoded``, and
``settling`` are what a session does; ``probe`` tries it step by step.
"""

from __future__ import annotations

from mailpoller.sources.gmail.config import GmailConfig

__all__ = ["GmailConfig"]
