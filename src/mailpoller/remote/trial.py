"""What is tried in a mailbox that is asked for everything (:mod:`~mailpoller.remote.polled_session`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import TransientError
from mailpoller.remote.polled_session import AskingConfig, Directory, FolderGone
from mailpoller.wire.probe.trial import Trial


class AskedTrial(Trial):
    """The folders are those of a directory; a subclass says how a message is read, and what may be done to one."""

    there_are = "at the top there are"
    """What stands before :meth:`Directory.names`."""

    def __init__(self, config: AskingConfig, directory: Directory, dispositions: Sequence[Disposition]) -> None:
        super().__init__(dispositions, shadow=config.mode == "shadow")
        self._names = config.folders
        self._directory = directory

    async def _folder(self) -> str:
        for name in self._names:
            try:
                await self._enter(name)
            except FolderGone as error:
                known = ", ".join(await self._directory.names())
                raise TransientError(f"{error}; {self.there_are}: {known}") from None
        return ", ".join(self._names)

    async def _enter(self, name: str) -> None:
        """Find a folder that is polled."""
        await self._directory.find(name)

    async def _message(self) -> str:
        for name in self._names:
            if await self._read(name):
                return f"a message of {name} can be read"
        return "there is no message to try with"

    @abstractmethod
    async def _read(self, name: str) -> bool:
        """Read the beginning of a message in the folder; False if there is none."""

    async def _changes(self) -> str:
        told: list[str] = []
        for disposition in self._dispositions:
            for reason in self._against(disposition):
                raise TransientError(reason)
            if disposition.move is not None:
                told.append(await self._target(disposition.move))
        await self._change()
        return "; ".join(dict.fromkeys(told)) or "messages may be changed"

    @abstractmethod
    def _against(self, disposition: Disposition) -> Iterable[str]:
        """Why the service can never do this."""

    async def _target(self, target: str) -> str:
        try:
            uid = await self._directory.find(target)
        except FolderGone:
            return f"{target} does not exist and will be created"
        if any([uid == await self._directory.find(name) for name in self._names]):
            raise TransientError(f"{target} is itself polled: messages would be moved onto themselves")
        return f"{target} exists"

    @abstractmethod
    async def _change(self) -> None:
        """Ask whether messages may be changed as configured, without changing any."""
