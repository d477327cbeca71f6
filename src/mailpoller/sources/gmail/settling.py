"""Dispositions on the service: every one is a change of labels, and equal changes go together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from urllib.parse import quote

from mailpoller.core.errors import CredentialsRefused, SessionLost, TransientError
from mailpoller.sources.gmail.client import (
    AT_ONCE,
    BATCH_MODIFY,
    MESSAGES_GET,
    MESSAGES_MODIFY,
    GmailClient,
)
from mailpoller.sources.gmail.config import LABEL_OF, SEEN, TRASH, UNREAD, reasons_against
from mailpoller.sources.gmail.errors import Denied, Invalid, Missing
from mailpoller.sources.gmail.labels import Labels
from mailpoller.transport.asking import APPLIED, State, Wish
from mailpoller.transport.http import HttpStatus
from mailpoller.transport.throttle import Busy

BATCHED = 1_000
"""Messages that one batchModify may name."""

Change = tuple[tuple[str, ...], tuple[str, ...]]
"""The ids of labels to add, and of labels to remove."""


class Settling:
    """Carries out dispositions under one label, whose id is ``label``. Idempotent: a message that has left it is ``applied``.

    An id finds its message wherever a person has put it since. Marking it read there does no harm; moving or deleting it would, so
    where it lies is asked for first, unless it is among ``fresh``: those that bore the label a moment ago.
    """

    def __init__(self, client: GmailClient, labels: Labels, label: str, fresh: Collection[str] = ()) -> None:
        self._client = client
        self._labels = labels
        self._label = label
        self._fresh = fresh
        self._states: dict[Wish, State] = {}

    async def apply(self, wishes: Sequence[Wish]) -> dict[Wish, State]:
        """Do it. A state for each wish.

        Raises :class:`SessionLost`, :class:`CredentialsRefused` and :class:`Busy`; then nothing is known.
        """
        for wish in wishes:
            reasons = reasons_against(wish[1])
            self._states[wish] = ("failed", reasons[0]) if reasons else APPLIED
        await self._at_once([self._looked(wish) for wish in self._willing() if wish[1].move or wish[1].delete])
        willing = self._willing()
        for again in (False, True):
            changes: dict[Change, list[Wish]] = {}
            for wish in willing:
                if (change := await self._change(wish)) is not None and change != ((), ()):
                    changes.setdefault(change, []).append(wish)
            stale = [wish for change, alike in changes.items() for wish in await self._modify(change, alike)]
            if not stale or again:
                break
            # A label may have been deleted since we looked: the next round makes it anew.
            self._labels.forget()
            willing = stale
        return {wish: APPLIED if state == _LEFT else state for wish, state in self._states.items()}

    def _willing(self) -> list[Wish]:
        return [wish for wish, state in self._states.items() if state == APPLIED]

    def _looked(self, wish: Wish) -> Callable[[], Awaitable[None]]:
        async def look() -> None:
            try:
                query = [("format", "minimal"), ("fields", "id,labelIds")]
                found = await self._client.get(_path(wish[0]), "look at a message", MESSAGES_GET, query)
            except Missing:
                self._states[wish] = _LEFT
                return
            except HttpStatus as error:
                self._states[wish] = ("pending", str(error))
                return
            labels = found.get("labelIds", [])
            there = isinstance(labels, list) and self._label in labels
            if not there or (TRASH in labels and self._label != TRASH):
                self._states[wish] = _LEFT

        async def known() -> None:
            return None

        return known if wish[0] in self._fresh else look

    async def _change(self, wish: Wish) -> Change | None:
        """The change of labels that a wish comes to; None, with a state, if there is none."""
        disposition = wish[1]
        add: set[str] = set()
        remove: set[str] = set()
        try:
            for flag in disposition.flags:
                if flag.lower() == SEEN:
                    remove.add(UNREAD)
                else:
                    add.add(LABEL_OF.get(flag.lower()) or await self._labels.make(flag))
            target = (
                await self._labels.make(disposition.move) if disposition.move else TRASH if disposition.delete else None
            )
        except (SessionLost, CredentialsRefused, Busy) as error:
            if not isinstance(error, Denied):
                raise
            self._states[wish] = ("failed", str(error))
            return None
        except TransientError as error:
            self._states[wish] = ("failed", str(error))
            return None
        if disposition.seen:
            remove.add(UNREAD)
        if target is not None:
            if target == self._label:
                self._states[wish] = ("failed", "the target of the move is the label itself")
                return None
            add.add(target)
            remove.add(self._label)
        return tuple(sorted(add - remove)), tuple(sorted(remove))

    # --- changing ----------------------------------------------------------------------------------------------
    async def _modify(self, change: Change, wishes: Sequence[Wish]) -> list[Wish]:
        """Make one change to all of these messages. Those for which the service did not take it, as a label may be gone."""
        add, remove = change
        body = {"addLabelIds": add, "removeLabelIds": remove}
        stale: list[Wish] = []

        def one(wish: Wish) -> Callable[[], Awaitable[None]]:
            async def modify() -> None:
                try:
                    await self._client.post(
                        f"{_path(wish[0])}/modify", "label a message", MESSAGES_MODIFY, body, query=[("fields", "id")]
                    )
                    self._states[wish] = APPLIED
                except Missing:
                    self._states[wish] = _LEFT
                except Invalid as error:
                    self._states[wish] = ("failed", str(error))
                    stale.append(wish)
                except Denied as error:
                    self._states[wish] = ("failed", str(error))
                except HttpStatus as error:
                    self._states[wish] = ("pending", str(error))

            return modify

        for first in range(0, len(wishes), BATCHED):
            part = wishes[first : first + BATCHED]
            if len(part) * MESSAGES_MODIFY < BATCH_MODIFY or not await self._batch(part, body):
                await self._at_once([one(wish) for wish in part])
        return stale

    async def _batch(self, wishes: Sequence[Wish], body: dict[str, tuple[str, ...]]) -> bool:
        """Change all at once; False if the service does not do it, as one of them may be gone or broken: then they are changed one by one."""
        try:
            await self._client.post(
                "/messages/batchModify", "label messages", BATCH_MODIFY, {"ids": [uid for uid, _ in wishes], **body}
            )
        except (Missing, Invalid, HttpStatus):
            return False
        except Denied as error:
            self._states.update(dict.fromkeys(wishes, ("failed", str(error))))
        return True

    async def _at_once(self, work: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Do all of it, a few at a time. Raises the first error."""
        waiting = iter(work)

        async def labour() -> None:
            for each in waiting:
                await each()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(work))):
                    group.create_task(labour())
        except ExceptionGroup as several:
            raise next(
                (one for one in several.exceptions if isinstance(one, SessionLost)), several.exceptions[0]
            ) from None


_LEFT: State = ("applied", "left")
"""The message has left the label: there is nothing more to do."""


def _path(uid: str) -> str:
    return f"/messages/{quote(uid, safe='')}"
