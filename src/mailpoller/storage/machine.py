"""Which machine this is."""

from __future__ import annotations

import hmac
from contextlib import suppress
from pathlib import Path

_MACHINE_ID = Path("/etc/machine-id")
_OF_THIS_BOOT = Path("/run/machine-id")
"""There if the id is made anew at each boot (systemd, machine-id(5)): then it says nothing about the machine."""
_LONGEST = 100


def machine(path: Path = _MACHINE_ID, of_this_boot: Path = _OF_THIS_BOOT) -> str:
    """What this machine is known by: a keyed digest of its id, for the id itself is confidential (machine-id(5)).
    Empty where it has none that lasts, as most containers."""
    with suppress(OSError, UnicodeDecodeError):
        told = _read(path)
        lasts = not (of_this_boot.exists() and _read(of_this_boot) == told)
        if len(told) == 32 and lasts and told.strip("0123456789abcdef") == "":
            return hmac.new(bytes.fromhex(told), b"mailpoller outbox", "sha256").hexdigest()[:32]
    return ""


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_LONGEST).decode("ascii").strip()
