"""Which messages take the session with them: found among its neighbours with few sessions lost, and without delaying
others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from mailpoller.core.message import Folder, MessageRef


class HangupSuspects:
    """Messages that were asked for, and had not come, when a session was lost.

    There are servers that hang up whenever they are asked for certain messages. Which those are, only trying shows,
    and every wrong guess costs a session. So all that are in doubt go after everything else: first the one that was
    next to come, alone, because it is most likely to blame; then the others, a quarter of them at a time; and last,
    each alone, those that are known to have taken sessions with them before.
    """

    def __init__(self) -> None:
        self._refs: dict[tuple[Folder, str], MessageRef] = {}
        self._alone: set[tuple[Folder, str]] = set()
        """Those of them that are tried last, and alone."""
        self._next_alone = False
        self._at_once = 1
        self._absolved: list[MessageRef] = []

    def recall(self, refs: Sequence[MessageRef]) -> None:
        """Sessions were lost with these before."""
        self._refs = self._refs | {_key(ref): ref for ref in refs}
        self._alone.update(_key(ref) for ref in refs)

    def forget(self, folder: Folder) -> None:
        """The names of this folder are given anew: those in doubt may be names of others, or of none."""
        self._refs = {key: ref for key, ref in self._refs.items() if key[0] != folder}
        self._alone &= self._refs.keys()

    def absolved(self) -> list[MessageRef]:
        """Those that the session outlived since this was asked last."""
        absolved, self._absolved = self._absolved, []
        return absolved

    def lost(self, missing: Sequence[MessageRef]) -> bool:
        """The session was lost while ``missing`` had not come, in the order in which they were asked for.

        True if that is one message which was in doubt already: it is to blame. There may be more such messages, so
        the others stay in doubt until they have come.
        """
        if len(missing) == 1 and _key(missing[0]) in self._refs:
            guilty = self._drop(missing[0])
            self._absolved = [ref for ref in self._absolved if ref is not guilty and _key(ref) != _key(missing[0])]
            self._next_alone = False
            self._at_once = max(1, len(self._refs) // 4)
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
            free = [ref for ref in waiting if _key(ref) not in self._alone]
            piece = free[: 1 if self._next_alone else self._at_once] or waiting[:1]
            yield piece
            self._next_alone = False
            self.cleared(piece)

    def untried(self, refs: Sequence[MessageRef]) -> None:
        """These were not asked for after all, because their time has not come: who is to blame stays to blame."""
        if self._refs:  # else there is nothing to forget, as in nearly every batch
            for ref in refs:
                self._drop(ref)

    def cleared(self, refs: Sequence[MessageRef]) -> None:
        """The session outlived these."""
        if self._refs:
            self._absolved += [ref for ref in refs if self._drop(ref) is not None]

    def _drop(self, ref: MessageRef) -> MessageRef | None:
        self._alone.discard(_key(ref))
        return self._refs.pop(_key(ref), None)


def _key(ref: MessageRef) -> tuple[Folder, str]:
    return ref.folder, ref.uid
