"""What a source remembers of a maildrop from one session to the next, in memory and no longer than the process."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from mailpoller.core.message import Position
from mailpoller.sources.pop3.maildrop import Knowledge


class Memory:
    """Which uids were listed when, so that 50,000 messages that are left on the server are not told again at every poll.

    POP3 has no positions, so ours are numbers of listings, and mean something to this object alone. That is enough: the
    engine keeps a position once the ledger has recorded all that was listed before it. To the next process it says that there was a
    first listing, and no more; all is listed then, and the ledger knows what it has seen. Holds one maildrop's uids
    (some 150 octets each), and those only while the maildrop shows them.
    """

    def __init__(self) -> None:
        self.knowledge = Knowledge()
        self._mark = secrets.token_hex(8)
        self._listings = 0
        self._listed: dict[str, int] = {}
        """uid -> the listing that showed it first."""

    def note(self, uids: Iterable[str]) -> Position:
        """These and no others are in the maildrop: the position that covers them all."""
        following, before = self._listings + 1, self._listed
        self._listed = {uid: before.get(uid, following) for uid in uids}
        if self._listed and max(self._listed.values()) == following:
            self._listings = following
        return Position(f"{self._mark}:{self._listings}")

    def after(self, position: Position) -> list[str]:
        """The uids that were shown after ``position``, in order; all of them, if another process made it."""
        mark, _, number = position.partition(":")
        if mark != self._mark:
            return list(self._listed)
        return [uid for uid, listing in self._listed.items() if listing > int(number)]
