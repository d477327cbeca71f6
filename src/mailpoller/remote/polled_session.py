"""Sessions with a service that never speaks by itself: it is asked for everything, for news too."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Literal, Protocol

import structlog

from mailpoller.core.delivery import Disposed, Disposition, Settlement
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Folder, MessageRef, Position, Survey
from mailpoller.core.pacing import Pacer
from mailpoller.core.ports import Clock, Wake
from mailpoller.wire.opening import attempt

log = structlog.get_logger(__name__)

GOODBYE = 4.0
"""Seconds that closing the connections may take."""


Wish = tuple[str, Disposition]
"""A uid, and what is to be done to that message."""
State = tuple[Literal["applied", "failed", "pending"], str]
"""What has become of a wish, and why if it was not granted."""
APPLIED: State = ("applied", "")


class FolderGone(TransientError):
    """There is no such folder (any more): whoever remembers its id must look for it anew."""


class Asked(ABC):
    """The client of one session: who is asked. Once ``lost`` says why that is over, there is no answer any more."""

    lost: str | None = None
    pacer: Pacer | None = None
    """How often the host may be asked; whoever logged in gives it."""

    async def in_pace(self, clock: Clock) -> None:
        """Return when one more request may be made."""
        if self.pacer is not None and (wait := self.pacer.take(clock.monotonic())):
            await clock.sleep(wait)

    @property
    def octets_in(self) -> int:
        """Octets of answers that have come."""
        return 0

    def check(self) -> None:
        """Raise :class:`SessionLost` if the session is."""
        if self.lost is not None:
            raise SessionLost(self.lost)

    def lose(self, reason: str, retry_after: timedelta | None = None) -> SessionLost:
        """The session is over, if it was not before: the error to raise."""
        self.lost = self.lost or reason
        return SessionLost(self.lost, retry_after=retry_after)

    async def close(self) -> None:
        """End the session and close its connections. Nothing can be asked afterwards."""
        self.lost = self.lost or "the session was closed"
        await self._hang_up()

    @abstractmethod
    async def _hang_up(self) -> None:
        """Close the connections."""


class Directory(Protocol):
    """The folders of a mailbox, by the names that the configuration gives them; for one that is not there
    :class:`FolderGone`."""

    async def find(self, name: str) -> str:
        """The folder's id, which may be remembered."""

    async def look(self, name: str) -> str:
        """The folder's id, asked for anew."""

    async def names(self) -> list[str]:
        """Those that there are, or the topmost of them, for whoever wrote a name that is none."""


class AskingConfig(Protocol):
    """What the block of such a mailbox has."""

    @property
    def folders(self) -> list[str]:
        """The names of the folders; there is one at least."""

    @property
    def notice_interval(self) -> timedelta:
        """How often news is asked for."""

    @property
    def mode(self) -> Literal["live", "shadow"]:
        """``shadow``: nothing is ever changed."""


@asynccontextmanager
async def opening(client: Asked) -> AsyncIterator[None]:
    """For the first requests of a session, as an :func:`attempt`: closes the client if they fail."""
    try:
        with attempt():
            yield
    except BaseException:
        await client.close()
        raise


