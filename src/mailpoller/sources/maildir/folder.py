"""One folder of a Maildir, as a session knows it: what it lists, reads and changes. Blocks, and is called in one
thread."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

from mailpoller.core.delivery import Disposed, Disposition, Settlement
from mailpoller.core.errors import TransientError
from mailpoller.core.message import Claim, Folder, Gone, MessageRef, Position, Survey
from mailpoller.core.ports import Clock, Start
from mailpoller.core.spool import Spool
from mailpoller.sources.maildir import directory as on_disk
from mailpoller.sources.maildir.directory import CUR, NEW, Entry, Scan, Stamps
from mailpoller.sources.maildir.octets import Answer, close_all, instant, read_file
from mailpoller.sources.maildir.position import Reached, digest

SWEEP_INTERVAL = timedelta(hours=1)
"""How often all is listed whatever the directories' time stamps say: those of a network file system may lie."""

COMPARED = 200
"""So many of the newest names are compared with what is known of them, when other directories lie there than before."""

_ROUNDS = 3
"""How often a file that is not where it was is looked for: others rename it whenever they like."""
_IMPOSSIBLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR}
"""Errors of a disposition that trying again soon will not mend."""

Listing = tuple[list[MessageRef], Position]
State = Literal["applied", "failed", "pending"]


class StoreMissing(TransientError):
    """An empty directory lies where a Maildir with mail lay: nothing is concluded from it."""


class Unchanged(ValueError):
    """The file system said that it did what it was told, and did not."""


