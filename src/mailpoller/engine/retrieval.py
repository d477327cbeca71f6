"""Messages that were moved on the server, found again in the folder that they were moved to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from zlib import crc32

from mailpoller.core.errors import SessionLost
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.ports import Claims, Session, Source, Start, Story
from mailpoller.mail.parser import parse

MOST_CANDIDATES = 100
"""Messages of the right size that are fetched to see whether one of them is the one, the latest first."""

_MOVED = re.compile(r"(?:^|, )move (.+)$")


def target_of(story: Story) -> str:
    """The folder that the server was told to move it to; empty if it was not."""
    found = _MOVED.search(story.disposition)
    return found[1] if found is not None and story.disposition_state == "applied" else ""


class Retrieval:
    """Looks for one message in a folder of its mailbox, in a session of its own, and changes nothing there.

    It is the one whose octets have the SHA-256 that the ledger knows: a name, a size and a Message-ID prove nothing.
    """

    def __init__(self, source: Source, claims: Claims, limit: int) -> None:
        self._source = source
        self._claims = claims
        self._limit = limit

    async def fetch(self, story: Story, folder: str) -> RawMessage | None:
        """The message, its octets open, under the name that it had when it was settled; None if the folder does not
        have it. ``folder``: where to look.

        Raises :class:`~mailpoller.core.errors.MailpollerError` if the folder cannot be read.
        """
        session = await self._source.connect()
        try:
            opened = await session.open(folder)
            for ref in reversed(await self._candidates(session, opened, story)):
                # One at a time: each may be as large as a message can be.
                async for raw in session.fetch([Claim(ref, story.mid)], self._limit):
                    if isinstance(raw, RawMessage):
                        if not raw.doubt and not raw.truncated and await self._is(raw, story):
                            return _as_it_was(raw, story)
                        raw.octets.close()
            return None
        finally:
            with suppress(SessionLost):
                await session.close()

    async def _candidates(self, session: Session, folder: Folder, story: Story) -> Sequence[MessageRef]:
        """Those that may be it by their size; the latest last, as a move adds at the end."""
        found: list[MessageRef] = []
        async for page in session.pending(folder, None, Start("all")):
            found += [ref for ref in page.refs if ref.size is None or story.size is None or ref.size == story.size]
            del found[:-MOST_CANDIDATES]
        return found

    async def _is(self, raw: RawMessage, story: Story) -> bool:
        if parse(raw).message_id != story.message_id:
            return False
        known: Mapping[bytes, str] = await self._claims.repeats(story.mailbox, [raw.octets.digest])
        bearer = known.get(raw.octets.digest)
        return bearer is not None and bearer in (story.mid, story.repeat_of)


def _as_it_was(raw: RawMessage, story: Story) -> RawMessage:
    """The claim is nobody's: neither a ledger nor a session is told of it. Its generation is the same at each try of
    one wish, and another once what came of it is noted."""
    ref = MessageRef(Folder(story.mailbox, story.folder, story.epoch), story.uid, story.size, raw.received)
    wish = f"{story.mid}\0redeliver\0{sorted(story.receipts.items())}"
    generation = crc32(wish.encode("utf-8", "surrogatepass")) << 16 | len(story.former) + 1
    return replace(raw, claim=Claim(ref, story.mid, generation=generation))
