"""A Unix socket as a file: made for the service's group, in the place of one that a dead process left."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path

from mailpoller.core.record import record
from mailpoller.storage.disk import make_directory

_CREDENTIALS = struct.Struct("3i")
"""pid, uid, gid."""


@record
class Peer:
    """A process at the other end of a socket: the numbers of its user and group when it connected."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        """The user's; ``uid NUMBER`` for one who has none. Looked up each time."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"


def peer_of(connected: socket.socket) -> Peer | None:
    """Who is at the other end, as the kernel tells it (SO_PEERCRED, unix(7)); None if it does not."""
    try:
        told = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, gid = _CREDENTIALS.unpack(told)
    except (OSError, AttributeError, struct.error):
        return None
    return Peer(uid, gid)


def listen_at(path: Path, mode: int = 0o660) -> socket.socket:
    """A socket in the place of one that an earlier process may have left. Anything else there is left alone. Raises
    OSError."""
    make_directory(path.parent, mode=0o750)
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, f"{path} is there, and is no socket")
        if _answers(path):
            raise FileExistsError(errno.EEXIST, f"another process listens on {path}")
        path.unlink()
    except FileNotFoundError:
        pass
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listening.fileno(), mode)  # never more, whatever the umask is; and afterwards never less
        listening.bind(str(path))
        path.chmod(mode)
    except BaseException:
        listening.close()
        raise
    return listening


def remove(path: Path, made: os.stat_result) -> None:
    """Remove the socket that ``made`` tells of, unless somebody else listens there by now."""
    with suppress(OSError):
        if path.lstat().st_ino == made.st_ino:
            path.unlink()


def _answers(path: Path) -> bool:
    """True if a living process listens there: one with another ledger, whose socket is not ours to remove."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        wire.settimeout(1)
        try:
            wire.connect(str(path))
        except BlockingIOError:
            return True  # so busy that it turns us away
        except OSError:
            return False
        return True
