"""Ids of what was begun, in a file, so that a repeat is looked for only where there may be one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mailpoller.storage.disk import make_directory, sync_directory, transient
from mailpoller.storage.recent import Recent

_LENGTH = 36
"""Characters of an id (RFC 9562)."""


class Begun:
    """The last ``limit`` ids and more, one a line, synced before what they name is begun. Blocks: call it in a thread.

    A file that is lost costs a repeat, and nothing else.
    """

    def __init__(self, file: Path, limit: int = 50_000) -> None:
        self._file = file
        self._known = Recent(limit)
        self._limit = limit
        self._lines = -1
        """In the file; -1 as long as nobody looked."""

    def among(self, ids: Iterable[str]) -> list[str]:
        """Those that were begun before, also by an earlier process. Raises :class:`TransientError`."""
        self._read()
        return [one for one in ids if one in self._known]

    def add(self, ids: Iterable[str]) -> None:
        """They are begun: known of when this returns. Raises :class:`TransientError`."""
        self._read()
        fresh = [one for one in ids if one not in self._known]
        if not fresh:
            return
        with transient(f"write {self._file}"):
            make_directory(self._file.parent, mode=0o700)
            whole = self._lines + len(fresh) > 2 * self._limit
            if whole:  # the older half is forgotten
                fresh = [*self._tail(self._limit - len(fresh)), *fresh][-self._limit :]
            target = self._file.with_suffix(".new") if whole else self._file
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if whole else os.O_APPEND), 0o600)
            try:
                # A line end first: the last line may be torn.
                _write(descriptor, "".join(f"\n{one}" for one in fresh).encode("ascii", "replace") + b"\n")
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            if whole:
                target.replace(self._file)
            if whole or not self._lines:
                sync_directory(self._file.parent)
        self._lines = len(fresh) if whole else self._lines + len(fresh)
        self._known.add(fresh)

    def _read(self) -> None:
        if self._lines < 0:
            known = self._tail(self._limit)
            self._known.add(known)
            self._lines = len(known)

    def _tail(self, most: int) -> list[str]:
        if most <= 0:
            return []
        with transient(f"read {self._file}"):
            try:
                with self._file.open("rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - (_LENGTH + 2) * most))
                    lines = file.read((_LENGTH + 2) * most).decode("ascii", "replace").split("\n")
            except FileNotFoundError:
                return []
        return [line for line in lines if len(line) == _LENGTH][-most:]


def _write(descriptor: int, octets: bytes) -> None:
    left = memoryview(octets)
    while left:
        left = left[os.write(descriptor, left) :]
