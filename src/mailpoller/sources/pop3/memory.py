"""What a source remembers of a maildrop from one session to the next, in memory and no longer than the process."""

from __future__ import annotations

import asyncio
import re
import secrets
from array import array
from collections.abc import Iterable, Sequence

from mailpoller.core.message import Position
from mailpoller.sources.pop3.columns import Some
from mailpoller.sources.pop3.listing import counted_name
from mailpoller.sources.pop3.maildrop import Contents, Knowledge
from mailpoller.wire.pace import REST

_TURN = 500
"""Messages that are dealt with in one go, before whoever else waits has his turn."""
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
        self._listed = Contents()
        """What was noted last."""
        self._since = array("I")
        """The listing that showed each of it first, in the order of its uids."""
        self._forgotten: set[str] = set()
        """What was deleted since, as the server said."""
        self._noted: Contents | None = None

    async def note(self, contents: Contents) -> Position:
        """This is in the maildrop, and nothing else if it is whole: the position that covers it all."""
        if contents is not self._noted:
            following, before, numbers = self._listings + 1, self._listed, contents.numbers
            # What both begin with alike need not be looked up, unless something of it has changed.
            alike = 0 if self._forgotten else numbers.shared(before.numbers)
            if alike and numbers.number(alike - 1) > contents.sizes.shared(before.sizes):
                alike = 0
            since = self._since[:alike]
            for place in range(alike, len(numbers)):
                since.append(self._first(numbers.uid(place), numbers.number(place), contents) or following)
                if not place % _TURN:
                    await asyncio.sleep(REST)
            # What a contradictory listing lacks is perhaps there; it is told again then.
            self._listed, self._since = contents, since
            self._forgotten.clear()
            self._listings += following in since[alike:]
            self._noted = contents
            if contents.whole:
                self.departed = {uid for uid in self.departed if uid in numbers}
        odd = self.knowledge.contradictions
        return Position(f"{self._mark}:{self._listings}" + (f":{odd}" if odd else ""))

    def _first(self, uid: str, number: int, contents: Contents) -> int:
        """The listing that showed the message first; 0 if that is this one."""
        before = self._listed
        place = -1 if uid in self._forgotten else before.numbers.place(uid)
        if place < 0:
            return 0
        size = before.sizes.get(before.numbers.number(place))
        return self._since[place] if size == contents.sizes.get(number) or "sha256:" in uid else 0

    def after(self, position: Position) -> Sequence[str]:
        """The uids that were shown after ``position``, in order; all of them, if another process made it."""
        found = _POSITION.fullmatch(position)
        last = 0 if found is None or found[1] != self._mark else int(found[2])
        numbers = self._listed.numbers
        if not last:
            places: Sequence[int] = range(len(numbers))
        elif last >= self._listings:
            places = ()
        else:
            places = array("I", (place for place, listing in enumerate(self._since) if listing > last))
        if self._forgotten:
            places = [place for place in places if numbers.uid(place) not in self._forgotten]
        return Some(numbers, places)

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
        self._forgotten.update(uids)
        self._noted = None

    def doubts(self, uid: str) -> bool:
        """True if the message that bears this name now is perhaps another one, even of the same size."""
        return uid in self.departed or counted_name(uid)
