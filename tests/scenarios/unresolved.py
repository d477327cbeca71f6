"""The real command where the resolver does not answer about names that begin with ``hangs``.

``python -m scenarios.unresolved ARGUMENTS…`` runs ``mailpoller ARGUMENTS…``.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Any


def deafen() -> None:
    """Look-ups of such names take ten minutes, and nothing interrupts them."""
    true = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **more: Any) -> Any:
        if str(host).startswith("hangs"):
            time.sleep(600)
        return true(host, *arguments, **more)

    socket.getaddrinfo = look_up


def main() -> None:
    deafen()
    sys.argv[0] = "mailpoller"
    from mailpoller.cli import main as mailpoller

    mailpoller()


if __name__ == "__main__":
    main()
