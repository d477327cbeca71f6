"""Files of the configuration: regular ones of bounded size, or an error at once."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

NOT_REGULAR = "not a regular file"
LARGEST_FILE = 16 << 20
"""Octets of a file of certificates, or of a key, at most."""


def read_regular(path: Path, most: int) -> bytes:
    """All octets of a regular file of at most ``most`` octets.

    A FIFO, which waits until somebody writes, a device, which may never end, and whatever else is no regular file are
    not read. Raises OSError, whose ``strerror`` says why, also in these cases; ValueError if no file can be so named.
    """
    require_regular(path, most)
    # Between the two looks it may have become a FIFO: that one is then opened without waiting, and found out.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  a descriptor has no Path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, NOT_REGULAR)
        octets = bytearray()
        while chunk := file.read(min(1 << 20, most + 1 - len(octets))):
            octets += chunk
    if len(octets) > most:
        raise _too_large(most)
    return bytes(octets)


def require_regular(path: Path, most: int) -> os.stat_result:
    """What there is to say of a regular file, without opening it. Raises OSError as :func:`read_regular` does."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, NOT_REGULAR)
    if found.st_size > most:
        raise _too_large(most)
    return found


def _too_large(most: int) -> OSError:
    return OSError(errno.EFBIG, f"larger than {f'{most >> 20} MiB' if most >= 1 << 20 else f'{most >> 10} KiB'}")
