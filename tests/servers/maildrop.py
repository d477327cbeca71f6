"""A maildrop for the conformance suite, on whatever server."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from mailpoller.core.ports import Source
from mailpoller.testing.source_suite import MailboxUnderTest, Shown
from servers.courier import Courier
from servers.dovecot import Dovecot
from servers.pop3_mailboxes import pop3_source
from servers.proxy import FaultProxy

_numbers = itertools.count(1)


class Maildrop(MailboxUnderTest):
    """One user's maildrop, reached through a proxy that can cut the connection."""

    has_folders = False
    steps = frozenset({"delete"})
    keeps_received = False
    knows_unseen = False
    ends_lines = True
    disposes_at_close = True
    waits_connected = False
    notices_within = timedelta(seconds=3)

    def __init__(
        self, server: Dovecot | Courier, proxy: FaultProxy, directory: Path, settings: Mapping[str, Any]
    ) -> None:
        self.server = server
        self.proxy = proxy
        self.directory = directory
        self.settings = {"poll_interval": "1s", **settings}
        self.user = f"drop{next(_numbers)}"
        self.sources: dict[str, Source] = {}

    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        """One source for each mode, as in a service: its positions are its own. A folder that cannot be is a password
        that is none."""
        if folders == [self.target]:
            return pop3_source(self.directory, self.proxy.port, self.user, **self.settings | {"password": "wrong"})
        if mode not in self.sources:
            self.sources[mode] = pop3_source(self.directory, self.proxy.port, self.user, mode=mode, **self.settings)
        return self.sources[mode]

    async def deliver(
        self, octets: bytes, folder: str | None = None, *, seen: bool = False, received: datetime | None = None
    ) -> None:
        if isinstance(self.server, Dovecot):
            self.server.deliver(self.user, octets, date=received, seen=seen)
            return
        box = self.server.maildir(self.user)
        for part in ("cur", "new", "tmp"):
            (box / part).mkdir(parents=True, exist_ok=True)
        (box / "new" / f"{1_700_000_000 + next(_numbers)}.M1P1.mail.example").write_bytes(
            octets.replace(b"\r\n", b"\n")
        )

    async def shown(self, folder: str | None = None) -> Sequence[Shown]:
        """Without flags: POP3 has none, and what Dovecot notes by itself about messages that were read is its own
        affair."""
        if isinstance(self.server, Courier):
            await self.server.ended()
        box = self.server.maildir(self.user)
        files = [] if folder not in (None, self.first) else sorted([*box.glob("new/*"), *box.glob("cur/*")])
        return [Shown(self.wire(file), frozenset()) for file in files]

    def wire(self, file: Path) -> bytes:
        """A message as the server gives it: Courier wants lines on disk to end with LF alone."""
        octets = file.read_bytes()
        return octets if isinstance(self.server, Dovecot) else octets.replace(b"\n", b"\r\n")

    async def remove(self, octets: bytes, folder: str | None = None) -> None:
        box = self.server.maildir(self.user)
        next(file for file in box.glob("[cn]*/*") if self.wire(file) == octets).unlink()

    async def cut(self) -> None:
        self.proxy.cut()
