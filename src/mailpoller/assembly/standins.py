"""Who stands in for a part that cannot be built: it says why to everybody who wants something of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import timedelta
from typing import Generic, TypeVar

import structlog

from mailpoller.config.extras import require_extras
from mailpoller.core.component import Component, OutgoingConfig, Runtime
from mailpoller.core.delivery import Delivery, Disposition, Receipt, Refusal
from mailpoller.core.errors import ConfigError, MailpollerError, TransientError
from mailpoller.core.extras import without
from mailpoller.core.intake_config import IntakeSettings
from mailpoller.core.message import Account
from mailpoller.core.ports import (
    EntryAnswer,
    EntryListener,
    EntrySource,
    EntryTaker,
    Mail,
    OctetsPlace,
    Outgoing,
    Session,
    Stage,
    WaitingEntry,
)

T = TypeVar("T")
Late = TypeVar("Late", EntrySource, EntryListener)

log = structlog.get_logger(__name__)

_ADVICE = "Install or make what is missing; the service looks for it every minute."


def built(block: Component, build: Callable[[], T]) -> T:
    """What ``build`` makes of the block. Raises :class:`ConfigError` if it cannot be made now, also if a module is
    missing, of which the block may have said nothing, or if a plug-in has a bug: that is in the log."""
    require_extras(block)
    try:
        return build()
    except MailpollerError:
        raise
    except ModuleNotFoundError as error:
        raise without(error) from None
    except Exception as error:
        log.exception("part.crashed", type=block.type)
        raise ConfigError(f"type: {block.type} cannot be built: {type(error).__name__}; the log has more") from None


class _StandIn:
    def __init__(self, reason: str) -> None:
        self.reason = reason

    async def _stages(self) -> AsyncIterator[Stage]:
        yield Stage("parts", False, timedelta(0), self.reason, _ADVICE)

    async def close(self) -> None:
        """There is nothing to close."""


class AbsentSource(_StandIn):
    """A mailbox that cannot be built."""

    def __init__(self, reason: str, account: Account | None = None) -> None:
        super().__init__(reason)
        self.account = account or Account("", "", "")

    async def connect(self) -> Session:
        """Raises :class:`ConfigError`."""
        raise ConfigError(self.reason)

    def probe(self, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
        """One stage, which fails."""
        return self._stages()


class AbsentSink(_StandIn):
    """A queue that cannot be built: it takes nothing."""

    octets_place: OctetsPlace = "inside"

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """Raises :class:`ConfigError`."""
        raise ConfigError(self.reason)

    async def check(self) -> None:
        """Raises :class:`ConfigError`."""
        raise ConfigError(self.reason)

    def probe(self) -> AsyncIterator[Stage]:
        """One stage, which fails."""
        return self._stages()


class AbsentOutgoing(_StandIn):
    """An outgoing that cannot be built: it sends nothing."""

    host = ""

    def __init__(self, reason: str, sender: str) -> None:
        super().__init__(reason)
        self.sender = sender

    async def send(self, mail: Mail) -> str:
        """Raises :class:`ConfigError`."""
        raise ConfigError(self.reason)

    def probe(self) -> AsyncIterator[Stage]:
        """One stage, which fails."""
        return self._stages()


def outgoing_of(name: str, block: OutgoingConfig, runtime: Runtime) -> Outgoing:
    """The outgoing, or who stands in for it."""
    try:
        return built(block, lambda: block.build(name, runtime))
    except ConfigError as error:
        return AbsentOutgoing(str(error), str(getattr(block, "sender", "")))


class _Late(Generic[Late]):
    """An intake that could not be built yet: it is tried again whenever something is asked of it. What it lacks is
    raised as :class:`TransientError`."""

    def __init__(self, block: IntakeSettings, make: Callable[[], Late | None]) -> None:
        self._block = block
        self._make: Callable[[], Late | None] = make
        self._made: Late | None = None

    async def check(self) -> None:
        """Of the intake."""
        await self._built().check()

    async def close(self) -> None:
        """Of the intake, if it was built."""
        if self._made is not None:
            await self._made.close()

    def _built(self) -> Late:
        if self._made is None:
            try:
                self._made = built(self._block, self._make)
            except ConfigError as error:
                raise TransientError(str(error), advice=_ADVICE) from None
        if self._made is None:
            raise TransientError("whoever has an entry comes by himself")
        return self._made


class LateIntake(_Late[EntrySource]):
    """See :class:`~mailpoller.core.ports.EntrySource`."""

    async def waiting(self, *, limit: int, largest: int, but: Collection[int] = ()) -> Sequence[WaitingEntry]:
        """Of the intake."""
        return await self._built().waiting(limit=limit, largest=largest, but=but)

    async def answer(self, answers: Sequence[EntryAnswer]) -> None:
        """Of the intake."""
        await self._built().answer(answers)


class LateListener(_Late[EntryListener]):
    """See :class:`~mailpoller.core.ports.EntryListener`."""

    async def serve(self, take: EntryTaker, ended: asyncio.Event, *, largest: int, opened: Callable[[], None]) -> None:
        """Of the intake."""
        await self._built().serve(take, ended, largest=largest, opened=opened)
