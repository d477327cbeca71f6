"""Dispositions on the server: flags, moves, deletions, in sets; and what each refusal means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from mailpoller.core.delivery import Disposition
from mailpoller.sources.imap.folders import Folders
from mailpoller.sources.imap.names import quote_name, uid_set, uid_sets
from mailpoller.sources.imap.protocol import ImapProtocol, Mailbox
from mailpoller.sources.imap.responses import Fetched, Status

State = tuple[Literal["applied", "failed", "pending"], str]
APPLIED: State = ("applied", "")

_NO_SUCH_FOLDER = {"TRYCREATE", "NONEXISTENT"}
_PASSING = {"INUSE", "SERVERBUG", "EXPUNGEISSUED", "CLOSED"}
_PASSING_WORDS = ("try again", "temporar", "timeout", "timed out", "unavailable")
_FOR_ALL_ALIKE = _NO_SUCH_FOLDER | {"NOPERM", "OVERQUOTA", "CANNOT", "READ-ONLY", "CLOSED"}


def objection(protocol: ImapProtocol, mailbox: Mailbox, disposition: Disposition) -> State | None:
    """Why the folder cannot take this disposition, as far as SELECT tells; None if it can."""
    if mailbox.read_only:
        return "failed", "the server opens the folder read-only"
    allowed = mailbox.permanent_flags
    if allowed is None:  # not told: everything can be changed (RFC 3501 section 7.1)
        return None
    wanted = _flags(disposition)
    if disposition.delete or (disposition.move and not protocol.offers("MOVE")):
        wanted.append("\\Deleted")
    for flag in wanted:
        if flag.lower() not in allowed and (flag.startswith("\\") or "\\*" not in allowed):
            return "failed", f"the folder does not allow the flag {flag}"
    return None


class Settling:
    """One disposition for some messages of the folder that is open.

    ``mailbox`` is that folder, ``wire`` its name on the server, ``uids`` are ascending. Idempotent: a message that has
    left the folder is ``applied``.
    """

    def __init__(
        self, protocol: ImapProtocol, folders: Folders, mailbox: Mailbox, wire: str, uids: Sequence[int]
    ) -> None:
        self._protocol = protocol
        self._folders = folders
        self._mailbox = mailbox
        self._wire = wire
        self._states: dict[int, State] = dict.fromkeys(uids, APPLIED)

    async def apply(self, disposition: Disposition) -> dict[int, State]:
        """Carry it out: seen and flags first, then move or delete what was not refused before.

        Raises :class:`SessionLost`; then nothing is known.
        """
        if disposition.leaves:
            return self._states
        if (refused := objection(self._protocol, self._mailbox, disposition)) is not None:
            self._note(self._states, refused)
            return self._states
        if flags := _flags(disposition):
            await self._each(self._willing(), "STORE", "+FLAGS.SILENT", f"({' '.join(flags)})")
        if disposition.move:
            await self._move(self._willing(), disposition.move)
        elif disposition.delete:
            await self._expunge(self._willing())
        return self._states

    def _willing(self) -> list[int]:
        return [uid for uid, state in self._states.items() if state == APPLIED]

    def _note(self, uids: Iterable[int], state: State) -> None:
        self._states.update(dict.fromkeys(uids, state))

    # --- moving ----------------------------------------------------------------------------------------------
    async def _move(self, uids: Sequence[int], target: str) -> None:
        wire, exists = await self._folders.find(target)
        if wire == self._wire:
            self._note(uids, ("failed", "the target of the move is the folder itself"))
            return
        if not exists and (refused := await self._create(wire)) is not None:
            self._note(uids, refused)
            return
        verb = "MOVE" if self._protocol.offers("MOVE") else "COPY"
        refusals = await self._each(uids, verb, quote_name(wire))
        again = [uid for uid, status in refusals.items() if status.code in _NO_SUCH_FOLDER]
        if again:
            # It was there before and somebody removed it: make it anew and try once more (RFC 3501 section 6.4.7).
            refused = await self._create(wire)
            self._note(again, refused or APPLIED)
            if refused is None:
                await self._each(again, verb, quote_name(wire))
        if verb == "COPY":
            # RFC 6851 section 3.3 without MOVE. Killed between the COPY's answer and the STORE, the copy is there and the
            # original is not marked: the next attempt copies again, and the mail is twice in the target. It
            # cannot be told from a copy that never happened without searching the target, where readers move mail
            # on. Killed between STORE and EXPUNGE, it is copied again too. Never lost.
            await self._expunge([uid for uid in uids if self._states[uid] == APPLIED])

    async def _create(self, wire: str) -> State | None:
        """Make the target. None: it is there now."""
        status = (await self._protocol.run("CREATE", quote_name(wire))).status
        if not status.ok and status.code != "ALREADYEXISTS":
            # Another session may have been faster, and not every server has the code: ask.
            answer = await self._protocol.run("LIST", '""', quote_name(wire), wants=(b"LIST",))
            return None if answer.data else _refused(status)
        await self._protocol.run("SUBSCRIBE", quote_name(wire))  # so that people see it; no matter if refused
        return None

    # --- deleting --------------------------------------------------------------------------------------------
    async def _expunge(self, uids: Sequence[int]) -> None:
        """Mark deleted and expunge these and no others (RFC 4315). A bare EXPUNGE would take what others have marked, so
        without UIDPLUS marking is all that is done."""
        possible = self._protocol.offers("UIDPLUS")
        if possible:
            # Sent together, to be as short as can be between the two; expunging what is not marked does nothing.
            requests = [
                self._protocol.submit(*words, within=self._mailbox)
                for _, piece in uid_sets(uids)
                for words in (("STORE", piece, "+FLAGS.SILENT", "(\\Deleted)"), ("EXPUNGE", piece))
            ]
            if all([(await request.answer()).status.ok for request in requests]):
                return
        refusals = await self._each(uids, "STORE", "+FLAGS.SILENT", "(\\Deleted)")
        marked = [uid for uid in uids if uid not in refusals]
        if possible:
            await self._each(marked, "EXPUNGE")
        else:
            self._note(marked, ("applied", "marked as deleted; the server cannot expunge single messages (no UIDPLUS)"))

    # --- asking ----------------------------------------------------------------------------------------------
    async def _each(self, uids: Sequence[int], verb: str, *arguments: str) -> dict[int, Status]:
        """Send a command for all; where a set is refused, one by one, so that one message does not stop the others.

        Notes what failed, and gives the refusals. Commands are sent without waiting for each other's answers.
        """
        refusals: dict[int, Status] = {}
        doubtful: list[int] = []
        for piece, status in await self._ask(list(uid_sets(uids)), verb, arguments):
            if not status.ok:
                if len(piece) == 1 or _for_all_alike(status):
                    refusals.update(dict.fromkeys(piece, status))
                else:
                    doubtful.extend(piece)
        if doubtful:
            self._protocol.submit("NOOP")  # lets the server say which are gone
            for (uid,), status in await self._ask([((uid,), str(uid)) for uid in doubtful], verb, arguments):
                if not status.ok:
                    refusals[uid] = status
        unclear = [uid for uid, status in refusals.items() if not _for_all_alike(status)]
        for uid in set(unclear) - await self._present(unclear):
            del refusals[uid]
        for uid, status in refusals.items():
            self._states[uid] = _refused(status)
        return refusals

    async def _ask(
        self, pieces: Sequence[tuple[Sequence[int], str]], verb: str, arguments: Sequence[str]
    ) -> list[tuple[Sequence[int], Status]]:
        requests = [
            (piece, self._protocol.submit(verb, words, *arguments, within=self._mailbox)) for piece, words in pieces
        ]
        return [(piece, (await request.answer()).status) for piece, request in requests]

    async def _present(self, uids: Sequence[int]) -> set[int]:
        """Which of ``uids`` are in the folder; all, if the server does not say."""
        wanted = set(uids)
        present: set[int] = set()

        def note(fetched: Fetched) -> bool:
            uid = int(fetched.uid or 0)
            if uid in wanted:
                present.add(uid)
            return uid in wanted

        if not uids:
            return present
        answer = await self._protocol.run(
            "FETCH", uid_set(sorted(uids)), "(UID FLAGS)", within=self._mailbox, on_fetch=note
        )
        return present if answer.status.ok else wanted


def _flags(disposition: Disposition) -> list[str]:
    return [*(["\\Seen"] if disposition.seen else []), *disposition.flags]


def _for_all_alike(status: Status) -> bool:
    """No single message is to blame for this refusal: trying one by one would give the same again."""
    return status.busy or status.code in _FOR_ALL_ALIKE


def _refused(status: Status) -> State:
    passing = status.busy or status.code in _PASSING or any(word in status.text.lower() for word in _PASSING_WORDS)
    return ("pending" if passing else "failed"), f"the server says {status}"
