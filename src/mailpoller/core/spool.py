"""Where the octets of a message are held while it is in hand: memory below a threshold, a file above it."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from hashlib import _Hash as HASH

MEMORY_THRESHOLD = 1 << 20
"""Octets of one message that stay in memory; a larger message goes to a spool file as it arrives."""

Block = bytes | mmap.mmap
"""What :meth:`Octets.view` gives: both can be searched, sliced, hashed and written without a copy of the whole."""


class Octets:
    """The octets of one message, bit for bit, and their SHA-256, computed while they came in.

    ``size`` in octets; ``digest`` is the 32-octet SHA-256 of exactly what is held. ``path`` names the spool file,
    or is None when the octets are in memory.
    """

    __slots__ = ("_file", "_held", "digest", "path", "size")

    def __init__(self, held: Block | None, size: int, digest: bytes, path: Path | None = None) -> None:
        self._held: Block | None = held
        self._file: BinaryIO | None = None
        self.size = size
        self.digest = digest
        self.path = path

    @classmethod
    def of(cls, octets: bytes) -> Octets:
        """Hold ``octets`` in memory."""
        return cls(octets, len(octets), sha256(octets).digest())

    def view(self) -> Block:
        """All octets; a spooled message is mapped, not read. Valid until :meth:`close`."""
        if self._held is None:
            if self.path is None:
                raise ValueError("the octets were closed")
            if self.size == 0:
                self._held = b""
            else:
                self._file = self.path.open("rb")
                self._held = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._held

    def head(self, size: int) -> bytes:
        """A copy of the first ``size`` octets (fewer if there are fewer)."""
        return bytes(self.view()[:size])

    def close(self) -> None:
        """Give back memory and spool file. Harmless when repeated."""
        if isinstance(self._held, mmap.mmap):
            self._held.close()
        if self._file is not None:
            self._file.close()
            self._file = None
        self._held = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self.path = None


class Intake:
    """Takes the octets of one message as they arrive, never more than ``limit`` of them.

    Made by :meth:`Spool.begin`; ended by :meth:`finish` or :meth:`abort`, exactly one of them, once.
    """

    __slots__ = ("_file", "_hash", "_parts", "_path", "_spool", "limit", "overflowed", "size")

    def __init__(self, spool: Spool, limit: int) -> None:
        self._spool = spool
        self._parts: list[bytes] = []
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._hash: HASH | None = None
        self.limit = limit
        self.size = 0
        self.overflowed = False

    def write(self, chunk: bytes) -> None:
        """Take ``chunk``. What lies beyond the limit is dropped and :attr:`overflowed` becomes True.

        Raises OSError when the spool file cannot be written (disk full): the caller drops the message and
        raises :class:`~mailpoller.core.errors.TransientError`.
        """
        room = self.limit - self.size
        if len(chunk) > room:
            self.overflowed = True
            chunk = chunk[:room]
        if not chunk:
            return
        self.size += len(chunk)
        if self._hash is None:
            self._hash = sha256()
        self._hash.update(chunk)
        if self._file is None and self.size <= self._spool.threshold:
            self._parts.append(bytes(chunk))
            return
        if self._file is None:
            self._file, self._path = self._spool.file()
            for part in self._parts:
                _write(self._file, part)
            self._parts.clear()
        _write(self._file, chunk)

    def finish(self) -> Octets:
        """The octets that were taken."""
        digest = (self._hash or sha256()).digest()
        if self._file is None:
            held = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts = []
            return Octets(held, self.size, digest)
        self._file.close()
        return Octets(None, self.size, digest, self._path)

    def abort(self) -> None:
        """Drop what was taken."""
        self._parts.clear()
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _write(file: BinaryIO, chunk: bytes) -> None:
    """Write all of it. A disk that is getting full takes a part, without an error: that comes with what is left."""
    written = file.write(chunk)
    while written < len(chunk):
        written += file.write(memoryview(chunk)[written:])


class Spool:
    """A directory for the octets of large messages in hand. Nothing in it outlives the process that wrote it."""

    def __init__(self, directory: Path, threshold: int = MEMORY_THRESHOLD) -> None:
        self.directory = directory
        self.threshold = threshold
        self._held: int | None = None

    def hold(self) -> None:
        """Create the directory (mode 0700) and have it to ourselves until :meth:`close`, or until the process ends.

        Raises BlockingIOError if another process has it, and OSError if it cannot be made.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._held is None:
            self._held = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Let another process have the directory. Harmless when repeated."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def prepare(self) -> None:
        """Create the directory (mode 0700) and empty it of what a killed process left."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self.directory.glob("octets-*"):
            leftover.unlink(missing_ok=True)

    def begin(self, limit: int) -> Intake:
        """Begin to take one message of at most ``limit`` octets."""
        return Intake(self, limit)

    def file(self) -> tuple[BinaryIO, Path]:
        """A new, empty, private file."""
        descriptor, name = tempfile.mkstemp(prefix="octets-", dir=self.directory)
        return os.fdopen(descriptor, "wb", buffering=0), Path(name)
