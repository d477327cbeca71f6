"""The source ``maildir``: a mailbox that lies in a local directory (https://cr.yp.to/proto/maildir.html).

``source`` holds the configuration and the probe, ``session`` what the engine talks to, ``directory`` what is known
about names and files on disk, ``position`` how far a listing has got.
"""

from __future__ import annotations

from mailpoller.sources.maildir.source import MaildirConfig

__all__ = ["MaildirConfig"]