class PolledSession(ABC):
    """What such sessions have in common; see :class:`mailpoller.core.ports.Session`."""

    def __init__(
        self, mailbox: str, config: AskingConfig, directory: Directory, client: Asked, clock: Clock
    ) -> None:  # fmt: skip
        self._name = mailbox
        self._clock = clock
        self._first = config.folders[0]
        """The first folder that exists: the one whose news is noticed."""
        self._opened: dict[str, tuple[Folder, str]] = {}
        """name -> folder and its id."""
        self._names = config.folders
        self._shadow = config.mode == "shadow"
        self._directory = directory
        self._asked = client
        self._notice_interval = config.notice_interval

    @property
    def octets_in(self) -> int:
        """See :class:`mailpoller.core.ports.Progressing`."""
        return self._asked.octets_in

    # --- folders -----------------------------------------------------------------------------------------------
    async def folders(self) -> Sequence[str]:
        """As configured and found to exist; one that is missing is logged and left out.

        Raises :class:`TransientError` if none exists.
        """
        self._asked.check()
        found = []
        for name in self._names:
            try:
                await self._directory.find(name)
                found.append(name)
            except FolderGone:
                log.debug("folder.missing", mailbox=self._name, folder=name)
        if not found:
            raise TransientError("none of the mailbox's folders exists")
        self._first = found[0]
        return found

    async def open(self, name: str) -> Folder:
        """See the port. Raises :class:`FolderGone`."""
        self._asked.check()
        uid = await self._directory.look(name)
        folder = Folder(self._name, name, self._epoch_of(uid))
        self._opened[name] = folder, uid
        return folder

    @abstractmethod
    def _epoch_of(self, uid: str) -> str:
        """The epoch of the folder with this id."""

    def _require(self, *folders: Folder) -> str:
        """The id of the folder, which was opened in this session and epoch."""
        self._asked.check()
        folder, uid = self._opened.get(folders[0].name, (None, ""))
        if any(one != folder for one in folders):
            raise TransientError(f"the folder {folders[0].name} is not open in this epoch")
        return uid

    # --- what is there -----------------------------------------------------------------------------------------
    async def survey(self, folder: Folder, position: Position | None) -> Survey:
        """See the port. An id is never given twice, so there is nothing to compare."""
        self._require(folder)
        return Survey()

    async def look(self, refs: Sequence[MessageRef]) -> Sequence[MessageRef | None]:
        """See the port. The service is asked, for mail that was thought gone may be back; what :meth:`fetch` would
        give is shown."""
        self._asked.check()
        if not refs:
            return []
        folder = self._require(*{ref.folder for ref in refs})
        shown = await self._shown(folder, list(dict.fromkeys(ref.uid for ref in refs)))
        # A size is the store's estimate, and changes with the flags: beside an id that is never given twice it would
        # only raise questions.
        return [
            MessageRef(ref.folder, ref.uid, received=shown[ref.uid]) if ref.uid in shown else None for ref in refs
        ]  # fmt: skip

    @abstractmethod
    async def _shown(self, folder: str, uids: Sequence[str]) -> Mapping[str, datetime | None]:
        """Those of the messages that the service has, and when it received each, if it says that. Raises
        :class:`TransientError` if it cannot be told of one of them."""

    # --- settling ----------------------------------------------------------------------------------------------
    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        """See the port. What cannot be told now is ``pending``."""
        self._asked.check()
        if self._shadow:
            return [Disposed(one, "applied") for one in settlements]
        if not settlements:
            return []
        try:
            folder = self._require(*{one.ref.folder for one in settlements})
            wishes = dict.fromkeys((one.ref.uid, one.disposition) for one in settlements if not one.disposition.leaves)
            states = await self._carry_out(folder, list(wishes))
        except SessionLost:
            raise
        except TransientError as error:
            # Some of it may have been done; what is asked for twice is done once.
            return [Disposed(one, "pending", str(error)) for one in settlements]
        return [Disposed(one, *states.get((one.ref.uid, one.disposition), APPLIED)) for one in settlements]

    @abstractmethod
    async def _carry_out(self, folder: str, wishes: Sequence[Wish]) -> Mapping[Wish, State]:
        """Do what is wished in the folder with this id; idempotent. A state for each wish."""

    # --- waiting -----------------------------------------------------------------------------------------------
    async def wait(self, limit: timedelta) -> Wake:
        """See the port: the service is asked at every ``notice_interval``. What we change ourselves is no news, and
        news that was told is not told again."""
        ends = self._clock.monotonic() + limit.total_seconds()
        interval = self._notice_interval.total_seconds()
        while True:
            self._asked.check()
            left = ends - self._clock.monotonic()
            if left <= 0:
                return Wake.LIMIT
            await self._clock.sleep(min(left, interval))
            if left > interval and await self._news():
                return Wake.NEWS

    @abstractmethod
    async def _news(self) -> bool:
        """Whether anything came to the first folder since it was listed, or asked about here. Also if that can no
        longer be told: the poll that follows finds out."""

    # --- the end -----------------------------------------------------------------------------------------------
    async def close(self) -> None:
        """There is nothing to say: HTTP has no goodbye."""
        try:
            async with asyncio.timeout(GOODBYE):
                await self._asked.close()
        except TimeoutError:
            pass
