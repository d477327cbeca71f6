"""The alarms that are open, and the ledger's copy of them, which may lag behind while it cannot be written."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import ParamSpec, TypeVar

from mailpoller.core.errors import ConfigError, LedgerUnavailable
from mailpoller.core.ports import Clock, DoubtKind, Fault, Journal
from mailpoller.engine.alarm_kinds import AnyKind, Kind, manner_of
from mailpoller.engine.alarm_texts import Trouble

P = ParamSpec("P")
T = TypeVar("T")

_FAULTS_KEPT = 2000
_LEDGER_REST = 6
"""A ledger that took a while to say that it cannot is left alone for so many times as long."""


class OpenAlarms:
    """The alarms that are open, by key.

    What the ledger did not take is kept, and brought to it by :meth:`catch_up`. Nothing here
    raises for the ledger's sake."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self.open: dict[str, Trouble] = {}
        self.recalled_at: datetime | None = None
        """When the alarms of earlier runs were read; None: not yet."""
        self._journal = journal
        self._clock = clock
        self._kinds: dict[str, AnyKind] = {kind.value: kind for kind in Kind}
        self._recalling = asyncio.Lock()
        self._faults: deque[Fault] = deque(maxlen=_FAULTS_KEPT)
        self._ledger_rests_until = 0.0
        self._unnoted: set[str] = set()
        self._uncleared: set[str] = set()

    def learn(self, kinds: Iterable[DoubtKind]) -> None:
        """See :meth:`mailpoller.engine.alarm.Alarm.learn`."""
        for kind in kinds:
            if isinstance(self._kinds.get(kind.name), Kind):
                raise ConfigError(f"a sink calls a doubt {kind.name}, which is an alarm of the service's own")
            self._kinds[kind.name] = kind

    def fault(self, fault: Fault) -> None:
        """Note it, with the next batch."""
        self._faults.append(fault)

    def told(self, trouble: Trouble) -> None:
        """A mail has told of it; the ledger learns it with the next batch."""
        self._unnoted.add(trouble.key)

    async def recall(self, *, mails: bool) -> None:
        """Once: the alarms of earlier runs. ``mails``: there is somebody who may have to be told of their events."""
        if self.recalled_at is not None:
            return
        async with self._recalling:
            if self.recalled_at is not None:
                return
            try:
                edges = await self._ask(self._journal.alarms)
            except LedgerUnavailable:
                return
            now = self.recalled_at = self._clock.now()
            for edge in edges:
                word, _, subject = edge.key.partition(":")
                kind = self._kinds.get(word)
                if kind is None:
                    self._uncleared.add(edge.key)
                    continue
                if not manner_of(kind).lasts:
                    subject = subject.partition(":")[0]
                    if edge.notified or not mails:
                        self._uncleared.add(edge.key)
                        continue
                told_at = now if edge.notified else None
                known = self.open.get(edge.key)
                if known is not None:  # raised before the ledger could be read
                    known.raised_at, known.told_at, known.recorded = edge.raised_at, known.told_at or told_at, True
                    continue
                self.open[edge.key] = Trouble(
                    kind, subject, edge.group, edge.summary, edge.raised_at, told_at, recorded=True, recalled=True
                )

    async def record(self, trouble: Trouble) -> bool:
        """Put it down as open; False if the ledger cannot be written now."""
        self._uncleared.discard(trouble.key)
        try:
            await self._ask(self._journal.raise_alarm, trouble.key, trouble.group, trouble.detail)
        except LedgerUnavailable:
            return False
        trouble.recorded = True
        return True

    async def forget(self, troubles: Iterable[Trouble]) -> None:
        """Take them off the open ones."""
        for trouble in troubles:
            self.open.pop(trouble.key, None)
            self._unnoted.discard(trouble.key)
            if trouble.recorded:
                self._uncleared.add(trouble.key)
        await self.catch_up()

    async def catch_up(self) -> None:
        """Write what the ledger has not got yet; what fails now is tried at the next step."""
        try:
            for trouble in [one for one in self.open.values() if not one.recorded]:
                if not await self.record(trouble):
                    return
            if self._unnoted:
                keys = list(self._unnoted)
                await self._ask(self._journal.notified, keys)
                self._unnoted.difference_update(keys)
            for key in list(self._uncleared):
                if key not in self.open:
                    await self._ask(self._journal.clear_alarm, key)
                self._uncleared.discard(key)
            await self._note()
        except LedgerUnavailable:
            return

    async def _note(self) -> None:
        if not self._faults:
            return
        batch, self._faults = self._faults, deque(maxlen=_FAULTS_KEPT)
        try:
            await self._ask(self._journal.note, batch)
        except LedgerUnavailable:
            self._faults = deque([*batch, *self._faults], maxlen=_FAULTS_KEPT)
            raise

    async def _ask(self, call: Callable[P, Awaitable[T]], *arguments: P.args, **named: P.kwargs) -> T:
        """What the ledger answers. Raises :class:`LedgerUnavailable`.

        Another process that holds its lock costs a wait of seconds, and there are many calls: after such a wait it is
        not asked for a while, so that alerts, which can do without it, do not wait for it at every step.
        """
        began = self._clock.monotonic()
        if began < self._ledger_rests_until:
            raise LedgerUnavailable("the ledger is not asked again so soon")
        try:
            return await call(*arguments, **named)
        except LedgerUnavailable:
            ended = self._clock.monotonic()
            self._ledger_rests_until = ended + _LEDGER_REST * (ended - began)
            raise
