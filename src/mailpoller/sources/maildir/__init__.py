"""The source ``maildir``: a mailbox that lies in a local directory (https://cr.yp.to/proto/maildir.html).

``config`` is the block in the YAML file, ``source`` connects and probes, ``session`` what the engine talks to,
``directory`` what is known about names and files on disk, ``position`` how far a listing has got.
"""

from __future__ import annotations

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Source
from mailpoller.sources.maildir.config import MaildirSettings

__all__ = ["MaildirConfig"]


class MaildirConfig(MaildirSettings):
    """A mailbox in a local directory in Maildir format, with Maildir++ subfolders."""

    def build(self, name: str, runtime: Runtime) -> Source:
        """The source; whether the directory is there shows when it connects."""
        from mailpoller.sources.maildir.source import MaildirSource

        return MaildirSource(name, self, runtime)
