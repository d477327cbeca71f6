"""The mail server of the benchmarks: the Dovecot of the tests with room for thousands, and mailboxes that are
restored in no time."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from servers import programs as programs
from servers.dovecot import Dovecot as Dovecot
from servers.dovecot import free_ports as free_ports

# The tests want news within the second and mind no process that costs; a mail server in earnest relies on inotify
# and keeps the processes that it has.
_SETTINGS = """\
mailbox_idle_check_interval = 30 s
default_process_limit = {connections}
default_client_limit = {clients}
service anvil {{
  client_limit = {clients}
}}
service auth {{
  client_limit = {clients}
}}
service imap-login {{
  process_min_avail = 1
  client_limit = {connections}
}}
service imap {{
  process_min_avail = 2
  process_limit = {connections}
  service_count = 200
}}
"""


def dovecot(connections: int = 300) -> Dovecot:
    """A server for so many connections at once; a context manager as that of the tests.

    Each waiting connection of Dovecot holds an inotify instance, of which a user has 128 by default: above a hundred
    connections the system's limit is raised, which only root can, and it is left raised.
    """
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if connections > 100 and int(limit.read_text()) < 2 * connections:
        with contextlib.suppress(OSError):
            limit.write_text(str(2 * connections))
    return Dovecot(extra=_SETTINGS.format(connections=connections, clients=3 * connections))


class Master:
    """A filled INBOX that is never polled itself: each run gets a copy of its own, made by hard links.

    The copy has the indexes of the master as well, so every run meets a server that knows the mailbox equally well.
    """

    def __init__(self, server: Dovecot, name: str, messages: Iterable[bytes]) -> None:
        self.name = name
        self._server = server
        self._copies = 0
        self.count, self.octets = 0, 0
        box = server.maildir(name)
        self._owner = make_maildir(box)
        for octets in messages:
            wire = len(octets) + octets.count(b"\n")
            path = box / "cur" / f"{1_750_000_000 + self.count}.M{self.count:07d}.bench,S={len(octets)},W={wire}:2,"
            path.write_bytes(octets)
            os.chown(path, *self._owner)
            self.count += 1
            self.octets += wire
        open_once(server, name)
        os.sync()  # else the disk is still busy with these when the first run begins

    def copy(self, name: str | None = None) -> str:
        """A new user with this INBOX, nothing in it seen: the user's name. The server has opened it once."""
        self._copies += 1
        user = name or f"{self.name}-{self._copies}"
        origin, box = self._server.maildir(self.name), self._server.maildir(user)
        make_maildir(box)
        for entry in os.scandir(origin / "cur"):
            os.link(entry.path, box / "cur" / entry.name)
        for entry in os.scandir(origin):
            if entry.is_file():
                shutil.copy2(entry.path, box / entry.name)
                os.chown(box / entry.name, *self._owner)
        open_once(self._server, user)
        return user

    def remove(self, user: str) -> None:
        """Remove a copy."""
        shutil.rmtree(self._server.maildir(user), ignore_errors=True)


def make_maildir(box: Path) -> tuple[int, int]:
    """Make an empty INBOX: its owner's user and group, those of the directory above."""
    above = box.parent.stat()
    owner = (above.st_uid, above.st_gid)
    for part in (box, box / "cur", box / "new", box / "tmp"):
        part.mkdir()
        os.chown(part, *owner)
    return owner


def open_once(server: Dovecot, user: str) -> None:
    """Let the server read the mailbox and write its indexes."""
    with server.client(user) as client:
        client.select("INBOX")
        client.fetch("1:*", "(RFC822.SIZE INTERNALDATE)")


def unseen(server: Dovecot, user: str) -> int:
    """How many messages of a user's INBOX are not marked seen."""
    with server.client(user) as client:
        _, (answer,) = client.status("INBOX", "(UNSEEN)")
    return int(answer.rsplit(b" ", 1)[1].rstrip(b")"))
