"""Every mailbox in one task group: start, watch over, stop, drain, then cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta

import structlog

from mailpoller.core.ports import Clock
from mailpoller.engine.backoff import Backoff
from mailpoller.engine.health import Health
from mailpoller.engine.notify import Notifier
from mailpoller.engine.queues import Queue
from mailpoller.engine.watcher import Watcher

log = structlog.get_logger(__name__)

HEARTBEAT = timedelta(seconds=5)
"""How often the supervisor looks at its watchers, and feeds systemd's watchdog if that does not want it more often."""

REBUILD_FLOOR = timedelta(seconds=5)
REBUILD_CAP = timedelta(minutes=10)

LAST_WORDS = timedelta(seconds=10)
"""How long the services may take to end once every watcher has."""

Service = Callable[[asyncio.Event], Awaitable[None]]
"""Runs until the event is set, then says its last words and returns."""


class Supervisor:
    """Runs watchers until ``stop`` is set, then gives them ``grace`` to bring home what is in hand.

    One mailbox's failure never touches another's task: a watcher that raises, or that got nowhere for its budget, is
    cancelled and run again. ``services`` are further tasks, by name (alarm, control socket), that end after the last watcher.
    """

    def __init__(
        self,
        watchers: Sequence[Watcher],
        queues: Sequence[Queue],
        *,
        health: Health,
        notifier: Notifier,
        clock: Clock,
        grace: timedelta,
        stop: asyncio.Event,
        services: Mapping[str, Service],
    ) -> None:
        self.watchers = {watcher.mailbox: watcher for watcher in watchers}
        self._queues = queues
        self._health = health
        self._notifier = notifier
        self._clock = clock
        self._grace = grace
        self._stop = stop
        self._services = services
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Return when everything has stopped."""
        async with asyncio.TaskGroup() as group:
            services, background = self._start(group)
            watching = [
                group.create_task(self._guard(watcher), name=f"watcher {name}")
                for name, watcher in self.watchers.items()
            ]
            self._notifier.ready()
            log.info("service.started", mailboxes=len(watching))
            await self._stop.wait()
            await self._wind_down(watching)
            await self._end(services, background)
        log.info("service.stopped")

    def _start(self, group: asyncio.TaskGroup) -> tuple[list[asyncio.Task[None]], list[asyncio.Task[None]]]:
        """Everything that is not a mailbox: the services, and what is simply cancelled at the end."""
        services = [
            group.create_task(_endless(name, work, self._ended), name=name) for name, work in self._services.items()
        ]
        background = [group.create_task(queue.tend(), name=f"queue {queue.name}") for queue in self._queues]
        background.append(group.create_task(self._heartbeat(), name="heartbeat"))
        return services, background

    async def _end(self, services: Sequence[asyncio.Task[None]], background: Sequence[asyncio.Task[None]]) -> None:
        self._ended.set()
        if services:
            await asyncio.wait(services, timeout=LAST_WORDS.total_seconds())
        for task in (*services, *background):
            task.cancel()

    async def drain(self) -> bool:
        """Carry what every mailbox holds now, side by side; True if nothing failed and nothing was put off."""
        results: dict[str, bool] = {}

        async def one(watcher: Watcher) -> None:
            try:
                results[watcher.mailbox] = await watcher.drain()
            except Exception:
                log.exception("watcher.crashed", mailbox=watcher.mailbox)
                results[watcher.mailbox] = False

        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as group:
                for name, watcher in self.watchers.items():
                    group.create_task(one(watcher), name=f"drain {name}")

        async with asyncio.TaskGroup() as group:
            services, background = self._start(group)
            draining = group.create_task(all_of_them(), name="drain")
            stopping = group.create_task(self._stop.wait(), name="stop")
            await asyncio.wait({draining, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not draining.done():
                await self._wind_down([draining])
            stopping.cancel()
            await self._end(services, background)
        return not draining.cancelled() and not self._stop.is_set() and all(results.values())

    async def _wind_down(self, watching: Sequence[asyncio.Task[None]]) -> None:
        self._notifier.stopping()
        log.info("service.stopping", grace_s=self._grace.total_seconds())
        for watcher in self.watchers.values():
            watcher.stir()
        if not watching:
            return
        _, late = await asyncio.wait(watching, timeout=self._grace.total_seconds())
        for task in late:
            log.warning("watcher.cancelled", task=task.get_name())
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=5)

    async def _guard(self, watcher: Watcher) -> None:
        """Run a watcher for as long as the service runs, whatever it does."""
        backoff = Backoff(REBUILD_FLOOR, REBUILD_CAP)
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(None) as watcher.leash:
                    await watcher.run()
                continue
            except TimeoutError:
                if watcher.leash is not None and watcher.leash.expired():
                    log.error("watcher.stalled", mailbox=watcher.mailbox)
                    watcher.fault("watcher.stalled", "no step got anywhere within its budget", "")
                else:
                    log.exception("watcher.crashed", mailbox=watcher.mailbox)
            except Exception as error:
                log.exception("watcher.crashed", mailbox=watcher.mailbox)
                watcher.fault("watcher.crashed", type(error).__name__, "")
            finally:
                watcher.leash = None
                watcher.deadline = float("inf")
            wait = backoff.failed()
            try:
                async with asyncio.timeout(wait):
                    await self._stop.wait()
            except TimeoutError:
                pass

    async def _heartbeat(self) -> None:
        """Feed the watchdog, keep the status line, and pull the leash of watchers that are stuck."""
        wanted = Notifier.watchdog_interval()
        pause = HEARTBEAT if wanted is None else min(HEARTBEAT, wanted / 3)
        while True:
            now = self._clock.monotonic()
            for watcher in self.watchers.values():
                if watcher.deadline < now and watcher.leash is not None:
                    watcher.deadline = float("inf")
                    watcher.leash.reschedule(asyncio.get_running_loop().time())
            self._notifier.status(self._health.line())
            self._notifier.alive()
            await self._clock.sleep(pause.total_seconds())


async def _endless(name: str, work: Service, ended: asyncio.Event) -> None:
    """Run a service again if it fails: nothing that is not a mailbox may end the process."""
    while not ended.is_set():
        try:
            await work(ended)
            return
        except Exception:
            log.exception("service.crashed", service=name)
            await asyncio.sleep(REBUILD_FLOOR.total_seconds())
