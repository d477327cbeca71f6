"""Whether a mailbox's secrets are others than before, without keeping them."""

from __future__ import annotations

import hashlib
import secrets

from mailpoller.config import Config
from mailpoller.config.fields import secrets_of
from mailpoller.core.errors import ConfigError

_KEY = secrets.token_bytes(32)
"""Of this process alone: what is kept is of no use to anybody else."""


class SecretMarks:
    """A mark for the secrets of each mailbox that is polled. Reads files when it is made."""

    def __init__(self, config: Config) -> None:
        self._marks = {name: _mark(config, name) for name in config.mailboxes if config.runs(name)}

    def differs(self, before: SecretMarks, mailbox: str) -> bool:
        """True if they are others than before, and there are some."""
        mark = self._marks.get(mailbox)
        return bool(mark) and mark != before._marks.get(mailbox)


def _mark(config: Config, mailbox: str) -> bytes:
    marks = hashlib.blake2b(key=_KEY)
    try:
        for _, secret in secrets_of(config.mailboxes[mailbox]):
            marks.update(hashlib.blake2b(secret.reveal().encode("utf-8", "surrogateescape"), key=_KEY).digest())
    except ConfigError:
        return b""
    return marks.digest()
