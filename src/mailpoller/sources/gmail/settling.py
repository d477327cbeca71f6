"""Dispositions on the service: every one is a change of labels, and equal changes go together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from urllib.parse import quote

from mailpoller.core.errors import CredentialsRefused, SessionLost, TransientError
from mailpoller.remote.gmail.client import BATCH_MODIFY, MESSAGES_MODIFY, GmailClient
from mailpoller.remote.gmail.errors import Denied, Invalid, Missing
from mailpoller.remote.gmail.labels import Labels
from mailpoller.remote.polled_session import APPLIED, State, Wish
from mailpoller.remote.throttle import Busy
from mailpoller.sources.gmail.config import LABEL_OF, SEEN, TRASH, UNREAD, reasons_against
from mailpoller.sources.gmail.contents import Contents
from mailpoller.sources.gmail.looking import at_once, labels_of, looked_at
from mailpoller.wire.http import HttpAnswer, HttpError, HttpStatus

BATCHED = 1_000
"""Messages that one batchModify may name."""

Change = tuple[tuple[str, ...], tuple[str, ...]]
"""The ids of labels to add, and of labels to remove."""


class Settling:
    """Carries out dispositions under one label, whose id is ``label``. Idempotent: a message that has left it is
    ``applied``.

    An id finds its message wherever a person has put it since. Marking it read there does no harm; moving or deleting
    it would, so where it lies is asked for first, unless it is among ``fresh``: those that bore the label a moment
    ago. That the service says OK is no evidence: the labels in its answer are, or, as it tells none for a batch,
    those that it notes in the history of the mailbox.
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
        await at_once([self._looked(wish) for wish in self._willing() if wish[1].move or wish[1].delete])
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
                found = (await looked_at(self._client, [wish[0]])).get(wish[0])
            except HttpStatus as error:
                self._states[wish] = ("pending", str(error))
                return
            if found is None or not found.lies_under(self._label):
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
        """Make one change to all of these messages. Those for which the service did not take it, as a label may be
        gone."""
        add, remove = change
        body = {"addLabelIds": add, "removeLabelIds": remove}
        stale: list[Wish] = []

        def one(wish: Wish) -> Callable[[], Awaitable[None]]:
            async def modify() -> None:
                try:
                    answer = await self._client.post(
                        f"{_path(wish[0])}/modify", "label a message", MESSAGES_MODIFY, body, query=_LABELS
                    )
                    self._states[wish] = _judged(change, _told(answer))
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
            if len(part) * MESSAGES_MODIFY < BATCH_MODIFY or not await self._batch(part, change):
                await at_once([one(wish) for wish in part])
        return stale

    async def _batch(self, wishes: Sequence[Wish], change: Change) -> bool:
        """Change all at once; False if the service does not do it, as one of them may be gone or broken: then they
        are changed one by one."""
        body = {"ids": [uid for uid, _ in wishes], "addLabelIds": change[0], "removeLabelIds": change[1]}
        contents = Contents(self._client, self._label)
        try:
            before = await contents.now()
            await self._client.post("/messages/batchModify", "label messages", BATCH_MODIFY, body)
            await self._prove(wishes, change, await contents.relabelled(before))
        except (Missing, Invalid, HttpStatus):
            return False
        except Denied as error:
            self._states.update(dict.fromkeys(wishes, ("failed", str(error))))
        return True

    async def _prove(self, wishes: Sequence[Wish], change: Change, noted: Mapping[str, frozenset[str]]) -> None:
        """Compare what was wished with the labels that the history notes. Of whom it notes nothing, or not yet, those
        are asked for."""
        states = {wish: _judged(change, noted.get(wish[0])) for wish in wishes}
        doubtful = [wish for wish, state in states.items() if state != APPLIED]
        found = await looked_at(self._client, [uid for uid, _ in doubtful])
        for wish in doubtful:
            look = found.get(wish[0])
            states[wish] = _LEFT if look is None else _judged(change, look.labels)
        self._states.update(states)


def _judged(change: Change, labels: frozenset[str] | None) -> State:
    """Whether these labels are what the change makes; None is a message of which the service does not show any."""
    if labels is None:
        return ("pending", "the service does not show the labels of the message")
    if labels.issuperset(change[0]) and labels.isdisjoint(change[1]):
        return APPLIED
    return ("failed", "the service says that the message is labelled, and shows it as it was")


def _told(answer: HttpAnswer) -> frozenset[str] | None:
    try:
        told = answer.object()
    except HttpError:
        return None
    # A message without labels has no list of them.
    return labels_of(told.get("labelIds", [])) if "id" in told else None


_LABELS = (("fields", "id,labelIds"),)
_LEFT: State = ("applied", "left")
"""The message has left the label: there is nothing more to do."""


def _path(uid: str) -> str:
    return f"/messages/{quote(uid, safe='')}"
