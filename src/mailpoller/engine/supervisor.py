"""Every mailbox in one task group: start, watch over, stop, drain, then cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta

import structlog

from mailpoller.core.errors import machine_trouble
from mailpoller.core.ports import Clock
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.backoff import STABLE, Backoff
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

    One mailbox's failure never touches another's task: a watcher that raises is run again. Of one that got nowhere
    for its budget first the fetch is given up; if that does not help within a minute, it is cancelled and run again.
    Mailboxes and queues may join and leave meanwhile. ``services`` are further tasks, by name (alarm, control
    socket), that end after the last watcher, within what is left of the grace, or ten seconds.
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
        self._queues = list(queues)
        self._health = health
        self._notifier = notifier
        self._clock = clock
        self._grace = grace
        self._stop = stop
        self._services = services
        self._ended = asyncio.Event()
        self._ends_at: float | None = None
        """Monotonic; when the grace is over."""
        self._group: TaskGroup | None = None
        """Where whoever joins is run; None while nothing is, and when the service stops."""
        self._tasks: dict[Watcher, asyncio.Task[None]] = {}
        self._tending: dict[Queue, asyncio.Task[None]] = {}
        self._over: dict[Watcher, asyncio.Event] = {}
        """Set for a watcher that is not to be run again."""

    async def run(self) -> None:
        """Return when everything has stopped."""
        async with TaskGroup() as group:
            services = self._start(group)
            for watcher in self.watchers.values():
                self._watch(group, watcher)
            self._notifier.ready()
            log.info("service.started", mailboxes=len(self._tasks))
            self._group = group
            try:
                await self._stop.wait()
            finally:
                self._group = None
            await self._wind_down(list(self._tasks.values()))
            await self._end(services)
        log.info("service.stopped")

    # --- joining and leaving ---------------------------------------------------------------------------------------
    def join(self, watcher: Watcher) -> None:
        """One more mailbox: polled at once if the service runs, else when it does. One that stops or drains does not
        begin with it.

        Raises :class:`ValueError` if a mailbox of this name has not left.
        """
        if watcher.mailbox in self.watchers:
            raise ValueError(f"the mailbox {watcher.mailbox} is being polled")
        self.watchers[watcher.mailbox] = watcher
        if self._group is not None:
            self._watch(self._group, watcher)

    async def leave(self, watcher: Watcher) -> None:
        """One mailbox less, once its task has ended. Whoever made the watcher has told it to stop.

        What is in hand is brought home within the grace; after that the task is cancelled. If the caller is
        cancelled, it still ends; leave again.
        """
        self._over.setdefault(watcher, asyncio.Event()).set()
        watcher.stir()
        if (task := self._tasks.get(watcher)) is not None:
            await self._bring_home([task])
            await asyncio.wait([task])
        self._tasks.pop(watcher, None)
        self._over.pop(watcher, None)
        if self.watchers.get(watcher.mailbox) is watcher:
            del self.watchers[watcher.mailbox]

    def tend(self, queue: Queue) -> None:
        """One more queue to look after."""
        self._queues.append(queue)
        if self._group is not None:
            self._look_after(self._group, queue)

    async def untend(self, queue: Queue) -> None:
        """One queue less; nothing looks after it when this returns."""
        if queue in self._queues:
            self._queues.remove(queue)
        if (task := self._tending.pop(queue, None)) is not None:
            task.cancel()
            await asyncio.wait([task])

    def _watch(self, group: TaskGroup, watcher: Watcher) -> None:
        self._over.setdefault(watcher, asyncio.Event())
        self._tasks[watcher] = group.create_task(self._guard(watcher), name=f"watcher {watcher.mailbox}")

    def _look_after(self, group: TaskGroup, queue: Queue) -> None:
        self._tending[queue] = group.create_task(queue.tend(), name=f"queue {queue.name}")

    # --- beginning and end -----------------------------------------------------------------------------------------

    def _start(self, group: TaskGroup) -> list[asyncio.Task[None]]:
        """Everything that is not a mailbox: the services, which are returned, and what is simply cancelled at the
        end."""
        services = [
            group.create_task(_endless(name, work, self._ended), name=name) for name, work in self._services.items()
        ]
        for queue in self._queues:
            self._look_after(group, queue)
        self._beating = group.create_task(self._heartbeat(), name="heartbeat")
        return services

    async def _end(self, services: Sequence[asyncio.Task[None]]) -> None:
        self._ended.set()
        if services:
            left = 0.0 if self._ends_at is None else self._ends_at - self._clock.monotonic()
            await asyncio.wait(services, timeout=max(left, LAST_WORDS.total_seconds()))
        for task in (*services, *self._tending.values(), self._beating):
            task.cancel()
        self._tending.clear()

    async def drain(self) -> bool:
        """Carry what every mailbox holds now, side by side; True if nothing failed, and nothing waits or is still to
        be done. Each watcher's ``remainder`` says what is left."""
        results: dict[str, bool] = {}

        async def one(watcher: Watcher) -> None:
            results[watcher.mailbox] = False
            try:
                async with asyncio.timeout(None) as watcher.leash:
                    results[watcher.mailbox] = await watcher.drain()
            except TimeoutError:
                log.error("watcher.stalled", mailbox=watcher.mailbox)
                watcher.rebuilt("watcher.stalled", "no step got anywhere within its budget")
            except Exception as error:
                log.exception("watcher.crashed", mailbox=watcher.mailbox)
                watcher.rebuilt("watcher.crashed", type(error).__name__)
            finally:
                watcher.leash = None

        async def all_of_them() -> None:
            async with TaskGroup() as group:
                for name, watcher in self.watchers.items():
                    self._tasks[watcher] = group.create_task(one(watcher), name=f"drain {name}")

        async with TaskGroup() as group:
            services = self._start(group)
            draining = group.create_task(all_of_them(), name="drain")
            stopping = group.create_task(self._stop.wait(), name="stop")
            await asyncio.wait({draining, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not draining.done():
                await self._wind_down([draining])
            stopping.cancel()
            await self._end(services)
        return not draining.cancelled() and not self._stop.is_set() and all(results.values())

    async def _wind_down(self, watching: Sequence[asyncio.Task[None]]) -> None:
        self._notifier.stopping()
        log.info("service.stopping", grace_s=self._grace.total_seconds())
        self._ends_at = self._clock.monotonic() + self._grace.total_seconds()
        for over in self._over.values():
            over.set()
        for watcher in self.watchers.values():
            watcher.stir()
        if not watching:
            return
        if late := await self._bring_home(watching):
            await asyncio.wait(late, timeout=5)

    async def _bring_home(self, watching: Sequence[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        """Wait out the grace for them; those that it was not enough for are cancelled, and may not have ended yet."""
        _, late = await asyncio.wait(watching, timeout=self._grace.total_seconds())
        for task in late:
            log.warning("watcher.cancelled", task=task.get_name())
            task.cancel()
        return late

    async def _guard(self, watcher: Watcher) -> None:
        """Run a watcher until it leaves or the service stops, whatever it does."""
        backoff, over = Backoff(REBUILD_FLOOR, REBUILD_CAP), self._over[watcher]
        while not over.is_set() and not self._stop.is_set():
            event, detail = "watcher.crashed", "TimeoutError"
            begun, polls = self._clock.monotonic(), watcher.polls
            try:
                async with asyncio.timeout(None) as watcher.leash:
                    await watcher.run()
                continue
            except TimeoutError:
                if watcher.leash is not None and watcher.leash.expired():
                    log.error("watcher.stalled", mailbox=watcher.mailbox)
                    event, detail = "watcher.stalled", "no step got anywhere within its budget"
                else:
                    log.exception("watcher.crashed", mailbox=watcher.mailbox)
            except Exception as error:
                log.exception("watcher.crashed", mailbox=watcher.mailbox)
                detail = type(error).__name__
            finally:
                watcher.leash = None
                watcher.deadline.lift()
            if watcher.polls > polls and self._clock.monotonic() - begun >= STABLE.total_seconds():
                backoff.reset()  # it went well for long: what befell it now is another trouble
            wait = backoff.failed()
            watcher.rebuilt(event, detail, wait)
            try:
                async with asyncio.timeout(wait):
                    await over.wait()
            except TimeoutError:
                pass

    async def _heartbeat(self) -> None:
        """Feed the watchdog, keep the status line, and pull the leash of watchers that are stuck."""
        wanted = Notifier.watchdog_interval()
        pause = HEARTBEAT if wanted is None else min(HEARTBEAT, wanted / 3)
        while True:
            now = self._clock.monotonic()
            for watcher in self.watchers.values():
                watcher.deadline.pulse()
                if watcher.deadline.at < now and watcher.leash is not None and not watcher.give_up():
                    watcher.deadline.lift()
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
        except Exception as error:
            if (trouble := machine_trouble(error)) is not None:
                log.warning("service.hindered", service=name, reason=trouble)
            else:
                log.exception("service.crashed", service=name)
            await asyncio.sleep(REBUILD_FLOOR.total_seconds())
