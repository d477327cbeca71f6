"""Dispositions on the server: flags, moves, deletions, in sets; and what each refusal means."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, Protocol

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.sources.imap.command import Request
from mailpoller.sources.imap.details import hits, newest
from mailpoller.sources.imap.download import Trust
from mailpoller.sources.imap.folders import Folders
from mailpoller.sources.imap.names import composed, uid_set, uid_sets
from mailpoller.sources.imap.protocol import ImapProtocol
from mailpoller.sources.imap.reader import ProtocolViolation
from mailpoller.sources.imap.responses import Fetched, Status
from mailpoller.sources.imap.selected import SelectedFolder

State = tuple[Literal["applied", "failed", "pending"], str]
APPLIED: State = ("applied", "")
_UNSEEN: State = ("pending", "the server does not show what has become of it")

_NO_FLAGS: frozenset[str] = frozenset()
_RECENT = 2000
"""Uids at the end of a folder among which a copy of ours is looked for, beside some for each message."""

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


@dataclass(frozen=True, slots=True)
class _Done:
    """The answer to a command about ``uids``, and what the folder shows of them behind it: their flags, in lower
    case. ``shown`` is None if the server refuses to show it. ``copied``: those that it says to have copied."""

    uids: Sequence[int]
    status: Status
    shown: Mapping[int, frozenset[str]] | None
    copied: frozenset[int] = frozenset()


class Aside(Protocol):
    """What opens another folder for a while."""

    async def __call__(self, wire: str, work: Callable[[SelectedFolder], Awaitable[None]]) -> SelectedFolder:
        """Do ``work`` in the folder of that name on the server, read-only; then open the former one again, which is
        returned.

        Raises :class:`TransientError`.
        """


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
        self._mailbox = mailbox
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
        if (refused := objection(self._protocol, self._mailbox, disposition)) is not None:
            self._note(self._states, refused)
            return self._states
        if flags := _flags(disposition):
            await self._flag(self._willing(), flags)
        if disposition.move:
            await self._move(self._willing(), disposition.move)
        elif disposition.delete:
            await self._expunge(self._willing())
        return self._states

    def _willing(self) -> list[int]:
        return [uid for uid, state in self._states.items() if state == APPLIED]

    def _note(self, uids: Iterable[int], state: State) -> None:
        self._states.update(dict.fromkeys(uids, state))

    async def _flag(self, uids: Sequence[int], flags: Sequence[str]) -> None:
        wanted = frozenset(flag.lower() for flag in flags)
        done = await self._each(uids, "STORE", "+FLAGS.SILENT", f"({' '.join(flags)})")
        done = await self._again(done, lambda seen: not wanted <= seen)
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
        done = await self._ask(list(uid_sets(uids)), "MOVE" if moves else "COPY", (self._protocol.named(wire),))
        if again := [uid for one in done if one.status.code in _NO_SUCH_FOLDER for uid in one.uids]:
            # It was there before and somebody removed it: make it anew and try once more (RFC 3501 section 6.4.7).
            done = [one for one in done if one.status.code not in _NO_SUCH_FOLDER]
            if (refused := await self._create(wire)) is not None:
                self._note(again, refused)
            else:
                done += await self._ask(
                    list(uid_sets(again)), "MOVE" if moves else "COPY", (self._protocol.named(wire),)
                )
        done = await self._after_refusals(done, wire, "MOVE" if moves else "COPY")
        if moves:
            self._moved(done, wire)
        else:
            await self._copied(done, wire, await _messages(before))

    def _is_open(self, uid: int, wire: str) -> bool:
        """Nothing has become of it: not in the target, and to be moved."""
        return self._states[uid] == APPLIED and (self._epoch, uid, wire) not in self._trust.copied

    def _moved(self, done: Iterable[_Done], wire: str) -> None:
        for one in done:
            if one.shown is None:
                self._note(one.uids, _UNSEEN)
                continue
            still = [uid for uid in one.uids if uid in one.shown]
            self._trust.doubt(self._epoch, still, wire)
            self._note(still, ("failed", f"the server says {one.status}, but the message is still there"))

    async def _copied(self, done: Iterable[_Done], wire: str, before: int | None) -> None:
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
            after = await _messages(
                self._protocol.submit("STATUS", self._protocol.named(wire), "(MESSAGES)", wants=(b"STATUS",))
            )
            if before is not None and after is not None and after - before >= len(silent) + len(copied):
                copied += silent
            else:
                found = await self._copies(silent, wire)
                copied += [uid for uid in silent if found.get(uid)]
                self._note(
                    [uid for uid in silent if not found.get(uid)],
                    ("failed", "the server says OK to the copy, but the target does not show it"),
                )
                self._trust.doubt(self._epoch, [uid for uid in silent if found.get(uid) is None], wire)
        await self._expunge(sorted(copied), wire)

    async def _after_refusals(self, done: Sequence[_Done], wire: str, verb: str) -> list[_Done]:
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
            for one in await self._ask([((uid,), str(uid)) for uid in alone], verb, (self._protocol.named(wire),)):
                if one.status.ok:
                    good.append(one)
                    continue
                there = self._there(one)
                self._note(there, _refused(one.status))
                if not _for_all_alike(one.status):
                    self._trust.doubt(self._epoch, there, wire)
        return good

    def _there(self, done: _Done) -> list[int]:
        """Which of the messages are in the folder; all, if the server does not say."""
        return [uid for uid in done.uids if done.shown is None or uid in done.shown]

    def _is_left(self, uid: int) -> bool:
        return self._states[uid] != APPLIED

    async def _finish(self, uids: Sequence[int], wire: str) -> None:
        """Messages that may have been copied before: if so, expunge them; if not, nothing is to be feared. Where it
        cannot be told they are left alone, for else each attempt would leave a copy."""
        found = await self._copies(uids, wire)
        copied = [uid for uid in uids if found.get(uid)]
        for uid in uids:
            if found.get(uid) is False:
                self._trust.copied.pop((self._epoch, uid, wire), None)
            elif found.get(uid) is None and self._states[uid] == APPLIED:
                self._note([uid], ("failed", "it cannot be told whether it was copied to the target before"))
        if copied:
            self._note(copied, APPLIED)
            await self._expunge(copied, wire)

    async def _copies(self, uids: Sequence[int], wire: str) -> dict[int, bool]:
        """Which of these messages of our folder lie in the folder ``wire`` too: a mail with the same ENVELOPE (RFC
        3501 section 7.4.2), its Message-ID among it, and of the same size. One that is not in the answer: cannot be
        told. The folder is changed and changed back."""
        ours: dict[int, str] = {}
        theirs: set[str] = set()
        own: set[int] = set()
        told: list[bool] = []
        here, alike = self._mailbox, False

        def note(fetched: Fetched) -> bool:
            if fetched.size is None or not any(fetched.envelope or ()):
                return False
            ours[int(fetched.uid or 0)] = f"{fetched.size} {fetched.envelope!r}"
            return True

        def compare(fetched: Fetched) -> bool:
            uid, mail = int(fetched.uid or 0), f"{fetched.size} {fetched.envelope!r}"
            if alike and ours.get(uid) == mail:
                own.add(uid)  # perhaps it is our folder itself, by another name, and this no copy at all
            else:
                theirs.add(mail)
            return True

        async def look(mailbox: SelectedFolder) -> None:
            nonlocal alike
            alike = mailbox.uidvalidity == here.uidvalidity
            if not mailbox.exists:
                told.append(True)
                return
            last = mailbox.uidnext or (await newest(self._protocol, mailbox))[0] + 1
            low = max(1, last - _RECENT - 4 * len(uids))
            answer = await self._protocol.run("FETCH", f"{low}:*", items, within=mailbox, on_fetch=compare)
            told.append(answer.status.ok)

        items = "(RFC822.SIZE ENVELOPE)"
        for _, words in uid_sets(uids):
            await self._protocol.run("FETCH", words, items, within=self._mailbox, on_fetch=note)
        if not ours:
            return {}
        try:
            self._mailbox = await self._aside(wire, look)
        except SessionLost:
            raise
        except TransientError:
            return {}
        if told != [True]:
            return {}
        return {
            uid: mail in theirs
            for uid, mail in ours.items()
            if uid in self._states and (mail in theirs or uid not in own)
        }

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
            marking = self._protocol.submit(*mark[:1], words, *mark[1:], within=self._mailbox)
            asked.append((piece, words, marking, self._protocol.submit("EXPUNGE", words, within=self._mailbox)))
        done, good, expunged = [], True, 0
        for piece, _, marking, expunging in asked:
            said, status = (await marking.answer()).status, (await expunging.answer()).status
            expunged += expunging.expunged
            good = good and said.ok and status.ok
            done.append(_Done(piece, status, {}))
        if good:
            if expunged < len(uids):
                looks = [self._look(piece, words) for piece, words, _, _ in asked]
                seen = [shown if (await request.answer()).status.ok else None for request, shown in looks]
                done = await self._again([replace(one, shown=shown) for one, shown in zip(done, seen, strict=True)])
            for one in done:
                self._left(one, wire)
            return
        await self._each(uids, *mark)
        rest = [uid for uid in uids if self._states[uid] == APPLIED]
        for one in await self._each(rest, "EXPUNGE"):
            self._left(one, wire)

    def _left(self, done: _Done, wire: str) -> None:
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
    async def _each(self, uids: Sequence[int], verb: str, *arguments: str) -> list[_Done]:
        """Send a command, which may be sent twice, for all; where a set is refused, one by one, so that one message
        does not stop the others.

        Notes what failed, and gives what was not refused. Commands are sent without waiting for each other's answers.
        """
        good: list[_Done] = []
        refused: list[_Done] = []
        doubtful: list[int] = []
        for done in await self._ask(list(uid_sets(uids)), verb, arguments):
            if done.status.ok:
                good.append(done)
            elif len(done.uids) == 1 or _for_all_alike(done.status):
                refused.append(done)
            else:
                doubtful.extend(self._there(done))
        if doubtful:
            for done in await self._ask([((uid,), str(uid)) for uid in doubtful], verb, arguments):
                (good if done.status.ok else refused).append(done)
        for done in refused:
            self._note(self._there(done), _refused(done.status))
        return good

    async def _ask(
        self, pieces: Sequence[tuple[Sequence[int], str]], verb: str, arguments: Sequence[str]
    ) -> list[_Done]:
        """Send a command for each set, wait for nothing between, and find out what it did.

        Flags are looked at in the same breath. A move or deletion is looked at only if the server does not say
        enough: looked at in the same breath it would not show yet, as servers (Dovecot) tidy up behind the last
        command that they were sent.
        """
        if verb == "STORE":
            return await self._store(pieces, arguments)
        asked = [
            (piece, words, self._protocol.submit(verb, words, *arguments, within=self._mailbox))
            for piece, words in pieces
        ]
        statuses = [(await doing.answer()).status for _, _, doing in asked]
        enough = all(
            status.ok and (verb == "EXPUNGE" or doing.copied.issuperset(piece))
            for (piece, _, doing), status in zip(asked, statuses, strict=True)
        )
        if enough and verb != "COPY":
            enough = sum(doing.expunged for _, _, doing in asked) >= sum(len(piece) for piece, _ in pieces)
        looks = [None if enough else self._look(piece, words) for piece, words, _ in asked]
        done = []
        for (piece, _, doing), status, look in zip(asked, statuses, looks, strict=True):
            shown: Mapping[int, frozenset[str]] | None = dict.fromkeys(piece, _NO_FLAGS) if verb == "COPY" else {}
            if look is not None:
                shown = look[1] if (await look[0].answer()).status.ok else None
            done.append(_Done(piece, status, shown, frozenset(doing.copied)))
        return done if verb == "COPY" else await self._again(done)

    async def _store(self, pieces: Sequence[tuple[Sequence[int], str]], arguments: Sequence[str]) -> list[_Done]:
        """Set flags, and see which messages lack one still: by SEARCH, which names only these, and by FETCH of the
        last one of each set, which says whether SEARCH is to be believed; if it is not, by FETCH of all."""
        flags = arguments[-1].strip("()").split()
        wanted, lacking = frozenset(flag.lower() for flag in flags), _without(flags)
        asked = []
        for piece, words in pieces:
            storing = self._protocol.submit("STORE", words, *arguments, within=self._mailbox)
            searching = self._protocol.submit(
                "SEARCH", f"UID {words} {lacking}", within=self._mailbox, wants=(b"SEARCH", b"ESEARCH")
            )
            asked.append((piece, words, storing, searching, self._look(piece[-1:], str(piece[-1]))))
        done = []
        for piece, words, storing, searching, (looking, seen) in asked:
            status, found = (await storing.answer()).status, await searching.answer()
            shown: Mapping[int, frozenset[str]] | None = seen
            told = (await looking.answer()).status.ok and found.status.ok
            if told:
                try:
                    left = set(hits(found.data)).intersection(piece)
                except ProtocolViolation:
                    told = False
                else:
                    last = piece[-1]
                    told = last not in seen or (wanted <= seen[last]) == (last not in left)
                    shown = dict.fromkeys(left, _NO_FLAGS)
            if not told:
                looking, shown = self._look(piece, words)
                shown = shown if (await looking.answer()).status.ok else None
            done.append(_Done(piece, status, shown))
        return done

    async def _again(
        self, done: Sequence[_Done], undone: Callable[[frozenset[str]], bool] = lambda seen: True
    ) -> list[_Done]:
        """Sets with a message whose flags show that nothing was done (that it is shown at all, of a move) are looked
        at once more when the server has had a chance to tell its news: somebody may have removed it."""
        doubtful = [one for one in done if one.status.ok and one.shown and any(map(undone, one.shown.values()))]
        if not doubtful:
            return list(done)
        self._protocol.submit("NOOP")
        looks = [self._look(one.uids, uid_set(one.uids)) for one in doubtful]
        seen = [shown if (await request.answer()).status.ok else None for request, shown in looks]
        again = [replace(one, shown=shown) for one, shown in zip(doubtful, seen, strict=True)]
        return [one for one in done if one not in doubtful] + again

    def _look(self, uids: Sequence[int], words: str) -> tuple[Request, dict[int, frozenset[str]]]:
        """Ask what the folder shows of ``uids``: the request, and where their flags will be."""
        shown: dict[int, frozenset[str]] = {}
        wanted = frozenset(uids)

        def note(fetched: Fetched) -> bool:
            uid = int(fetched.uid or 0)
            if uid not in wanted or fetched.flags is None:
                return False
            shown[uid] = _lowered(fetched.flags)
            return True

        return self._protocol.submit("FETCH", words, "(UID FLAGS)", within=self._mailbox, on_fetch=note), shown


def _without(flags: Sequence[str]) -> str:
    r"""SEARCH keys for messages that lack one of ``flags``: ``OR UNSEEN UNKEYWORD $Done`` (RFC 3501 section 6.4.4)."""
    *before, last = [f"UN{flag[1:].upper()}" if flag.startswith("\\") else f"UNKEYWORD {flag}" for flag in flags]
    return "".join(f"OR {key} " for key in before) + last


@lru_cache(maxsize=512)
def _lowered(flags: tuple[str, ...]) -> frozenset[str]:
    return frozenset(flag.lower() for flag in flags)


async def _messages(asked: Request | None) -> int | None:
    """The number of messages in the answer to a STATUS, or None."""
    if asked is None:
        return None
    for response in (await asked.answer()).data:
        line = response[0]
        assert isinstance(line, bytes)
        found = re.search(rb"(?i)\bMESSAGES (\d{1,10})\b[^)]*\)$", line)
        if found:
            return int(found[1])
    return None


def _flags(disposition: Disposition) -> list[str]:
    return [*(["\\Seen"] if disposition.seen else []), *disposition.flags]


def _for_all_alike(status: Status) -> bool:
    """No single message is to blame for this refusal: trying one by one would give the same again."""
    return status.busy or status.code in _FOR_ALL_ALIKE


def _refused(status: Status) -> State:
    passing = status.busy or status.code in _PASSING or any(word in status.text.lower() for word in _PASSING_WORDS)
    return ("pending" if passing else "failed"), f"the server says {status}"
