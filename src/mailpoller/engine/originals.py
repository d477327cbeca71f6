"""What an answer takes over from mail that came: parts of it, by their digests, and its words."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TypeVar

import structlog

from mailpoller.core.errors import EntryForbidden, EntryPutOff, EntryRefused, TransientError
from mailpoller.core.ports import BlobReader, Stories, Story
from mailpoller.core.sender import Quote
from mailpoller.core.spool import Block
from mailpoller.engine.senders import Senders
from mailpoller.mail.letter import Attached, Letter, Referred
from mailpoller.mail.letter_parts import parts_of
from mailpoller.mail.letter_quote import quotation

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Originals:
    """The octets of messages that events refer to (``blobs``); without a store there are none.

    A message's octets serve only those who may send for a department that its mailbox serves: a digest, or a mid, is
    no permission. Raises :class:`EntryRefused` for whatever cannot be had, and :class:`EntryPutOff` if it may be later.
    """

    def __init__(self, ledger: Stories, blobs: BlobReader | None) -> None:
        self._ledger = ledger
        self._blobs = blobs

    async def attached(
        self, letter: Letter, story: Story | None, senders: Senders, departments: Collection[str], largest: int
    ) -> Letter:
        """The letter with the parts that it refers to, in their places; of the message ``story`` where it says no
        mid."""
        if not letter.referred:
            return letter
        answered = "" if story is None else story.mid
        meant = [(at, replace(one, mid=one.mid or answered)) for at, one in letter.referred]
        found: dict[int, Attached] = {}
        room = largest - sum(len(one.octets) for one in letter.attachments)
        for mid in dict.fromkeys(one.mid for _, one in meant):
            if not mid:
                raise EntryRefused("a digest needs the message that it is of: its mid, or the entry's reply_to")
            places = [at for at, one in meant if one.mid == mid]
            wanted = tuple(one for _, one in meant if one.mid == mid)
            held = await self.read(mid, senders, departments, _taking(wanted, room))
            room -= sum(len(one.octets) for one in held)
            found.update(zip(places, held, strict=True))
        attachments = list(letter.attachments)
        for at in sorted(found):
            attachments.insert(at, found[at])
        return replace(letter, attachments=tuple(attachments), referred=())

    async def quoted(
        self, letter: Letter, story: Story | None, senders: Senders, departments: Collection[str], usual: Quote
    ) -> Letter:
        """The letter with what it quotes. What was asked for is there, or is refused; what is only ``usual`` is left
        out where it cannot be had."""
        wish = letter.quote or usual
        if wish == "none":
            return letter
        if story is None:
            if letter.quote is not None:
                raise EntryRefused("nothing is answered, so nothing can be quoted: say reply_to")
            return letter
        try:
            text = await self.read(story.mid, senders, departments, _quoting(wish))
        except (EntryRefused, EntryPutOff) as error:
            if letter.quote is not None:
                raise
            log.info("outbox.unquoted", mid=story.mid, reason=str(error))
            return letter
        return replace(letter, quoted=text)

    async def read(self, mid: str, senders: Senders, departments: Collection[str], work: Callable[[Block], T]) -> T:
        """What ``work`` makes of the octets of this message, in a thread."""
        found = [one for one in await self._ledger.trace(mid, limit=5) if one.mid == mid]
        serving = senders.mailboxes.get(found[0].mailbox) if found else None
        if serving is None or not set(serving.departments).intersection(departments):
            # The same words for what is not there: whose mail it is, is nobody's to find out.
            raise EntryForbidden("there is no message of that mid in a mailbox of these departments")
        if self._blobs is None:
            raise EntryRefused(
                "the octets of mail are not kept here (blobs): what is to go along is handed in as base64"
            )
        made: list[T] = []
        try:
            there = await self._blobs.read(mid, lambda octets: made.append(work(octets)))
        except TransientError as error:
            raise EntryPutOff(f"the blobs cannot be read now: {error}") from None
        if not there:
            raise EntryRefused(f"the octets of {mid} are not kept here, or not any more")
        return made[0]


def _quoting(wish: Quote) -> Callable[[Block], str]:
    return lambda octets: quotation(octets, wish)


def _taking(wanted: tuple[Referred, ...], room: int) -> Callable[[Block], tuple[Attached, ...]]:
    return lambda octets: parts_of(octets, wanted, room)