class PolledFolder:
    """What is known of one folder while a session lasts.

    ``seen``: the stamps of the last listing, or None before the first. ``ignored``: how many entries of it were no
    regular files. ``replaced``: other directories lie there than at the position that was given. Every method raises
    OSError when the folder itself is gone, also if other directories came to lie in its place since the session
    began.
    """

    def __init__(self, folder: Folder, directory: Path, *, root: Path, clock: Clock, spool: Spool) -> None:
        self.seen: Stamps | None = None
        self.ignored = 0
        self.replaced = False
        self._folder = folder
        self._directory = directory
        self._root = root
        self._clock = clock
        self._spool = spool
        self._swept_at = clock.monotonic()
        self._entries: dict[str, Entry] = {}
        """The last look; the files decide."""
        self._position: Position | None = None
        self._reached = Reached(None, None)
        self._listed: frozenset[str] = frozenset()
        """Every uid that was there at ``_position``: whoever comes back with that position has recorded them all."""
        self._begun: Stamps | None = None
        """The first look of this session: what lay there then is what it speaks of."""

    # --- what lies there ---------------------------------------------------------------------------------------
    def _stamps(self) -> Stamps:
        """The stamps now. Raises OSError if these are not the directories that this session began with."""
        return self._same_place(on_disk.stamps(self._directory))

    def _same_place(self, stamps: Stamps) -> Stamps:
        if self._begun is None:
            self._begun = stamps
        if stamps.replaced(self._begun):
            raise OSError(errno.ESTALE, "another directory lies in its place")
        return stamps

    def survey(self, position: Position | None) -> Survey:
        """See :meth:`mailpoller.core.ports.Session.survey`. Names never come back, so there is something to compare
        only where other directories lie than at ``position``: a copy that was put back, or another Maildir. Raises
        :class:`StoreMissing`."""
        reached = Reached(None, None) if position is None else Reached.parse(position)
        if not reached.replaced(self._stamps()):
            return Survey()
        found = self._scan()
        self._check_replaced(reached, found)
        newest = sorted(found.entries)[-COMPARED:]
        return Survey(familiar=[ref for uid in newest if (ref := self._shown(uid)) is not None])

    def look(self, refs: Sequence[MessageRef]) -> list[MessageRef | None]:
        """See :meth:`mailpoller.core.ports.Session.look`."""
        self._stamps()
        shown = {ref.uid: self._shown(ref.uid) for ref in refs}
        for _ in range(_ROUNDS - 1):
            if all(shown.values()):
                break
            # Absent is only what a look that begins now does not show.
            self._look_anew()
            missing = [uid for uid, ref in shown.items() if ref is None and uid in self._entries]
            shown.update((uid, self._shown(uid)) for uid in missing)
            if all(shown[uid] for uid in missing):
                break
        return [shown[ref.uid] for ref in refs]

    def _shown(self, uid: str) -> MessageRef | None:
        """The message as a listing with dates shows it; None if it is not where it was."""
        entry = self._entries.get(uid)
        status = None if entry is None else self._status(entry)
        if entry is None or status is None or not stat.S_ISREG(status.st_mode):
            return None
        return self._ref(uid, entry, status)

    def _check_replaced(self, reached: Reached, found: Scan) -> None:
        self.replaced = reached.replaced(found.stamps)
        if self.replaced and reached.count and not found.entries:
            raise StoreMissing(
                f"{self._directory} is another directory than before, and empty; there were {reached.count} "
                f"messages: is its file "
                "system mounted? If this is right, it is taken up again when a message is in it"
            )

    # --- listing -----------------------------------------------------------------------------------------------
    def list_all(self, start: Start) -> Listing:
        """All that ``start`` wants, and the position from which on :meth:`list_since` shows what came later."""
        found = self._scan()
        refs = [ref for ref in self._refs(found.entries, dated=start.dated) if self._wanted(ref.uid, start)]
        wanted = {ref.uid for ref in refs}
        unwanted = (digest(uid) for uid in found.entries if uid not in wanted)
        return refs, self._reach(found, Reached.at(found.stamps, unwanted, len(found.entries)))

    def list_since(self, since: Position, *, dated: bool = False) -> Listing:
        """What may have come since ``since`` was reached; of what was there already as little as can be told.

        A directory whose stamp did not change holds nothing new. Of one that did, everything is shown that was not
        there at ``since``, if this session made it, and else everything: the ledger knows what it has. So where other
        directories lie than at ``since``. Raises :class:`StoreMissing`.
        """
        remembered = self._position == since
        reached = self._reached if remembered else Reached.parse(since)
        sweep = self._clock.monotonic() - self._swept_at >= SWEEP_INTERVAL.total_seconds()
        looked = self._stamps()
        if not sweep and not _changed(reached, looked):
            self.seen = looked
            return [], since
        found = self._scan()
        self._check_replaced(reached, found)
        if sweep:
            self._swept_at = self._clock.monotonic()
        # By the stamps of the scan: a directory that changed after the look above is among them.
        changed = {NEW, CUR} if sweep else _changed(reached, found.stamps)
        recorded = self._listed if remembered else frozenset()
        fresh: dict[str, Entry] = {}
        still_unwanted: list[bytes] = []
        for uid, entry in found.entries.items():
            if reached.unwanted and (short := digest(uid)) in reached.unwanted:
                still_unwanted.append(short)
            elif entry.part in changed and uid not in recorded:
                fresh[uid] = entry
        position = self._reach(found, Reached.at(found.stamps, still_unwanted, len(found.entries)))
        return list(self._refs(fresh, dated=dated)), position

    def _scan(self) -> Scan:
        found = self._look_anew()
        self.seen, self.ignored = found.stamps, found.ignored
        return found

    def _look_anew(self) -> Scan:
        found = on_disk.scan(self._directory)
        self._same_place(found.stamps)
        self._entries = found.entries
        return found

    def _reach(self, found: Scan, reached: Reached) -> Position:
        self._position, self._reached, self._listed = reached.write(), reached, frozenset(found.entries)
        return self._position

    def _refs(self, entries: dict[str, Entry], *, dated: bool) -> Iterator[MessageRef]:
        """Oldest first as far as names tell: they begin with the second of delivery. ``dated``: see :class:`Start`."""
        for uid in sorted(entries):
            entry = entries[uid]
            asked = dated or on_disk.announced_size(entry.name) is None
            yield self._ref(uid, entry, self._status(entry) if asked else None)

    def _ref(self, uid: str, entry: Entry, status: os.stat_result | None) -> MessageRef:
        """The size is the one that the name tells, else the file's; the date is the file's."""
        size = on_disk.announced_size(entry.name)
        if status is None:
            return MessageRef(self._folder, uid, size)
        return MessageRef(self._folder, uid, status.st_size if size is None else size, instant(status.st_mtime))

    def _wanted(self, uid: str, start: Start) -> bool:
        if start.kind == "unseen":
            return "S" not in on_disk.letters_of(self._entries[uid].name)
        if start.kind == "since" and start.instant is not None:
            status = self._status(self._entries[uid])
            # Renamed meanwhile: better once too often than never.
            return status is None or status.st_mtime >= start.instant.timestamp()
        return start.kind != "now"

    def _path(self, entry: Entry) -> Path:
        return self._directory / entry.part / entry.name

    def _status(self, entry: Entry) -> os.stat_result | None:
        try:
            return self._path(entry).lstat()
        except FileNotFoundError:
            return None

    # --- reading -----------------------------------------------------------------------------------------------
    def read(self, claims: Sequence[Claim], limit: int) -> list[Answer]:
        """An answer to each claim: the first ``limit`` octets, or Gone, or why the file cannot be read."""
        answers: list[Answer] = []
        missing: Sequence[Claim] = claims
        self._stamps()
        try:
            for turn in range(_ROUNDS):
                if turn:
                    # Gone is only what a look that began after the failed attempt does not show.
                    self._look_anew()
                    answers += [Gone(claim) for claim in missing if claim.ref.uid not in self._entries]
                elsewhere: list[Claim] = []
                for claim in missing:
                    if (entry := self._entries.get(claim.ref.uid)) is not None:
                        try:
                            answers.append(read_file(self._path(entry), claim, entry, self._spool, limit))
                            continue
                        except FileNotFoundError:
                            pass
                    elif turn:
                        continue
                    elsewhere.append(claim)
                if not elsewhere:
                    return answers
                missing = elsewhere
        except BaseException:
            close_all(answers)
            raise
        return [*answers, *(OSError(errno.EAGAIN, "the file is renamed all the time") for _ in missing)]

    # --- settling ----------------------------------------------------------------------------------------------
    def settle(self, settlements: Sequence[Settlement]) -> list[Disposed]:
        """Carry out each disposition; what is ``applied`` was looked for afterwards, and would survive a power cut."""
        results: dict[int, Disposed] = {}
        touched: dict[Path, None] = {}
        missing = list(range(len(settlements)))
        self._stamps()
        for turn in range(_ROUNDS):
            if turn:
                self._look_anew()
            elsewhere: list[int] = []
            for index in missing:
                settlement = settlements[index]
                entry = self._entries.get(settlement.ref.uid)
                if entry is None and turn:
                    # Moved or deleted, by us before a crash or by somebody else.
                    results[index] = Disposed(settlement, "applied")
                elif entry is None or (disposed := self._dispose(settlement, entry, touched)) is None:
                    elsewhere.append(index)
                else:
                    results[index] = disposed
            missing = elsewhere
            if not missing:
                break
        for index in missing:
            results[index] = Disposed(settlements[index], "pending", "the file is renamed all the time")
        return self._made_durable([results[index] for index in range(len(settlements))], touched)

    def _made_durable(self, results: list[Disposed], touched: dict[Path, None]) -> list[Disposed]:
        try:
            for directory in touched:
                on_disk.sync(directory)
        except OSError as error:
            unsure = words(error)
            return [Disposed(one.settlement, "pending", unsure) if one.state == "applied" else one for one in results]
        return results

    def _dispose(self, settlement: Settlement, entry: Entry, touched: dict[Path, None]) -> Disposed | None:
        """The result of one disposition, or None if the file is not there."""
        disposition = settlement.disposition
        letters = {"S"} if disposition.seen else set()
        for flag in disposition.flags:
            letter = on_disk.letter_of(flag)
            if letter is None:
                return Disposed(settlement, "failed", f"Maildir has no flag {flag}")
            letters.add(letter)
        try:
            self._change(settlement.ref.uid, entry, disposition, letters, touched)
        except FileNotFoundError:
            return None
        except ValueError as error:
            return Disposed(settlement, "failed", str(error))
        except OSError as error:
            return Disposed(settlement, "failed" if error.errno in _IMPOSSIBLE else "pending", words(error))
        return Disposed(settlement, "applied")

    def _change(
        self, uid: str, entry: Entry, disposition: Disposition, letters: set[str], touched: dict[Path, None]
    ) -> None:
        """Delete or rename one file, and look. Raises FileNotFoundError if it is not there, ValueError for a folder
        that cannot be, and :class:`Unchanged`."""
        path = self._path(entry)
        if disposition.leaves:
            return
        if disposition.delete:
            path.unlink()
            if os.path.lexists(path):
                raise Unchanged("the file system says that the message is deleted, and shows it")
            touched[path.parent] = None
            del self._entries[uid]
            return
        target = self._directory
        if disposition.move is not None:
            target = on_disk.folder_directory(self._root, disposition.move)
            on_disk.create(target, root=self._root)
        moved = target / CUR / on_disk.flagged(entry.name, letters)
        if moved == path:
            path.lstat()
            return
        # A rename would silently replace a file of that name, and with it perhaps another message.
        if os.path.lexists(moved):
            path.lstat()
            raise FileExistsError(errno.EEXIST, "another file has that name already", str(moved))
        path.rename(moved)
        if os.path.lexists(path) or not os.path.lexists(moved):
            raise Unchanged("the file system says that the message is renamed, and shows it as it was")
        # The new place becomes durable before the old one: a power cut may show both, never none.
        touched[moved.parent] = None
        touched[path.parent] = None
        if target == self._directory:
            self._entries[uid] = Entry(CUR, moved.name)
        else:
            del self._entries[uid]


def words(error: OSError) -> str:
    """What the operating system says, without the path."""
    return error.strerror or type(error).__name__


def _changed(reached: Reached, stamps: Stamps) -> set[str]:
    """Those of ``new`` and ``cur`` that may hold more than at ``reached``. A copy may have the stamps of what it is a
    copy of."""
    if reached.replaced(stamps):
        return {NEW, CUR}
    pairs = ((NEW, reached.new, stamps.new), (CUR, reached.cur, stamps.cur))
    return {part for part, then, now in pairs if then != now}
