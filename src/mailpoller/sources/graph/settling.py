"""Dispositions on the service, in batches of twenty, what each refusal means, and what the service shows of what it
says is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from mailpoller.core.errors import CredentialsRefused, SessionLost, TransientError
from mailpoller.remote.exchange import DELETED_ITEMS, FLAGGED, SEEN, Deletion, impossible
from mailpoller.remote.graph import Answer, Ask, GraphClient
from mailpoller.remote.polled_session import APPLIED, FolderGone, State, Wish
from mailpoller.sources.graph.folders import Folders
from mailpoller.sources.graph.items import categories_of


class Settling:
    """Carries out dispositions in one folder, whose id is ``folder``. Idempotent: a message that has left the folder
    is ``applied``.

    An immutable id finds its message wherever a person has put it since. Marking it read there does no harm; moving
    or deleting it would, so where it lies is asked for first. That the service says OK is no evidence: what it shows
    of the message is, in its answer or, where that says nothing, when it is asked afterwards.
    """

    def __init__(self, client: GraphClient, folders: Folders, folder: str, deletion: Deletion) -> None:
        self._client = client
        self._folders = folders
        self._folder = folder
        self._deletion: Deletion = deletion
        self._states: dict[Wish, State] = {}
        self._categories: dict[str, tuple[str, ...]] = {}
        self._unproven: dict[Wish, None] = {}
        """Done, as the service says, which did not show it."""

    async def apply(self, wishes: Sequence[Wish]) -> dict[Wish, State]:
        """Do it: seen and flags first, then move or delete what was not refused before. A state for each wish.

        Raises :class:`SessionLost` and :class:`CredentialsRefused`; then nothing is known.
        """
        for wish in wishes:
            reasons = filter(None, map(impossible, wish[1].flags))
            self._states[wish] = next((("failed", reason) for reason in reasons), APPLIED)
        await self._look([wish for wish in self._willing() if _leaves_folder(wish) or _categories(wish)])
        await self._mark([wish for wish in self._willing() if wish[1].seen or wish[1].flags])
        for target in sorted({wish[1].move for wish in self._states if wish[1].move}):
            await self._move([wish for wish in self._willing() if wish[1].move == target], target)
        await self._delete([wish for wish in self._willing() if wish[1].delete])
        await self._prove([wish for wish in self._willing() if wish in self._unproven])
        return {wish: APPLIED if state == _LEFT else state for wish, state in self._states.items()}

    def _willing(self) -> list[Wish]:
        return [wish for wish, state in self._states.items() if state == APPLIED]

    # --- the steps ---------------------------------------------------------------------------------------------
    async def _look(self, wishes: Sequence[Wish]) -> None:
        asks = [Ask("GET", f"{_path(uid)}?$select=parentFolderId,categories") for uid, _ in wishes]
        for wish, answer in await self._each(wishes, asks, "look at messages"):
            if not answer.ok:
                continue
            parent = answer.body.get("parentFolderId")
            if isinstance(parent, str) and parent != self._folder:
                self._states[wish] = _LEFT
            self._categories[wish[0]] = categories_of(answer.body)

    async def _mark(self, wishes: Sequence[Wish]) -> None:
        asks = []
        for uid, disposition in wishes:
            body: dict[str, object] = {}
            if disposition.seen or any(flag.lower() == SEEN for flag in disposition.flags):
                body["isRead"] = True
            if any(flag.lower() == FLAGGED for flag in disposition.flags):
                body["flag"] = {"flagStatus": "flagged"}
            if wanted := _categories((uid, disposition)):
                # The list is replaced as a whole, and others may have put something in.
                body["categories"] = list(dict.fromkeys([*self._categories.get(uid, ()), *wanted]))
            asks.append(Ask("PATCH", _path(uid), body))
        for wish, answer in await self._each(wishes, asks, "mark messages"):
            if answer.ok:
                self._judge(wish, answer.body, marked=True)

    async def _move(self, wishes: Sequence[Wish], target: str) -> None:
        if not wishes:
            return
        for again in (False, True):
            try:
                uid = await self._folders.make(target)
            except SessionLost:
                raise
            except (TransientError, CredentialsRefused) as error:
                self._note(wishes, ("failed", f"the folder {target} cannot be had: {error}"))
                return
            if uid == self._folder:
                self._note(wishes, ("failed", "the target of the move is the folder itself"))
                return
            body = {"destinationId": uid}
            answers = await self._each(wishes, [Ask("POST", f"{_path(one)}/move", body) for one, _ in wishes], "move")
            self._judge_moved(answers)
            wishes = [wish for wish, answer in answers if answer.gone]
            if not wishes or again or await self._exists(target):
                return  # it is the messages that are gone
            self._note(wishes, APPLIED)  # as far as is known: it was the target, and is made anew

    async def _delete(self, wishes: Sequence[Wish]) -> None:
        if not wishes:
            return
        if self._deletion == "permanent":
            asks = [Ask("POST", f"{_path(uid)}/permanentDelete") for uid, _ in wishes]
        elif self._deletion == "deleted-items" and await self._folders.find(DELETED_ITEMS) != self._folder:
            asks = [Ask("POST", f"{_path(uid)}/move", {"destinationId": DELETED_ITEMS}) for uid, _ in wishes]
        else:
            asks = [Ask("DELETE", _path(uid)) for uid, _ in wishes]
        self._judge_moved(await self._each(wishes, asks, "delete messages"))

    async def _exists(self, target: str) -> bool:
        try:
            await self._folders.look(target)
        except FolderGone:
            return False
        return True

    # --- evidence ----------------------------------------------------------------------------------------------
    async def _prove(self, wishes: Sequence[Wish]) -> None:
        asks = [Ask("GET", f"{_path(uid)}?$select=parentFolderId,isRead,flag,categories") for uid, _ in wishes]
        self._unproven.clear()
        for wish, answer in await self._each(wishes, asks, "look at messages"):
            if answer.ok:
                self._judge(wish, answer.body, marked=_marks(wish), moved=_leaves_folder(wish))
                if wish in self._unproven:
                    self._states[wish] = ("pending", "the service does not show what has become of the message")

    def _judge_moved(self, answers: Sequence[tuple[Wish, Answer]]) -> None:
        for wish, answer in answers:
            if answer.ok:
                self._judge(wish, answer.body, moved=True)

    def _judge(self, wish: Wish, shown: Mapping[str, Any], *, marked: bool = False, moved: bool = False) -> None:
        """Compare what was wished with what the service shows, of a message that it says it has ``marked`` or
        ``moved``."""
        said = [_is_marked(wish, shown)] if marked else []
        if moved:
            parent = shown.get("parentFolderId")
            said.append(parent != self._folder if isinstance(parent, str) else None)
        if False in said:
            what = "deleted" if wish[1].delete else "moved"
            done = what if moved and said[-1] is False else "marked"
            self._states[wish] = ("failed", f"the service says that the message is {done}, and shows it as it was")
        elif None in said:
            self._unproven[wish] = None

    # --- asking ------------------------------------------------------------------------------------------------
    async def _each(self, wishes: Sequence[Wish], asks: Sequence[Ask], doing: str) -> list[tuple[Wish, Answer]]:
        """Ask for each, and note what did not come off."""
        answers = list(zip(wishes, await self._client.batch(asks, doing), strict=True))
        for wish, answer in answers:
            if answer.gone:
                self._states[wish] = _LEFT
            elif not answer.ok:
                self._states[wish] = ("pending" if answer.busy else "failed", answer.reason)
        return answers

    def _note(self, wishes: Sequence[Wish], state: State) -> None:
        self._states.update(dict.fromkeys(wishes, state))


_LEFT: State = ("applied", "left")
"""The message has left the folder: there is nothing more to do."""


def _path(uid: str) -> str:
    return f"/messages/{quote(uid, safe='')}"


def _leaves_folder(wish: Wish) -> bool:
    return bool(wish[1].move) or wish[1].delete


def _marks(wish: Wish) -> bool:
    return wish[1].seen or bool(wish[1].flags)


def _is_marked(wish: Wish, shown: Mapping[str, Any]) -> bool | None:
    """Whether a message is marked as was wished; None if the service does not show enough of it."""
    flags = {flag.lower() for flag in wish[1].flags}
    said: list[bool | None] = []
    if wish[1].seen or SEEN in flags:
        seen = shown.get("isRead")
        said.append(seen if isinstance(seen, bool) else None)
    if FLAGGED in flags:
        flag = shown.get("flag")
        said.append(flag.get("flagStatus") == "flagged" if isinstance(flag, dict) else None)
    if wanted := _categories(wish):
        # Of a name that is there already the service keeps its own spelling.
        has = {one.lower() for one in categories_of(shown)}
        known = isinstance(shown.get("categories"), list)
        said.append(has.issuperset(one.lower() for one in wanted) if known else None)
    return False if False in said else None if None in said else True


def _categories(wish: Wish) -> list[str]:
    return [flag for flag in wish[1].flags if not flag.startswith("\\")]
