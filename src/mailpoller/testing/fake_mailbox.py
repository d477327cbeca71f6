"""A mailbox in memory, to which a test is the server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

INBOX = "INBOX"


@dataclass(slots=True)
class FakeMail:
    """One message in a fake mailbox. ``flags`` are named as IMAP names them.

    ``told``: the size that the server tells of it, if that is not true. ``doubt``: why what comes of it has no proper
    end.
    """

    uid: str
    octets: bytes
    received: datetime
    flags: set[str] = field(default_factory=set)
    told: int | None = None
    doubt: str = ""


@dataclass(slots=True)
class FakeFolder:
    """A folder: ``validity`` is its epoch, ``uid_next`` the uid that the next message gets.

    What keeps a session from seeing all of it: ``away``, its store is not mounted, and this is what its
    ``uid_next`` was then; ``behind``, a replica answers that has not heard
    of so many of the latest numbers; ``gaps``, uids that a listing lacks although the messages are there.
    """

    mails: dict[str, FakeMail] = field(default_factory=dict)
    validity: int = 1
    uid_next: int = 1
    away: int | None = None
    behind: int = 0
    gaps: set[str] = field(default_factory=set)
    below: dict[str, int] = field(default_factory=dict)
    """Position -> how many messages the listing that reached it showed before it: more of them is a sign. A real
    source keeps this in the position, so that a listing whose position was never recorded counts for nothing."""

    @property
    def shown_next(self) -> int:
        """What the server says that the next message will get."""
        return max(1, (self.uid_next if self.away is None else self.away) - self.behind)

    @property
    def shown(self) -> dict[str, FakeMail]:
        """The messages that can be asked for now."""
        if self.away is not None:
            return {}
        if not self.behind:
            return self.mails
        return {uid: mail for uid, mail in self.mails.items() if int(uid) < self.shown_next}

    def listed(self) -> list[FakeMail]:
        """Those of them that a listing shows."""
        return [mail for mail in self.shown.values() if mail.uid not in self.gaps]

    def unlisted(self, since: int = 1) -> int | None:
        """The lowest uid from ``since`` on that a listing lacks, if it lacks any."""
        return min((int(uid) for uid in self.gaps if uid in self.shown and int(uid) >= since), default=None)


class FakeMailbox:
    """A mail server with one account. It outlives the sessions, as a real one does.

    ``whole``: it is a POP3 server, which shows all that it has each time, without dates and without a position.
    """

    def __init__(self, folders: Iterable[str] = (INBOX,), *, whole: bool = False) -> None:
        self.folders: dict[str, FakeFolder] = {name: FakeFolder() for name in folders}
        self.whole = whole

    def deliver(
        self, octets: bytes, folder: str = INBOX, *, flags: Iterable[str] = (), received: datetime | None = None
    ) -> str:
        """A new message: its uid. A session that waits notices it."""
        place = self.folders.setdefault(folder, FakeFolder())
        uid = str(place.uid_next)
        place.uid_next += 1
        place.mails[uid] = FakeMail(uid, octets, received or datetime.now(UTC), set(flags))
        return uid

    def remove(self, uid: str, folder: str = INBOX) -> None:
        """Somebody else deletes a message."""
        del self.folders[folder].mails[uid]

    def uids(self, folder: str = INBOX) -> list[str]:
        """The uids in a folder, in order of arrival."""
        return list(self.folders[folder].mails) if folder in self.folders else []

    def copy(self, folder: str = INBOX) -> FakeFolder:
        """What a back-up of a folder holds, for :meth:`put_back`."""
        place = self.folders[folder]
        mails = {uid: replace(mail, flags=set(mail.flags)) for uid, mail in place.mails.items()}
        return FakeFolder(mails, place.validity, place.uid_next)

    def put_back(self, copy: FakeFolder, folder: str = INBOX) -> None:
        """The server is put back from a copy: the same UIDVALIDITY, and what came since is gone; new mail gets its
        numbers."""
        copy.below = self.folders[folder].below  # we keep that, and not the server
        self.folders[folder] = copy

    def renumber(self, folder: str = INBOX) -> None:
        """The server counts anew (another UIDVALIDITY): same messages, new epoch, new uids."""
        place = self.folders[folder]
        mails = list(place.mails.values())
        place.validity, place.uid_next, place.mails = place.validity + 1, 1, {}
        for mail in mails:
            mail.uid = str(place.uid_next)
            place.uid_next += 1
            place.mails[mail.uid] = mail
