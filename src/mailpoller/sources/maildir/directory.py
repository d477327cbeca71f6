"""A Maildir on disk: names, flags, listing. Everything here blocks and is called in a thread.

A message is one file in ``new`` (nobody has seen it) or ``cur``; its name is ``UNIQUE`` or ``UNIQUE:2,FLAGS``. UNIQUE
never occurs twice, on no machine (https://cr.yp.to/proto/maildir.html), and stays while flags and directory change.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from mailpoller.core.record import record

INBOX = "INBOX"
"""The Maildir itself; every other folder is a dotted directory in it (Maildir++)."""

NEW, CUR, TMP = "new", "cur", "tmp"

LETTER_OF = {
    "\\seen": "S",
    "\\answered": "R",
    "\\flagged": "F",
    "\\deleted": "T",
    "\\draft": "D",
    "$forwarded": "P",
}
"""IMAP's flags (RFC 9051 section 2.3.2) and the letters that Maildir has for them."""

_FLAG_OF = {"S": "\\Seen", "R": "\\Answered", "F": "\\Flagged", "T": "\\Deleted", "D": "\\Draft", "P": "$Forwarded"}
_SIZE = re.compile(r",S=(\d{1,18})(?:,|$)")
_EXTRAS = re.compile(r"(?:,[A-Z]=\d+)+$")
_PLAIN = "".join(chr(octet) for octet in range(33, 127) if chr(octet) != "%")
_SCANS = 5


def letter_of(flag: str) -> str | None:
    """The letter of a flag, named as IMAP does (``\\Flagged``) or by the letter itself; None if Maildir has none."""
    return flag if flag in _FLAG_OF else LETTER_OF.get(flag.lower())


def flags_of(name: str) -> tuple[str, ...]:
    """The flags of the file ``name``, as IMAP names them; letters without such a name are left out."""
    return tuple(_FLAG_OF[letter] for letter in letters_of(name) if letter in _FLAG_OF)


def letters_of(name: str) -> str:
    """The letters after ``:2,``, whatever they mean."""
    _, colon, info = name.partition(":")
    return info[2:] if colon and info.startswith("2,") else ""


def flagged(name: str, letters: Iterable[str]) -> str:
    """``name`` as it is in ``cur`` with ``letters`` added, in ASCII order as the format asks."""
    return f"{name.partition(':')[0]}:2,{''.join(sorted({*letters_of(name), *letters}))}"


def uid_of(name: str) -> str:
    """What identifies the message: the unique part, without the sizes that Dovecot and Courier add and may correct.

    Names with octets that are not plain ASCII are percent-encoded, so that a uid is always printable.
    """
    unique = name.partition(":")[0]
    if "," in unique:
        unique = _EXTRAS.sub("", unique) or unique
    return unique if unique.isascii() and unique.isprintable() and "%" not in unique else _encoded(unique)


def _encoded(unique: str) -> str:
    return quote(os.fsencode(unique), safe=_PLAIN)


def announced_size(name: str) -> int | None:
    """The size that the deliverer wrote into the name (``,S=1234``)."""
    found = _SIZE.search(name.partition(":")[0]) if ",S=" in name else None
    return int(found[1]) if found else None


def check_folder(name: str) -> str:
    """``name`` if it can be that of a folder. Raises ValueError for what would lead out of the Maildir."""
    if name.upper() == INBOX:
        return INBOX
    bare = name.removeprefix(".")
    if not bare or "/" in bare or "\0" in bare or not all(bare.split(".")):
        raise ValueError(
            "a folder is INBOX or a name such as Sent or Archive.2026, whose parts are parted by single dots"
        )
    return name


def folder_directory(root: Path, name: str) -> Path:
    """Where the folder ``name`` lies. Raises ValueError as :func:`check_folder`."""
    checked = check_folder(name)
    return root if checked == INBOX else root / f".{checked.removeprefix('.')}"


def is_maildir(directory: Path) -> bool:
    """True if ``directory`` has ``new`` and ``cur``. A missing one must never look like an empty folder."""
    return (directory / NEW).is_dir() and (directory / CUR).is_dir()


def create(directory: Path, *, root: Path) -> None:
    """Make ``directory`` a folder of the Maildir ``root``, with its rights; harmless if it is one already."""
    if is_maildir(directory):
        return
    mode = stat.S_IMODE(root.stat().st_mode)
    for part in (directory, directory / TMP, directory / NEW, directory / CUR):
        part.mkdir(mode=mode, exist_ok=True)
    if directory != root:
        (directory / "maildirfolder").touch(mode=0o600)
    sync(directory)
    sync(root)


def sync(directory: Path) -> None:
    """Return when the names in ``directory`` would survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@record
class Entry:
    """One message's file: in ``new`` or ``cur``, under ``name``."""

    part: str
    name: str


@record
class Stamps:
    """When ``new`` and ``cur`` last changed, nanoseconds, and when that was asked.

    ``device`` and ``places`` tell these directories from any others that lie under their names at another time: the
    file system, and their inode numbers there. The first may change at every mounting of one file system, the second
    do not.
    """

    new: int
    cur: int
    asked: int
    device: int
    places: tuple[int, int]

    def same(self, other: Stamps) -> bool:
        """True if neither directory changed between the two."""
        return (self.new, self.cur) == (other.new, other.cur) and not self.replaced(other)

    def replaced(self, other: Stamps) -> bool:
        """True if other directories lie there than at ``other``, asked in the same run: a file system came or went, a
        copy was put back."""
        return (self.device, self.places) != (other.device, other.places)


@record
class Scan:
    """What a folder holds: uid -> file. ``ignored`` counts what is no regular file (links, directories, pipes).

    ``stamps`` were asked before the files were listed: what came later has changed them since.
    """

    entries: dict[str, Entry]
    stamps: Stamps
    ignored: int


def stamps(directory: Path) -> Stamps:
    """Raises OSError if the folder is not there."""
    asked = time.time_ns()
    new, cur = (directory / NEW).stat(), (directory / CUR).stat()
    return Stamps(new.st_mtime_ns, cur.st_mtime_ns, asked, new.st_dev, (new.st_ino, cur.st_ino))


def scan(directory: Path) -> Scan:
    """List a folder. Raises OSError if it is not there.

    A file that is renamed while its directory is read may be met twice or not at all (POSIX readdir), and a message
    that is missed in a full listing would count as gone. So it is listed again until nothing changed meanwhile, a few
    times at most, and what any round met counts.
    """
    entries: dict[str, Entry] = {}
    for _ in range(_SCANS):
        before, ignored = stamps(directory), 0
        for part in (NEW, CUR):
            ignored += _list(directory / part, part, entries)
        if stamps(directory).same(before):
            break
    return Scan(entries, before, ignored)


def _list(directory: Path, part: str, entries: dict[str, Entry]) -> int:
    """Add the messages in ``directory`` to ``entries``; how many names are no regular files."""
    ignored = 0
    with os.scandir(directory) as listing:
        for found in listing:
            name = found.name
            if name[0] == ".":
                continue
            if found.is_file(follow_symlinks=False):
                entries[uid_of(name)] = Entry(part, name)
            else:
                ignored += 1
    return ignored
