"""Sources on the test servers, and short ways to use a session in a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Disposition, Settlement
from mailpoller.core.message import Claim, Folder, Gone, MessageRef, Position, RawMessage
from mailpoller.core.ports import Session, Source, Start
from mailpoller.core.seals.ledger import SealedSettlement
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sources.imap import ImapConfig

ALL = Start("all")


def runtime(directory: Path, threshold: int = 1 << 20) -> Runtime:
    """A runtime whose spool lies in ``directory``."""
    spool = Spool(directory / "spool", threshold)
    spool.prepare()
    return Runtime(clock=SystemClock(), spool=spool, state_directory=directory)


def imap_source(directory: Path, port: int, user: str, **settings: Any) -> Source:
    """An IMAP source; by default without TLS, with time-outs that no machine is too slow for."""
    values = {
        "type": "imap", "host": "127.0.0.1", "port": port, "tls": "none", "username": user, "password": "secret",
        "connect_timeout": "60s", "command_timeout": "60s", **settings,
    }  # fmt: skip
    return ImapConfig.model_validate(values).build("box", runtime(directory))


@asynccontextmanager
async def session_of(source: Source) -> AsyncIterator[Session]:
    """A session that is closed in the end."""
    session = await source.connect()
    try:
        yield session
    finally:
        await session.close()


async def listed(
    session: Session, folder: Folder, since: Position | None = None, start: Start = ALL
) -> tuple[list[MessageRef], Position | None]:
    """Every ref of a listing, and the position after it."""
    refs: list[MessageRef] = []
    position: Position | None = None
    async for page in session.pending(folder, since, start):
        refs.extend(page.refs)
        position = page.position
    return refs, position


def claims_of(refs: Sequence[MessageRef]) -> list[Claim]:
    """What a ledger would make of them."""
    return [Claim(ref, mid=f"mid-{ref.uid}") for ref in refs]


async def fetched(session: Session, claims: Sequence[Claim], limit: int = 50_000_000) -> list[RawMessage | Gone]:
    """Every answer of a fetch."""
    return [answer async for answer in session.fetch(claims, limit)]


def settled(refs: Sequence[MessageRef], disposition: Disposition) -> list[Settlement]:
    """What a ledger would make of them in the end."""
    return [SealedSettlement(ref, f"mid-{ref.uid}", "delivered", disposition) for ref in refs]
