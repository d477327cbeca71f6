"""The folder that is selected, as far as the server has spoken of it."""

from __future__ import annotations

from dataclasses import dataclass

from mailpoller.wire.imap.responses import Status, read_flags


@dataclass(slots=True)
class SelectedFolder:
    """What the server has said about the folder that is selected. ``news`` counts its hints that mail came."""

    name: str = ""
    exists: int = 0
    arrived: int = 0
    """How many messages have come since the folder was selected."""
    recent: int = 0
    uidvalidity: int | None = None
    uidnext: int | None = None
    permanent_flags: frozenset[str] | None = None
    read_only: bool = False
    news: int = 0
    renumbered: bool = False
    uncounted: bool = False
    """``exists`` means nothing until EXISTS is told again: messages left without being counted (VANISHED)."""

    def count(self, kind: bytes, number: int) -> bool:
        """Heed how many messages there are, or that one has left; ``kind`` is what stands behind the number, six
        octets of it. True if that is news."""
        if kind == b"EXISTS":
            if news := number != self.exists:
                # Fewer, though nobody said which are gone: who knows what has come in their place.
                self.arrived += max(1, number - self.exists)
                self.news += 1
            self.exists = number
            self.uncounted = False
            return news
        if kind == b"RECENT":
            if news := number > self.recent:
                self.news += 1
            self.recent = number
            return news
        if kind == b"EXPUNG":
            self.exists = max(0, self.exists - 1)
        return False

    def heed(self, status: Status) -> bool:
        """Heed a response code that is about the folder. True if it says that the folder is numbered anew."""
        arguments = status.arguments
        if status.code in ("UIDVALIDITY", "UIDNEXT") and arguments.isdigit() and len(arguments) < 11:
            number = int(arguments)
            if status.code == "UIDNEXT":
                self.uidnext = number or None
                return False
            before, self.uidvalidity = self.uidvalidity, number
            if before not in (None, number):
                self.renumbered = True
                self.news += 1
                return True
        elif status.code == "PERMANENTFLAGS":
            self.permanent_flags = frozenset(flag.lower() for flag in read_flags(arguments.strip(b"()")))
        elif status.code == "READ-ONLY":
            self.read_only = True
        return False
