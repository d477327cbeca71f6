"""Which message takes the session with it: found among its neighbours with few sessions lost, and without delaying
others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from mailpoller.core.message import Folder, MessageRef


class Doubt:
    """Messages that were asked for, and had not come, when a session was lost.

    There are servers that hang up whenever they are asked for one particular message. Which one that is, only trying
    shows, and every wrong guess costs a session and a longer wait. So all that are in doubt go after everything else,
    first the one that was next to come, alone, because it is most likely to blame; then the others, a quarter of them
    at a time.
    """

    def __init__(self) -> None:
        self._refs: dict[tuple[Folder, str], MessageRef] = {}
        self._next_alone = False
        self._at_once = 1
        self._absolved: list[MessageRef] = []

    def recall(self, refs: Sequence[MessageRef]) -> None:
        """These were in doubt when an earlier process ended."""
        self._refs = self._refs | {_key(ref): ref for ref in refs}
        self._next_alone = self._next_alone or bool(refs)

    def forget(self, folder: Folder) -> None:
        """The names of this folder are given anew: those in doubt may be names of others, or of none."""
        self._refs = {key: ref for key, ref in self._refs.items() if key[0] != folder}

    def absolved(self) -> list[MessageRef]:
        """Those that the session outlived since this was asked last."""
        absolved, self._absolved = self._absolved, []
        return absolved

    def lost(self, missing: Sequence[MessageRef]) -> bool:
        """The session was lost while ``missing`` had not come, in the order in which they were asked for.

        True if that is one message which was in doubt already: it is to blame, and nothing else is in doubt any more.
        """
        if len(missing) == 1 and _key(missing[0]) in self._refs:
            guilty = self._refs.pop(_key(missing[0]))
            self._absolved = [ref for ref in self._absolved if _key(ref) != _key(guilty)] + list(self._refs.values())
            self._refs.clear()
            return True
        refs = {_key(ref): ref for ref in missing}
        self._refs = refs | {key: ref for key, ref in self._refs.items() if key not in refs}
        self._next_alone = True
        self._at_once = max(1, len(missing) // 4)
        return False

    def uids(self, folder: Folder) -> Collection[str]:
        """The uids in doubt in this folder."""
        return {uid for where, uid in self._refs if where == folder}

    def pieces(self, folder: Folder) -> Iterator[list[MessageRef]]:
        """The messages in doubt, as they should be tried together. Asking for the next piece says that the last one
        went well."""
        while waiting := [ref for (where, _), ref in self._refs.items() if where == folder]:
            piece = waiting[: 1 if self._next_alone else self._at_once]
            yield piece
            self._next_alone = False
            self.cleared(piece)

    def untried(self, refs: Sequence[MessageRef]) -> None:
        """These were not asked for after all, because their time has not come: who is to blame stays to blame."""
        for ref in refs:
            self._refs.pop(_key(ref), None)

    def cleared(self, refs: Sequence[MessageRef]) -> None:
        """The session outlived these."""
        for ref in refs:
            if self._refs.pop(_key(ref), None) is not None:
                self._absolved.append(ref)


def _key(ref: MessageRef) -> tuple[Folder, str]:
    return ref.folder, ref.uid
