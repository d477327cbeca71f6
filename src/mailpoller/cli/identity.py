"""As whom a verb works: root reads what root alone may read, and then goes on as the owner of the state directory.

In the service's directories the service's user may have put a link wherever a file is expected. Followed by root it
would lead anywhere; followed by that user it leads where that user may go anyhow. And what is made there is the
service's from the start, so nothing has to be given away.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from mailpoller.cli.exits import complain
from mailpoller.core.errors import ConfigError
from mailpoller.storage.disk import accessible

if TYPE_CHECKING:
    from mailpoller.config import Config

_MOST_LINKS = 40


def work_as_owner(config: Config) -> None:
    """Root takes up every secret of the configuration and becomes the owner of the state directory, to the end of
    the process. Call it before anything there is opened. Anybody else, and the owner, stays who they are.

    Raises :class:`ConfigError` if that cannot be.
    """
    if os.geteuid() != 0:
        return
    config.hold_secrets()
    work_as_owner_of(config.service.state_directory)


def work_as_owner_of(path: Path) -> None:
    """The same for a file or directory that no configuration names."""
    if os.geteuid() != 0:
        return
    uid, gid = owner_of(path)
    if uid != 0:
        _become(uid, gid, path)


def owner_of(path: Path) -> tuple[int, int]:
    """Whose ``path`` is: user and group.

    What root owns lies in somebody's hand all the same if a directory above it is not root's: then the first of
    these is the owner, and likewise of what is not there yet. (0, 0) if all of it is root's.
    """
    first: tuple[int, int] | None = None
    found: tuple[int, int] = (0, 0)
    walked, ahead, links = Path("/"), list(path.absolute().parts[1:]), 0
    while ahead:
        step = walked / ahead.pop(0)
        try:
            status = step.lstat()
            target = step.readlink() if stat.S_ISLNK(status.st_mode) else None
        except OSError:
            return first or (0, 0)
        found = status.st_uid, status.st_gid
        if status.st_uid != 0:
            first = first or found
        if target is None:
            walked = step
            continue
        links += 1
        if links > _MOST_LINKS:
            return first or (0, 0)
        if target.is_absolute():
            walked = Path("/")
        ahead[:0] = target.parts[1:] if target.is_absolute() else target.parts
    return found if found[0] != 0 else first or (0, 0)


def _become(uid: int, gid: int, path: Path) -> None:
    try:
        entry = pwd.getpwuid(uid)
        name, gid = entry.pw_name, entry.pw_gid
        groups = os.getgrouplist(name, gid)
    except KeyError:
        # A group of root's would open what root's group may read.
        name, gid = str(uid), gid or uid
        groups = [gid]
    try:
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(uid)
    except OSError as error:
        raise ConfigError(
            f"{path} belongs to {name}, and root cannot go on as {name} here: {error.strerror}; "
            f"better: sudo -u {name} mailpoller …"
        ) from None
    _require_program(name)
    complain(f"you are root: this goes on as {name}, to whom {path} belongs")


def _require_program(name: str) -> None:
    """What is imported later must be there for the new user too: better a sentence now than a bug in an hour."""
    for file in (__file__, os.__file__):
        if not accessible(Path(file), os.R_OK):
            raise ConfigError(f"{name} cannot read the program ({file}): install it where {name} can, as in /opt")
