"""What experience with a server has taught; outlives the session."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_COPIED = 10_000


@dataclass(slots=True)
class Trust:
    """What experience with a server has taught; outlives the session.

    ``sizes``: it never sent more than it had announced. ``overlong``: (epoch, uid) of messages of which it sends more
    than was asked for, so that they are not asked for again and the others can go on. ``copied``: (epoch, uid, folder
    on the server) of messages that may lie there already, though they are still where they were; the last 10,000 of
    them.
    """

    sizes: bool = True
    overlong: set[tuple[str, str]] = field(default_factory=set)
    copied: dict[tuple[str, int, str], None] = field(default_factory=dict)

    def doubt(self, epoch: str, uids: Iterable[int], wire: str) -> None:
        """These may have been copied to that folder."""
        self.copied.update(((epoch, uid, wire), None) for uid in uids)
        while len(self.copied) > MAX_COPIED:
            del self.copied[next(iter(self.copied))]
