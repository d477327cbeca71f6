"""Octets as files, each under its SHA-256: written once, synced, and believed only if they are what their name says."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from mailpoller.core.errors import MachineTrouble, TransientError
from mailpoller.storage.disk import create_private, directory, in_words, make_directory, write_all

_PARTIAL = ".partial"


class OctetFiles:
    """A directory of such files, ours alone. Every method blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, octets: bytes) -> bytes:
        """Write the octets durably; their SHA-256. Raises :class:`MachineTrouble`, and leaves nothing behind then."""
        digest = sha256(octets).digest()
        name = digest.hex()
        try:
            make_directory(self.path, mode=0o700)
            with directory(self.path) as within:
                try:
                    descriptor = create_private(name + _PARTIAL, within)
                    try:
                        write_all(descriptor, octets)
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
                    os.rename(name + _PARTIAL, name, src_dir_fd=within, dst_dir_fd=within)
                    os.fsync(within)
                except OSError:
                    with suppress(OSError):
                        os.unlink(name + _PARTIAL, dir_fd=within)
                    raise
        except OSError as error:
            raise MachineTrouble(in_words(error, f"write to {self.path}")) from None
        return digest

    def read(self, digest: bytes) -> bytes:
        """The octets. Raises :class:`TransientError` if they are not there, or are others, and
        :class:`MachineTrouble` if that cannot be told now."""
        try:
            octets = (self.path / digest.hex()).read_bytes()
        except OSError as error:
            words = in_words(error, f"read {self.path / digest.hex()}")
            if isinstance(error, FileNotFoundError) and self.path.is_dir():
                raise TransientError(words) from None
            raise MachineTrouble(words) from None
        if sha256(octets).digest() != digest:
            raise TransientError(f"{self.path / digest.hex()} does not hold what was written to it")
        return octets

    def drop(self, digests: Iterable[bytes]) -> None:
        """Remove files. One that is not there, or cannot be removed, is passed over."""
        for digest in digests:
            with suppress(OSError):
                (self.path / digest.hex()).unlink()

    def names(self) -> list[bytes]:
        """The digests of all files that are there."""
        try:
            found = os.listdir(self.path)  # noqa: PTH208 - names alone
        except OSError:
            return []
        return [bytes.fromhex(name) for name in found if len(name) == 64 and set(name) <= set("0123456789abcdef")]
