"""POP3 sources on the test servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mailpoller.core.ports import Source
from mailpoller.sources.pop3 import Pop3Config
from servers.mailboxes import runtime


def pop3_source(directory: Path, port: int, user: str, **settings: Any) -> Source:
    """A POP3 source; by default without TLS, with time-outs that no machine is too slow for."""
    values = {
        "type": "pop3", "host": "127.0.0.1", "port": port, "tls": "none", "username": user, "password": "secret",
        "connect_timeout": "60s", "command_timeout": "60s", **settings,
    }  # fmt: skip
    return Pop3Config.model_validate(values).build("box", runtime(directory))
