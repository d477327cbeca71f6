"""To which conversation a message belongs that answers another one, as the ledger knows that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

import structlog

from mailpoller.core.errors import MailpollerError, machine_trouble
from mailpoller.core.message import Message
from mailpoller.core.ports import Threads
from mailpoller.engine.pipeline import Pipeline

log = structlog.get_logger(__name__)

ANCESTORS = 20
"""Of References, and of In-Reply-To, so many are looked for, the nearest."""
LOOKED_FOR = 4_000
"""Message-IDs that are looked for at once, for a batch."""


class ThreadFinder:
    """Finds, for one mailbox, the conversations of messages that answer others.

    The nearest message that is known decides: it may be of the same batch, judged and not settled yet, or in the
    ledger, of one of ``mailboxes`` as these are then (None: of any). Anybody can write whom he answers, so nothing
    that is found so is ever verified. What a queue was told once is not looked for again.
    """

    def __init__(self, pipeline: Pipeline, threads: Threads, mailboxes: Callable[[], Collection[str] | None]) -> None:
        self._pipeline = pipeline
        self._threads = threads
        self._mailboxes = mailboxes

    def waits(self, message: Message) -> bool:
        """True if its conversation is to be looked for: it answers something, and no token and no pattern tells."""
        if not self._pipeline.tells_conversations or not (message.references or message.in_reply_to):
            return False
        self._pipeline.converse(message)
        return _is_open(message)

    async def find(self, messages: Sequence[Message], judged: Sequence[Message], pending: Mapping[str, str]) -> None:
        """Note the conversation of each that waits, in one question to the ledger. ``judged``: others of the batch;
        ``pending``: Message-ID -> conversation of what was judged before and is not settled yet.

        Raises :class:`~mailpoller.core.errors.LedgerUnavailable`. A bug of ours costs the batch its conversations and
        nothing else.
        """
        waiting = [one for one in messages if _is_open(one)]
        if not waiting:
            return
        try:
            await self._find(waiting, messages, judged, pending)
        except MailpollerError:
            raise
        except Exception as error:
            if machine_trouble(error) is not None:
                raise
            log.exception("conversation.unfound", mailbox=waiting[0].raw.claim.ref.folder.mailbox, count=len(waiting))

    async def _find(
        self,
        waiting: Sequence[Message],
        messages: Sequence[Message],
        judged: Sequence[Message],
        pending: Mapping[str, str],
    ) -> None:
        found: dict[str, str] = {}
        unknown = [one for one in waiting if one.raw.claim.conversation is None]
        for message in waiting:
            if (told := message.raw.claim.conversation) is not None:
                found[message.raw.claim.mid] = told
        own: dict[str, Message] = {}
        for message in (*judged, *messages):
            if message.message_id:
                own.setdefault(message.message_id, message)
        if unknown:
            wanted = _wanted(unknown, own, pending)
            mailbox = unknown[0].raw.claim.ref.folder.mailbox
            known = dict(await self._threads.conversations(mailbox, wanted, self._mailboxes())) if wanted else {}
            known.update(pending)
            for message in unknown:
                _follow(message, own, known, found)
        for message in waiting:
            assert message.conversation is not None
            message.conversation = replace(message.conversation, id=found[message.raw.claim.mid])


def told(message: Message) -> str | None:
    """What an event says of its conversation, for the ledger: "" where nothing is known, None where nobody looked. What
    a stranger claims by a forged token is not said on."""
    found = message.conversation
    if found is None:
        return None
    return "" if found.forged else found.id


def begun(message: Message) -> str:
    """The conversation to which whatever answers this message belongs."""
    return told(message) or message.raw.claim.mid


def _ancestors(message: Message) -> Iterator[str]:
    """The Message-IDs of what it answers, the nearest first."""
    yield from message.in_reply_to[:ANCESTORS]
    yield from message.references[: -ANCESTORS - 1 : -1]


def _wanted(messages: Sequence[Message], own: Mapping[str, Message], pending: Mapping[str, str]) -> list[str]:
    """What the ledger is asked for: the nearest of all first."""
    wanted: dict[str, None] = {}
    for row in zip_longest(*(dict.fromkeys(_ancestors(message)) for message in messages)):
        wanted.update((one, None) for one in row if one is not None and one not in own and one not in pending)
        if len(wanted) >= LOOKED_FOR:
            break
    return list(wanted)[:LOOKED_FOR]


def _follow(message: Message, own: Mapping[str, Message], known: Mapping[str, str], found: dict[str, str]) -> None:
    """Note in ``found`` (by mid) the conversation of a message and of those of its batch that it answers."""
    path: list[Message] = []
    within: set[str] = set()
    conversation = ""
    current: Message | None = message
    while current is not None:
        mid = current.raw.claim.mid
        if found.get(mid) or (path and not _is_open(current)):
            conversation = found.get(mid) or begun(current)
            break
        if mid in found:  # it was looked for, and begins one
            conversation = mid if path else ""
            break
        path.append(current)
        within.add(mid)
        current, conversation = _nearest(current, own, known, within)
    if not conversation and len(path) > 1:
        conversation = path[-1].raw.claim.mid
        found[path.pop().raw.claim.mid] = ""
    for one in path:
        found[one.raw.claim.mid] = conversation


def _is_open(message: Message) -> bool:
    """Its conversation is what its ancestors' is."""
    found = message.conversation
    return found is not None and found.found_by == "thread" and not found.id


def _nearest(
    message: Message, own: Mapping[str, Message], known: Mapping[str, str], within: Collection[str]
) -> tuple[Message | None, str]:
    """What it answers, of the same batch, or else the conversation of that; neither if nothing is known."""
    for message_id in _ancestors(message):
        other = own.get(message_id)
        if other is not None and other.raw.claim.mid not in within:
            return other, ""
        if other is None and (conversation := known.get(message_id)):
            return None, conversation
    return None, ""
