"""How far an outbox has got, as a file beside the ledger: an older copy of the one is known by the other."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from mailpoller.core.errors import MachineTrouble
from mailpoller.core.record import record
from mailpoller.storage.disk import create_private, directory, in_words, make_directory, write_all

_LONGEST = 4096
"""Octets of the file that are read: ours has about a hundred."""


@record
class Witness:
    """What a file says: of which outbox it is, and how far that had got."""

    identity: str
    height: int


class WitnessFile:
    """One such file. It is replaced whole and durably. Every method blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Witness | None:
        """None if there is none, or it bears nothing of ours. Raises :class:`MachineTrouble` if that cannot be told
        now."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                octets = os.read(descriptor, _LONGEST)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise MachineTrouble(in_words(error, f"read {self.path}")) from None
        try:
            told = json.loads(octets)
            return Witness(str(told["outbox"]), int(told["height"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, witness: Witness) -> None:
        """Raises :class:`MachineTrouble`; what lay there lies there still then."""
        name = self.path.name
        part = f"{name}.part"
        try:
            make_directory(self.path.parent, mode=0o750)
            with directory(self.path.parent, follow=True) as within:
                try:
                    descriptor = create_private(part, within)
                    try:
                        write_all(
                            descriptor, json.dumps({"outbox": witness.identity, "height": witness.height}).encode()
                        )
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
                    os.rename(part, name, src_dir_fd=within, dst_dir_fd=within)
                    os.fsync(within)
                except OSError:
                    with suppress(OSError):
                        os.unlink(part, dir_fd=within)
                    raise
        except OSError as error:
            raise MachineTrouble(in_words(error, f"write {self.path}")) from None
