"""Carrying out dispositions: UpdateItem, then MoveItem or DeleteItem, many messages in one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mailpoller.core.delivery import Disposition
from mailpoller.remote.exchange import DELETED_ITEMS, FLAGGED, SEEN, impossible
from mailpoller.remote.polled_session import APPLIED, FolderGone, State
from mailpoller.sources.ews import soap
from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.download import Known, categories_of, flags_of
from mailpoller.sources.ews.folders import Folders
from mailpoller.sources.ews.looking import AT_ONCE, look_at
from mailpoller.sources.ews.reader import Node
from mailpoller.sources.ews.replies import FOLDER_GONE, GONE, NEVER, Denied, Reply
from mailpoller.sources.ews.soap import Request

ABSENT: State = ("applied", "gone")
"""The state of a message that is not there, until it is told to others, who need not know."""

_READ_BACK = ("item:Categories", "item:Flag", "message:IsRead")

READABLE = frozenset(
    {"Message", "MeetingMessage", "MeetingRequest", "MeetingResponse", "MeetingCancellation", "PostItem"}
)
"""Items that can be marked as read."""

_DELETE_TYPE = {"recoverable": "SoftDelete", "permanent": "HardDelete"}


class Settling:
    """Carries out one disposition for some messages of one mailbox; idempotent.

    ``known``: what is known of items by uid; ``deletion`` as in the configuration. That the server says OK is no
    evidence: a message that was moved has another id in its answer, and one that was deleted is not shown any more.
    Marks are read back once for each kind of them; those that were found to hold are in ``proven``, which lasts as
    long as the session.
    """

    def __init__(
        self, client: EwsClient, folders: Folders, known: Mapping[str, Known], deletion: str, proven: set[str]
    ) -> None:  # fmt: skip
        self._proven = proven
        self._client = client
        self._folders = folders
        self._known = known
        self._deletion = deletion

    async def apply(self, disposition: Disposition, uids: Sequence[str]) -> dict[str, State]:
        """The state of each uid. A message that is not there any more is ``applied``: somebody else, or we before a
        crash, moved it, and then its id leads nowhere."""
        for flag in disposition.flags:
            if reason := impossible(flag):
                return dict.fromkeys(uids, ("failed", reason))
        states: dict[str, State] = {}
        for begin in range(0, len(uids), AT_ONCE):
            piece = list(dict.fromkeys(uids[begin : begin + AT_ONCE]))
            states.update(await self._piece(disposition, piece))
        return states

    async def _piece(self, disposition: Disposition, uids: list[str]) -> dict[str, State]:
        states: dict[str, State] = {}
        if disposition.seen or disposition.flags:
            states = await self._update(disposition, uids)
        here = [uid for uid in uids if uid not in states]
        if disposition.move is not None:
            states.update(await self._move(here, disposition.move))
        elif disposition.delete:
            states.update(await self._delete(here))
        return {uid: states.get(uid, APPLIED) for uid in uids}

    # --- flags -------------------------------------------------------------------------------------------------
    async def _update(self, disposition: Disposition, uids: list[str]) -> dict[str, State]:
        """The states of those for which that is all that happens: gone, or not updated."""
        names = {flag.lower() for flag in disposition.flags if flag.startswith("\\")}
        categories = tuple(flag for flag in disposition.flags if not flag.startswith("\\"))
        seen, flagged = disposition.seen or SEEN in names, FLAGGED in names
        changes: list[soap.Change] = []
        states: dict[str, State] = {}
        # Setting categories replaces all that there are, so those must be known as they are now.
        found = await self._look(uids if categories else [uid for uid in uids if uid not in self._known], states)
        for uid in uids:
            if uid in states:
                continue
            known, present = found.get(uid) or (self._known[uid], ())
            readable = known.kind in READABLE
            if seen and not readable and not (disposition.move or disposition.delete):
                states[uid] = ("failed", f"an item of the kind {known.kind} cannot be marked as read")
                continue
            lacking = [one for one in categories if one.lower() not in {name.lower() for name in present}]
            wanted = (*present, *lacking) if lacking else None
            if (seen and readable) or flagged or wanted is not None:
                changes.append(soap.Change(uid, known.change_key, known.kind, seen and readable, flagged, wanted))
        if changes:
            told = await self._ask(soap.update_items(changes), [one.uid for one in changes], "update messages")
            states.update({uid: state for uid, state in told.items() if state[0] != "applied" or state[1]})
            states.update(await self._read_back([one for one in changes if one.uid not in states]))
        return {uid: _plain(state) for uid, state in states.items()}

    async def _read_back(self, changes: Sequence[soap.Change]) -> dict[str, State]:
        """The states of those that are not as the server says that it made them."""
        doubtful = [one for one in changes if not _marks(one) <= self._proven]
        states: dict[str, State] = {}
        held: set[str] = set()
        broken: set[str] = set()
        looked = await look_at(self._client, [one.uid for one in doubtful], _READ_BACK)
        for change in doubtful:
            if change.uid not in looked.items:
                # Gone, most likely; whatever comes next finds out.
                continue
            kept = _kept(change, looked.items[change.uid])
            held |= kept
            if lacking := _marks(change) - kept:
                broken |= lacking
                reason = (
                    f"the server says that it marked the message, and shows it without {' and '.join(sorted(lacking))}"
                )
                states[change.uid] = ("failed", reason)
        self._proven.update(held - broken)
        return states

    async def _look(self, uids: list[str], states: dict[str, State]) -> dict[str, tuple[Known, tuple[str, ...]]]:
        """Element, version and categories of each item; those that cannot be had are in ``states``."""
        looked = await look_at(self._client, uids, ["item:Categories"])
        states.update({uid: _state(reply) for uid, reply in looked.refused.items()})
        return {uid: (_known(node), categories_of(node)) for uid, node in looked.items.items()}

    # --- moving and deleting -----------------------------------------------------------------------------------
    async def _move(self, uids: list[str], target: str) -> dict[str, State]:
        """Move to a folder, which is created if it is missing, also if it was deleted since we looked."""
        states: dict[str, State] = {}
        left, reason = uids, ""
        for _ in (1, 2):
            if not left:
                break
            try:
                place = soap.folder_id(await self._target(target))
                states.update(await self._move_to(place, left))
                left, reason = await self._still_here([uid for uid in left if states[uid] == ABSENT]), "no such folder"
            except FolderGone as error:
                reason = str(error)
            except Denied as error:
                return _all_plain({**states, **dict.fromkeys(left, ("failed", str(error)))})
            if left:
                self._folders.forget(target)
        return _all_plain(
            {**states, **dict.fromkeys(left, ("pending", f"the server does not move messages: {reason}"))}
        )

    async def _move_to(self, place: str, uids: list[str]) -> dict[str, State]:
        """Move to the folder that the element ``place`` names. One that has no new id afterwards is looked for."""
        renamed: list[bool] = []

        def note(reply: Reply) -> None:
            renamed.append(_has_new_id(reply, uids))

        states = await self._ask(soap.move_items(uids, place), uids, "move messages", note)
        silent = [uid for uid, has in zip(uids, renamed, strict=False) if not has and states[uid] == APPLIED]
        return {**states, **await self._left(silent, "moved")}

    async def _target(self, target: str) -> str:
        """The id of the folder, which is made if it is missing. Raises :class:`Denied` if that will never be."""
        try:
            return await self._folders.find(target)
        except FolderGone:
            return await self._folders.make(target)

    async def _still_here(self, uids: list[str]) -> list[str]:
        """Those that the server shows although it said that something is not there: then it meant the target."""
        return list(await self._look(uids, {}))

    async def _delete(self, uids: list[str]) -> dict[str, State]:
        if not uids:
            return {}
        if self._deletion == "deleted-items":
            # DeleteItem with MoveToDeletedItems is refused to delegates; MoveItem is not.
            return await self._move(uids, DELETED_ITEMS)
        request = soap.delete_items(uids, _DELETE_TYPE[self._deletion])
        states = await self._ask(request, uids, "delete messages")
        states.update(await self._left([uid for uid in uids if states[uid] == APPLIED], "deleted"))
        return _all_plain(states)

    async def _left(self, uids: list[str], done: str) -> dict[str, State]:
        """The states of those that the server shows although it says that they are ``done`` with."""
        shown = (await look_at(self._client, uids)).items
        return dict.fromkeys(shown, ("failed", f"the server says that the message is {done}, and shows it"))

    # --- asking ------------------------------------------------------------------------------------------------
    async def _ask(
        self, request: Request, uids: list[str], doing: str, note: Callable[[Reply], None] | None = None
    ) -> dict[str, State]:
        """The state of each item, ``ABSENT`` for one that is not there. ``note`` sees every reply.

        Raises :class:`FolderGone` if all of them lack their folder, and the session's errors.
        """
        replies = await self._client.ask(request, doing)
        if len(replies) != len(uids):
            reason = f"the server does not {doing}: {len(replies)} answers to {len(uids)} questions"
            return dict.fromkeys(uids, ("pending", reason))
        states: dict[str, State] = {}
        for uid, reply in zip(uids, replies, strict=True):
            if note is not None:
                note(reply)
            states[uid] = _state(reply)
        if all(reply.code in FOLDER_GONE for reply in replies):
            raise replies[0].trouble(doing)
        return states


def _state(reply: Reply) -> State:
    if reply.ok:
        return APPLIED
    if reply.code in GONE:
        return ABSENT
    return ("failed" if reply.code in NEVER else "pending"), reply.words


def _has_new_id(reply: Reply, uids: Sequence[str]) -> bool:
    """Whether an item that was moved has the other id that only its new place can have given it."""
    items = reply.node.find("Items")
    ids = [one.find("ItemId") for one in items.children] if items is not None else []
    return bool(ids) and all(one is not None and one.attributes.get("Id", "") not in ("", *uids) for one in ids)


def _marks(change: soap.Change) -> set[str]:
    """What a change sets, in words."""
    named = {"the read mark": change.seen, "the flag": change.flagged, "the categories": change.categories is not None}
    return {name for name, sets in named.items() if sets}


def _kept(change: soap.Change, node: Node) -> set[str]:
    """Which of its marks an item shows."""
    flags = flags_of(node)
    has = {one.lower() for one in categories_of(node)}
    kept = {
        "the read mark": "\\Seen" in flags,
        "the flag": "\\Flagged" in flags,
        "the categories": has.issuperset(one.lower() for one in change.categories or ()),
    }
    return {name for name in _marks(change) if kept[name]}


def _known(node: Node) -> Known:
    item = node.find("ItemId")
    return Known(node.name, "" if item is None else item.attributes.get("ChangeKey", ""))


def _plain(state: State) -> State:
    return APPLIED if state[0] == "applied" else state


def _all_plain(states: dict[str, State]) -> dict[str, State]:
    return {uid: _plain(state) for uid, state in states.items()}
