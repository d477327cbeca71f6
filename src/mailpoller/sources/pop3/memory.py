"""What a source remembers of a maildrop from one session to the next, in memory and no longer than the process."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from mailpoller.core.message import Position
from mailpoller.sources.pop3.maildrop import Contents, Knowledge, counted_name

_POSITION = re.compile(r"([0-9a-f]+):(\d{1,18})(?::(\d{1,9}))?")


class Memory:
    """Which uids were listed when, so that 50,000 messages that are left on the server are not told again at every
    poll.

    POP3 has no positions, so ours are numbers of listings, and mean something to this object alone. That is enough:
    the engine keeps a position once the ledger has recorded all that was listed before it. To the next process it
    says that there was a first listing, and how many in a row contradicted themselves, and no more; all is listed
    then, and the ledger knows what it has seen. Holds one maildrop's uids (some 200 octets each), and those only
    while the maildrop shows them.

    A name is told again when its size is another one, and when it is shown although the message that bore it was
    deleted.
    """

    def __init__(self) -> None:
        self.knowledge = Knowledge()
        self.departed: set[str] = set()
        """The uids that were deleted, as the server said, and are not known to have left."""
        self.surveyed = b""
        """Digest of the listing that was surveyed last, and that whoever asked went on with."""
        self.surveyed_again = float("inf")
        """When (monotonic seconds) the same listing is to be surveyed once more; infinity if it was."""
        self._mark = secrets.token_hex(8)
        self._listings = 0
        self._listed: dict[str, tuple[int, int | None]] = {}
        """uid -> the listing that showed it first, and its size."""
        self._noted: Contents | None = None

    def note(self, contents: Contents) -> Position:
        """This is in the maildrop, and nothing else if it is whole: the position that covers it all."""
        if contents is not self._noted:
            following, before = self._listings + 1, self._listed
            listed: dict[str, tuple[int, int | None]] = {}
            grown = False
            for uid, number in contents.numbers.items():
                size, known = contents.sizes.get(number), before.get(uid)
                if known is None or (known[1] != size and "sha256:" not in uid):
                    known, grown = (following, size), True
                listed[uid] = known
            # What a contradictory listing lacks is perhaps there; it is told again then.
            self._listed = listed
            self._listings += grown
            self._noted = contents
            if contents.whole:
                self.departed.intersection_update(listed)
        odd = self.knowledge.contradictions
        return Position(f"{self._mark}:{self._listings}" + (f":{odd}" if odd else ""))

    def after(self, position: Position) -> list[str]:
        """The uids that were shown after ``position``, in order; all of them, if another process made it."""
        found = _POSITION.fullmatch(position)
        if found is None or found[1] != self._mark:
            return list(self._listed)
        return [uid for uid, (listing, _) in self._listed.items() if listing > int(found[2])]

    def contradictions(self, position: Position | None) -> int:
        """How many connections in a row have contradicted themselves, those of the process that made ``position``
        included."""
        found = None if position is None else _POSITION.fullmatch(position)
        knowledge = self.knowledge
        if found is not None and found[1] != self._mark and knowledge.contradictions == 1:
            knowledge.contradictions += int(found[3] or 0)
        return knowledge.contradictions

    def depart(self, uids: Iterable[str]) -> None:
        """These were deleted, as the server says: who bears such a name now is told as if it had come since."""
        self.departed.update(uids)
        for uid in uids:
            self._listed.pop(uid, None)
        self._noted = None

    def doubts(self, uid: str) -> bool:
        """True if the message that bears this name now is perhaps another one, even of the same size."""
        return uid in self.departed or counted_name(uid)
