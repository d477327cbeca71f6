"""Dispositions on the server: flags, moves, deletions, in sets; and what each refusal means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Literal

from mailpoller.core.delivery import Disposition, Settlement
from mailpoller.sources.imap.copies import Aside, copies
from mailpoller.sources.imap.effects import Done, Effects, messages
from mailpoller.sources.imap.trust import Trust
from mailpoller.wire.imap.folders import Folders
from mailpoller.wire.imap.names import composed, uid_sets
from mailpoller.wire.imap.protocol import ImapProtocol
from mailpoller.wire.imap.responses import Status
from mailpoller.wire.imap.selected import SelectedFolder

State = tuple[Literal["applied", "failed", "pending"], str]
APPLIED: State = ("applied", "")
_UNSEEN: State = ("pending", "the server does not show what has become of it")

NO_TRASH = "Gmail shows no trash by IMAP, and without it keeps what is deleted: show it in Gmail's settings, Labels"

_NO_SUCH_FOLDER = {"TRYCREATE", "NONEXISTENT"}
_PASSING = {"INUSE", "SERVERBUG", "EXPUNGEISSUED", "CLOSED"}
_PASSING_WORDS = ("try again", "temporar", "timeout", "timed out", "unavailable")
_FOR_ALL_ALIKE = _NO_SUCH_FOLDER | {"NOPERM", "OVERQUOTA", "CANNOT", "READ-ONLY", "CLOSED"}


def objection(protocol: ImapProtocol, mailbox: SelectedFolder, disposition: Disposition) -> State | None:
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


def alike(settlements: Sequence[Settlement]) -> list[tuple[Disposition, list[Settlement]]]:
    """Neighbours that want the same together: mostly one and the same object, which is not hashed for each message."""
    return [(wish, list(several)) for wish, several in groupby(settlements, attrgetter("disposition"))]


class Settling:
    """One disposition for some messages of the folder that is open.

    ``mailbox`` is that folder, ``wire`` its name on the server, ``uids`` are ascending. Idempotent: a message that
    has left the folder is ``applied``. OK is no evidence: right behind each command the folder is looked at, in the
    same breath; what it shows unchanged has ``failed``.
    """

    def __init__(
        self,
        protocol: ImapProtocol,
        folders: Folders,
        mailbox: SelectedFolder,
        wire: str,
        uids: Sequence[int],
        *,
        epoch: str,
        trust: Trust,
        aside: Aside,
    ) -> None:
        self._protocol = protocol
        self._folders = folders
        self._effects = Effects(protocol, mailbox)
        self._wire = wire
        self._epoch = epoch
        self._trust = trust
        self._aside = aside
        self._states: dict[int, State] = dict.fromkeys(uids, APPLIED)

    async def apply(self, disposition: Disposition) -> dict[int, State]:
        """Carry it out: seen and flags first, then move or delete what was not refused before.

        Raises :class:`SessionLost`; then nothing is known.
        """
        if disposition.leaves:
            return self._states
        if (refused := objection(self._protocol, self._effects.mailbox, disposition)) is not None:
            self._note(self._states, refused)
            return self._states
        if flags := _flags(disposition):
            await self._flag(self._willing(), flags)
        if disposition.move:
            await self._move(self._willing(), disposition.move)
        elif disposition.delete:
            await self._delete(self._willing())
        return self._states

    async def _delete(self, uids: Sequence[int]) -> None:
        """Gmail only takes the label off what is expunged, and keeps it in All Mail: what is in the trash is deleted
        (https://support.google.com/mail/answer/77657)."""
        if "X-GM-EXT-1" not in self._protocol.capabilities:
            await self._expunge(uids)
        elif (trash := await self._folders.trash()) is None:
            self._note(uids, ("failed", NO_TRASH))
        elif composed(trash) == composed(self._wire):
            await self._expunge(uids)
        else:
            await self._move(uids, trash)

    def _willing(self) -> list[int]:
        return [uid for uid, state in self._states.items() if state == APPLIED]

    def _note(self, uids: Iterable[int], state: State) -> None:
        self._states.update(dict.fromkeys(uids, state))

    async def _flag(self, uids: Sequence[int], flags: Sequence[str]) -> None:
        wanted = frozenset(flag.lower() for flag in flags)
        done = await self._each(uids, "STORE", "+FLAGS.SILENT", f"({' '.join(flags)})")
        done = await self._effects.again(done, lambda seen: not wanted <= seen)
        for one in done:
            if one.shown is None:
                self._note(one.uids, _UNSEEN)
                continue
            lacking = [uid for uid in one.uids if uid in one.shown and not wanted <= one.shown[uid]]
            self._note(lacking, ("failed", f"the server says {one.status}, but {' '.join(flags)} is not set"))

    # --- moving ----------------------------------------------------------------------------------------------
    async def _move(self, uids: Sequence[int], target: str) -> None:
        wire, exists = await self._folders.find(target)
        if composed(wire) == composed(self._wire):
            self._note(uids, ("failed", "the target of the move is the folder itself"))
            return
        if not exists and (refused := await self._create(wire)) is not None:
            self._note(uids, refused)
            return
        if perhaps := [uid for uid in uids if (self._epoch, uid, wire) in self._trust.copied]:
            await self._finish(perhaps, wire)
            uids = [uid for uid in uids if uid not in set(perhaps) or self._is_open(uid, wire)]
        moves = self._protocol.offers("MOVE")
        before = (
            None
            if moves
            else self._protocol.submit("STATUS", self._protocol.named(wire), "(MESSAGES)", wants=(b"STATUS",))
        )
        done = await self._effects.ask(list(uid_sets(uids)), "MOVE" if moves else "COPY", (self._protocol.named(wire),))
        if again := [uid for one in done if one.status.code in _NO_SUCH_FOLDER for uid in one.uids]:
            # It was there before and somebody removed it: make it anew and try once more (RFC 3501 section 6.4.7).
            done = [one for one in done if one.status.code not in _NO_SUCH_FOLDER]
            if (refused := await self._create(wire)) is not None:
                self._note(again, refused)
            else:
                done += await self._effects.ask(
                    list(uid_sets(again)), "MOVE" if moves else "COPY", (self._protocol.named(wire),)
                )
        done = await self._after_refusals(done, wire, "MOVE" if moves else "COPY")
        if moves:
            self._moved(done, wire)
        else:
            await self._copied(done, wire, await messages(before))

    def _is_open(self, uid: int, wire: str) -> bool:
        """Nothing has become of it: not in the target, and to be moved."""
        return self._states[uid] == APPLIED and (self._epoch, uid, wire) not in self._trust.copied

    def _moved(self, done: Iterable[Done], wire: str) -> None:
        for one in done:
            if one.shown is None:
                self._note(one.uids, _UNSEEN)
                continue
            still = [uid for uid in one.uids if uid in one.shown]
            self._trust.doubt(self._epoch, still, wire)
            self._note(still, ("failed", f"the server says {one.status}, but the message is still there"))

    async def _copied(self, done: Iterable[Done], wire: str, before: int | None) -> None:
        """RFC 6851 section 3.3 without MOVE: what was copied is expunged, if there is evidence of the copy.

        Killed between the COPY's answer and the STORE, the copy is there and the original is not marked: the next
        attempt copies again, and the mail is twice in the target. Killed between STORE and EXPUNGE, it is copied
        again too. Never lost.
        """
        copied: list[int] = []
        silent: list[int] = []
        for one in done:
            if one.shown is None:
                self._note(one.uids, _UNSEEN)
                continue
            there = [uid for uid in one.uids if uid in one.shown]
            if one.copied:
                copied += [uid for uid in there if uid in one.copied]
                left = [uid for uid in there if uid not in one.copied]
                self._note(left, ("failed", f"the server says {one.status}, but did not copy the message"))
            else:
                silent += there
        if silent:
            # Nothing said (no UIDPLUS): the target has that many more now, or it is looked into.
            after = await messages(
                self._protocol.submit("STATUS", self._protocol.named(wire), "(MESSAGES)", wants=(b"STATUS",))
            )
            if before is not None and after is not None and after - before >= len(silent) + len(copied):
                copied += silent
            else:
                found = await copies(self._protocol, self._effects, self._aside, silent, wire)
                copied += [uid for uid in silent if found.get(uid)]
                self._note(
                    [uid for uid in silent if not found.get(uid)],
                    ("failed", "the server says OK to the copy, but the target does not show it"),
                )
                self._trust.doubt(self._epoch, [uid for uid in silent if found.get(uid) is None], wire)
        await self._expunge(sorted(copied), wire)

    async def _after_refusals(self, done: Sequence[Done], wire: str, verb: str) -> list[Done]:
        """Sets that were refused: what is copied all the same is not copied again, but the move completed; the others
        are tried one by one, so that one message does not stop them. Gives what was not refused."""
        good = [one for one in done if one.status.ok]
        refused = [one for one in done if not one.status.ok]
        for one in refused:
            if _for_all_alike(one.status):
                self._note(self._there(one), _refused(one.status))
        doubtful = [one for one in refused if not _for_all_alike(one.status)]
        alone: list[int] = []
        for one in doubtful:
            there = self._there(one)
            self._note(there, _refused(one.status))
            self._trust.doubt(self._epoch, there, wire)
            if copied := sorted(one.copied.intersection(there)):
                await self._expunge(copied, wire)
            if unknown := [uid for uid in there if uid not in one.copied]:
                await self._finish(unknown, wire)
                if len(one.uids) > 1:
                    alone += [
                        uid
                        for uid in unknown
                        if (self._epoch, uid, wire) not in self._trust.copied and self._is_left(uid)
                    ]
        if alone:
            self._note(alone, APPLIED)
            for one in await self._effects.ask(
                [((uid,), str(uid)) for uid in alone], verb, (self._protocol.named(wire),)
            ):
                if one.status.ok:
                    good.append(one)
                    continue
                there = self._there(one)
                self._note(there, _refused(one.status))
                if not _for_all_alike(one.status):
                    self._trust.doubt(self._epoch, there, wire)
        return good

    def _there(self, done: Done) -> list[int]:
        """Which of the messages are in the folder; all, if the server does not say."""
        return [uid for uid in done.uids if done.shown is None or uid in done.shown]

    def _is_left(self, uid: int) -> bool:
        return self._states[uid] != APPLIED

    async def _finish(self, uids: Sequence[int], wire: str) -> None:
        """Messages that may have been copied before: if so, expunge them; if not, nothing is to be feared. Where it
        cannot be told they are left alone, for else each attempt would leave a copy."""
        found = await copies(self._protocol, self._effects, self._aside, uids, wire)
        copied = [uid for uid in uids if found.get(uid)]
        for uid in uids:
            if found.get(uid) is False:
                self._trust.copied.pop((self._epoch, uid, wire), None)
            elif found.get(uid) is None and self._states[uid] == APPLIED:
                self._note([uid], ("failed", "it cannot be told whether it was copied to the target before"))
        if copied:
            self._note(copied, APPLIED)
            await self._expunge(copied, wire)

    async def _create(self, wire: str) -> State | None:
        """Make the target. None: it is there now."""
        status = (await self._protocol.run("CREATE", self._protocol.named(wire))).status
        if not status.ok and status.code != "ALREADYEXISTS":
            # Another session may have been faster, and not every server has the code: ask.
            answer = await self._protocol.run("LIST", '""', self._protocol.named(wire), wants=(b"LIST",))
            return None if answer.data else _refused(status)
        await self._protocol.run("SUBSCRIBE", self._protocol.named(wire))  # so that people see it; no matter if refused
        return None

    # --- deleting --------------------------------------------------------------------------------------------
    async def _expunge(self, uids: Sequence[int], wire: str = "") -> None:
        """Mark deleted and expunge these and no others (RFC 4315). A bare EXPUNGE would take what others have marked,
        so without UIDPLUS marking is all that is done. ``wire``: the folder that they were copied to before."""
        mark = ("STORE", "+FLAGS.SILENT", "(\\Deleted)")
        if not self._protocol.offers("UIDPLUS"):
            await self._flag(uids, ["\\Deleted"])
            marked = [uid for uid in uids if self._states[uid] == APPLIED]
            self._note(marked, ("applied", "marked as deleted; the server cannot expunge single messages (no UIDPLUS)"))
            return
        # Sent together, to be as short as can be between the two; expunging what is not marked does nothing.
        asked = []
        for piece, words in uid_sets(uids):
            marking = self._protocol.submit(*mark[:1], words, *mark[1:], within=self._effects.mailbox)
            asked.append((piece, words, marking, self._protocol.submit("EXPUNGE", words, within=self._effects.mailbox)))
        done, good, expunged = [], True, 0
        for piece, _, marking, expunging in asked:
            said, status = (await marking.answer()).status, (await expunging.answer()).status
            expunged += expunging.expunged
            good = good and said.ok and status.ok
            done.append(Done(piece, status, {}))
        if good:
            if expunged < len(uids):
                looks = [self._effects.look(piece, words) for piece, words, _, _ in asked]
                seen = [shown if (await request.answer()).status.ok else None for request, shown in looks]
                done = await self._effects.again(
                    [replace(one, shown=shown) for one, shown in zip(done, seen, strict=True)]
                )
            for one in done:
                self._left(one, wire)
            return
        await self._each(uids, *mark)
        rest = [uid for uid in uids if self._states[uid] == APPLIED]
        for one in await self._each(rest, "EXPUNGE"):
            self._left(one, wire)

    def _left(self, done: Done, wire: str) -> None:
        """What the folder still shows was not expunged, whatever the server says."""
        if done.shown is None:
            self._note(done.uids, _UNSEEN)
            return
        still = [uid for uid in done.uids if uid in done.shown]
        self._note(still, ("failed", f"the server says {done.status}, but the message is still there"))
        if wire:
            self._trust.doubt(self._epoch, still, wire)
            for uid in set(done.uids).difference(still):
                self._trust.copied.pop((self._epoch, uid, wire), None)

    # --- asking ----------------------------------------------------------------------------------------------
    async def _each(self, uids: Sequence[int], verb: str, *arguments: str) -> list[Done]:
        """Send a command, which may be sent twice, for all; where a set is refused, one by one, so that one message
        does not stop the others.

        Notes what failed, and gives what was not refused. Commands are sent without waiting for each other's answers.
        """
        good: list[Done] = []
        refused: list[Done] = []
        doubtful: list[int] = []
        for done in await self._effects.ask(list(uid_sets(uids)), verb, arguments):
            if done.status.ok:
                good.append(done)
            elif len(done.uids) == 1 or _for_all_alike(done.status):
                refused.append(done)
            else:
                doubtful.extend(self._there(done))
        if doubtful:
            for done in await self._effects.ask([((uid,), str(uid)) for uid in doubtful], verb, arguments):
                (good if done.status.ok else refused).append(done)
        for done in refused:
            self._note(self._there(done), _refused(done.status))
        return good


def _flags(disposition: Disposition) -> list[str]:
    return [*(["\\Seen"] if disposition.seen else []), *disposition.flags]


def _for_all_alike(status: Status) -> bool:
    """No single message is to blame for this refusal: trying one by one would give the same again."""
    return status.busy or status.code in _FOR_ALL_ALIKE


def _refused(status: Status) -> State:
    passing = status.busy or status.code in _PASSING or any(word in status.text.lower() for word in _PASSING_WORDS)
    return ("pending" if passing else "failed"), f"the server says {status}"
