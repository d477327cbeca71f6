"""What the tests of the EWS source share: a source of a strict server, and a way to ask its session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mailpoller.core.delivery import Disposed, Disposition
from mailpoller.core.message import Folder, MessageRef, Position
from mailpoller.core.ports import Session, Start
from mailpoller.sources.ews import EwsConfig
from mailpoller.sources.ews.source import EwsSource
from mailpoller.testing.source_suite import ALL, listing, settlement
from servers.exchange import Exchange
from servers.mailboxes import runtime


class Rig:
    """A server and the directory of a process that polls it."""

    def __init__(self, server: Exchange, directory: Path) -> None:
        self.server = server
        self.spool = directory / "spool"
        self.runtime = runtime(directory)

    def source(self, **settings: Any) -> EwsSource:
        """A source that asks for news often."""
        known: dict[str, Any] = {
            "type": "ews",
            "url": self.server.url,
            "username": "EXAMPLE\\svc",
            "password": "secret",
            "connect_timeout": "60s",
            "command_timeout": "60s",
            "notice_interval": "200ms",
        }
        source = EwsConfig.model_validate({**known, **settings}).build("support", self.runtime)
        assert isinstance(source, EwsSource)
        return source

    def spooled(self) -> list[Path]:
        """What is left in the spool."""
        return list(self.spool.iterdir())


async def listed(
    session: Session, name: str = "inbox", since: Position | None = None, start: Start = ALL
) -> tuple[Folder, list[MessageRef], Position]:
    """Open a folder and list it."""
    folder = await session.open(name)
    refs, position = await listing(session, folder, since, start)
    assert position is not None
    return folder, refs, position


async def settled(session: Session, ref: MessageRef, **disposition: Any) -> Disposed:
    """Carry out one disposition."""
    (done,) = await session.settle([settlement(ref, Disposition(**disposition))])
    return done
