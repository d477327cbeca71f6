"""The source ``ews``: a mailbox on an Exchange server of one's own, by Exchange Web Services (SOAP over HTTPS).

``config`` is the block in the YAML file, ``source`` connects and ``probe`` tries; ``session`` is what the engine talks to, and
leaves the work to ``folders``, ``listing``, ``download`` and ``settling``. They speak through ``client`` (one connection, one
request at a time), which has ``authentication`` for logging in, ``soap`` for writing requests and ``reader`` for answers.
"""

from __future__ import annotations

from mailpoller.sources.ews.config import EwsConfig

__all__ = ["EwsConfig"]
