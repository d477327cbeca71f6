"""Whether messages lie in another folder too: what an interrupted move may have copied."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.sources.imap.details import newest
from mailpoller.sources.imap.effects import Effects
from mailpoller.wire.imap.names import uid_sets
from mailpoller.wire.imap.protocol import ImapProtocol
from mailpoller.wire.imap.responses import Fetched
from mailpoller.wire.imap.selected import SelectedFolder

_RECENT = 2000
"""Uids at the end of a folder among which a copy of ours is looked for, beside some for each message."""


class Aside(Protocol):
    """What opens another folder for a while."""

    async def __call__(self, wire: str, work: Callable[[SelectedFolder], Awaitable[None]]) -> SelectedFolder:
        """Do ``work`` in the folder of that name on the server, read-only; then open the former one again, which is
        returned.

        Raises :class:`TransientError`.
        """


async def copies(
    protocol: ImapProtocol, effects: Effects, aside: Aside, uids: Sequence[int], wire: str
) -> dict[int, bool]:
    """Which of these messages of our folder lie in the folder ``wire`` too: a mail with the same ENVELOPE (RFC
    3501 section 7.4.2), its Message-ID among it, and of the same size. One that is not in the answer: cannot be
    told. The folder is changed and changed back."""
    ours: dict[int, str] = {}
    theirs: set[str] = set()
    asked = frozenset(uids)
    own: set[int] = set()
    told: list[bool] = []
    here, alike = effects.mailbox, False

    def note(fetched: Fetched) -> bool:
        if fetched.size is None or not any(fetched.envelope or ()):
            return False
        ours[int(fetched.uid or 0)] = f"{fetched.size} {fetched.envelope!r}"
        return True

    def compare(fetched: Fetched) -> bool:
        uid, mail = int(fetched.uid or 0), f"{fetched.size} {fetched.envelope!r}"
        if alike and ours.get(uid) == mail:
            own.add(uid)  # perhaps it is our folder itself, by another name, and this no copy at all
        else:
            theirs.add(mail)
        return True

    async def look(mailbox: SelectedFolder) -> None:
        nonlocal alike
        alike = mailbox.uidvalidity == here.uidvalidity
        if not mailbox.exists:
            told.append(True)
            return
        last = mailbox.uidnext or (await newest(protocol, mailbox))[0] + 1
        low = max(1, last - _RECENT - 4 * len(uids))
        answer = await protocol.run("FETCH", f"{low}:*", items, within=mailbox, on_fetch=compare)
        told.append(answer.status.ok)

    items = "(RFC822.SIZE ENVELOPE)"
    for _, words in uid_sets(uids):
        await protocol.run("FETCH", words, items, within=effects.mailbox, on_fetch=note)
    if not ours:
        return {}
    try:
        effects.mailbox = await aside(wire, look)
    except SessionLost:
        raise
    except TransientError:
        return {}
    if told != [True]:
        return {}
    return {uid: mail in theirs for uid, mail in ours.items() if uid in asked and (mail in theirs or uid not in own)}
