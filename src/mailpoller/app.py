"""The composition root: a checked configuration in, a supervisor out. The only file that knows every part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog

from mailpoller.assembly.fleet import Fleet
from mailpoller.assembly.lacking import Lacking
from mailpoller.assembly.noting import note_configuration, note_start
from mailpoller.assembly.outbox import outbox_parts
from mailpoller.assembly.parts import Bystander, Ports
from mailpoller.assembly.plans import Rules, bare_plan, limit_hosts, plan_of, set_up_quarantine
from mailpoller.assembly.preparing import prepare_runtime, prepare_spool, prepare_state
from mailpoller.assembly.reload import Reload
from mailpoller.assembly.reloader import Reloader
from mailpoller.assembly.shares import Bounds
from mailpoller.assembly.standins import built
from mailpoller.config import Config
from mailpoller.config.sections import BLOBS, METRICS, WATERMARKS
from mailpoller.core.component import Watermarks
from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import (
    Clock,
    Ledger,
)
from mailpoller.core.quarantined import Quarantined
from mailpoller.engine.alarm import Alarm, Kind, Policy
from mailpoller.engine.alarm_kinds import AnyKind
from mailpoller.engine.blob_sweeper import Sweeper
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.control import ControlServer
from mailpoller.engine.custody import Custody
from mailpoller.engine.forecast import Forecast
from mailpoller.engine.health import Condition, Health
from mailpoller.engine.lifeline import Lifeline, opened
from mailpoller.engine.metrics import Metrics
from mailpoller.engine.notices import Notices
from mailpoller.engine.notify import Notifier
from mailpoller.engine.operations import Operations
from mailpoller.engine.overdue import Overdue
from mailpoller.engine.pauses import Pauses
from mailpoller.engine.prudent_clock import PrudentClock
from mailpoller.engine.recognised_blobs import RecognisedBlobs
from mailpoller.engine.release import Releases
from mailpoller.engine.supervisor import Service, Supervisor
from mailpoller.engine.watermarks import Tide
from mailpoller.monitoring.pages import serve as serve_metrics
from mailpoller.monitoring.pages import sizes_of
from mailpoller.quarantine import StoreConfig
from mailpoller.quarantine.takeover import take_over

log = structlog.get_logger(__name__)
TAKE_OVER_AGAIN = timedelta(minutes=1)
LISTED = 10
"""Mailboxes that one line names."""


@dataclass(slots=True)
class App:
    """A service that is put together and ready to run."""

    supervisor: Supervisor
    ledger: Ledger
    health: Health
    fleet: Fleet
    stop: asyncio.Event
    reloader: Reloader | None = None
    """None if it was not told where a configuration is read from."""

    async def run(self) -> None:
        """Poll until :attr:`stop` is set."""
        await self.supervisor.run()

    async def drain(self) -> bool:
        """Carry what is there now; True if nothing failed, and nothing waits or is still to be done."""
        return await self.supervisor.drain()

    def remainder(self) -> str:
        """What the last drain left, of each mailbox of which there is something, in one line; or nothing."""
        left = [(name, watcher.remainder) for name, watcher in sorted(self.fleet.watchers.items())]
        told = [f"{name} ({remainder})" for name, remainder in left if not remainder.nothing]
        more = len(told) - LISTED
        return "; ".join(told[:LISTED]) + (f"; and {more} more" if more > 0 else "")


@asynccontextmanager
async def assemble(
    config: Config,
    *,
    only: str | None = None,
    clock: Clock | None = None,
    bystander: Bystander | None = None,
    hung: Callable[[str], None] | None = None,
    load: Callable[[], Config] | None = None,
) -> AsyncIterator[App]:
    """Open the ledger and put every part together; close them all at the end.

    ``only``: the one mailbox to poll. ``bystander`` sees what becomes of messages. ``hung`` is called with the
    reason if the ledger no longer answers: nothing but the end of the process helps then; without it the service is
    told to stop. ``load`` reads the configuration anew, for a reload.

    Raises :class:`ConfigError` if the state directory cannot be used, and
    :class:`~mailpoller.core.errors.LedgerUnavailable` if the ledger cannot be opened.
    """
    clock = clock or SystemClock()
    service = config.service
    async with Notifier().starting():
        await opened(asyncio.to_thread(prepare_state, config), hung)
    runtime = prepare_runtime(config, clock, spool=False)
    stop = asyncio.Event()
    async with AsyncExitStack() as closing:
        async with Notifier().starting():
            ledger = await opened(config.ledger.open(clock), hung)
        closing.push_async_callback(ledger.close)
        closing.callback(prepare_spool(config))  # not before we hold the ledger: another instance may be using it
        alarm = Alarm(
            journal=ledger,
            outgoing=runtime.outgoings[config.alerts.outgoing or ""] if config.alerts else None,
            recipients=config.alerts.to if config.alerts else (),
            clock=clock,
            sender=config.alerts.sender if config.alerts else None,
            policy=Policy(reminder=config.alerts.reminder if config.alerts else None),
        )
        health = Health(clock)
        health.recall(await ledger.last_polls(), await ledger.first_runs())
        alerts = (config.alerts.outgoing or "") if config.alerts else ""
        pauses = Pauses(await ledger.pauses())
        kept = config.of(BLOBS)
        blobs = RecognisedBlobs(built(kept, partial(kept.build, runtime)), ledger, clock) if kept is not None else None
        if blobs is not None:
            closing.push_async_callback(blobs.close)
        prudent = PrudentClock(clock, ledger)
        await prudent.begin()
        ports = Ports(
            ledger,
            alarm,
            health,
            runtime,
            stop,
            alerts=alerts,
            bystander=bystander or Bystander(),
            pauses=pauses,
            blobs=blobs,
            prudent=prudent,
        )
        bounds = Bounds.of(service, len(config.queues))
        polled = sum(config.runs(name) for name in config.mailboxes) if only is None else 1
        if 0 < bounds.connections < min(polled, service.max_connections or polled):
            log.warning("connections.bounded", connections=bounds.connections, mailboxes=polled)
        block_of_store = quarantine_block(config)
        store = block_of_store.build(QUARANTINE, runtime)
        fleet = Fleet(ports, bounds, block_of_store, store)
        closing.push_async_callback(fleet.close)
        lacking = Lacking(fleet)
        for name, outgoing in config.outgoing.items():
            if outgoing.enabled:
                lacking.outgoing(name, outgoing)
        for name, sink in config.queues.items():
            lacking.queue(name, sink)
        rules = Rules(config, runtime)
        set_up_quarantine(config, fleet)
        limit_hosts(config, fleet)
        for name, block in config.mailboxes.items():
            if only is not None and name != only:
                continue
            if (reason := config.idle_reason(name)) is None:
                lacking.mailbox(name, partial(plan_of, config, name, fleet, rules), bare_plan(name, block))
                continue
            entry = health.register(name, block.poll_interval)
            entry.condition, entry.reason = Condition.NOT_POLLED, reason
            say = log.info if not block.enabled else log.error
            say("mailbox.not_polled", mailbox=name, reason=reason)
        for name in set(await ledger.mailboxes()) - set(config.mailboxes) - _former_names(config):
            log.warning("mailbox.removed", mailbox=name, advice=f"mailpoller forget {name}")

        def refused(held: Quarantined, reason: str) -> None:
            alarm.fault(held.mailbox, "notice.refused", reason, held.mid)
            alarm.tell(Kind.NOTICE_REFUSED, held.mailbox, reason)

        notices = Notices(
            store,
            fleet.told_of,
            clock,
            refused=refused,
            taken=lambda mailbox: alarm.tell_end(Kind.NOTICE_REFUSED, mailbox),
            standing=fleet.standing_of,
            workers=fleet.shares.workers,
        )

        async def bring_over(ended: asyncio.Event) -> None:
            while not ended.is_set():
                try:
                    await take_over(store.path, store, ledger, runtime.spool)
                    return
                except TransientError as error:
                    log.warning("quarantine.not_taken_over", reason=str(error))
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), TAKE_OVER_AGAIN.total_seconds())

        forecast = Forecast(fleet.expiring, alarm, clock)

        def marks_of(mailbox: str) -> Watermarks | None:
            own = fleet.parts[mailbox].plan.block.watermarks if mailbox in fleet.parts else None
            return usual_marks if own is None else own.over(usual_marks)

        def outbox_marks() -> dict[str, Watermarks]:
            marked = {}
            for name, identity in outbox.postman.senders.identities.items():
                marks = usual_marks if identity.watermarks is None else identity.watermarks.over(usual_marks)
                if marks is not None:
                    marked[name] = marks
            return marked

        def addressees(kind: AnyKind, subject: str) -> Sequence[str]:
            if kind not in (Kind.MAILBOX_BACKLOG, Kind.QUEUE_BACKLOG, Kind.OUTBOX_BACKLOG):
                return ()
            marks = marks_of(subject) if kind is Kind.MAILBOX_BACKLOG else usual_marks
            if kind is Kind.OUTBOX_BACKLOG:
                marks = outbox_marks().get(subject)
            return marks.addressees if marks is not None else ()

        usual_marks = config.of(WATERMARKS)
        outbox = outbox_parts(config, fleet)
        alarm.addressees = addressees
        tide = Tide(
            health,
            fleet.watchers,
            lambda: list(fleet.queues.values()),
            ledger,
            alarm,
            clock,
            marks_of=marks_of,
            queue_marks=usual_marks,
            outbox_marks=outbox_marks,
        )
        overdue = Overdue(ledger, health, alarm, clock, fleet.watchers)
        reloader: Reloader | None = None
        if load is not None:
            reloader = Reloader(
                Reload(config, fleet, lacking, load, only=only, heed=outbox.heed),
                health,
                Notifier(),
                after=lambda now: note_configuration(now, ledger),
            )
        custody = Custody(store, ledger)
        releases = Releases(custody, store, ledger, fleet.way_of, fleet.queues, fleet.shares.workers)
        operations = Operations(
            ledger,
            health,
            fleet.queues,
            fleet.watchers,
            own=fleet.own,
            overdue=overdue,
            alarm=alarm,
            more=lambda: {
                **(reloader.report() if reloader else {}),
                **forecast.report(),
                "outbox": outbox.postman.hindered(),
                "hosts": fleet.shares.hosts.report(fleet.shares.connections.by_host()),
            },
            pauses=pauses,
            releases=releases,
            blobs=blobs,
        )
        told = {"outbox-accept": operations.noted("outbox-accept", outbox.handlers["outbox-accept"])}
        told |= {"reload": operations.noted("reload", reloader.handle)} if reloader else {}
        handlers = operations.handlers() | outbox.handlers | custody.handlers() | releases.handlers() | told
        control = ControlServer(service.control_socket, handlers, outbox.bodies)
        watching: dict[str, Service] = {}
        if (wanted := config.of(METRICS)) is not None:
            metrics = Metrics(
                health,
                lambda: [*fleet.queues.values(), *fleet.own.values()],
                fleet.watchers,
                ledger,
                clock,
                budget=fleet.shares.budget,
                memory=bounds.memory,
                connections=fleet.shares.connections,
                alarms=alarm.count,
                expiring=fleet.expiring,
                sizes=sizes_of(getattr(config.ledger, "path", None), service.state_directory),
            )
            report = partial(operations.status, {"counts": False})
            watching["metrics"] = partial(serve_metrics, wanted, metrics, report)
        if blobs is not None and kept is not None:
            watching["blobs"] = Sweeper(blobs, kept.keep, lambda: fleet.queues.values(), ledger, prudent).run
        supervisor = fleet.supervisor(
            notifier=Notifier(),
            grace=service.stop_grace,
            services={
                "alarm": lambda _: alarm.run(overdue.over),  # what the last look finds is to be sent, too
                "overdue": overdue.run,
                "control": control.serve,
                "outbox": lambda ended: outbox.postman.run(ended, stop),
                "acknowledgements": outbox.acknowledger.run,
                "outgoing events": outbox.events.run,
                "intakes": outbox.intakes.run,
                "lacking": lacking.run,
                "notices": notices.run,
                "takeover": bring_over,
                "watermarks": tide.run,
                "lifeline": Lifeline(ledger, clock, hung or (lambda _: stop.set())).run,
                "forecast": forecast.run,
                "prudent clock": prudent.run,
                "changes": lambda _: note_start(config, ledger),
                **watching,
                **({"reload": reloader.run} if reloader else {}),
            },
        )
        yield App(supervisor, ledger, health, fleet, stop, reloader)


def quarantine_block(config: Config) -> StoreConfig:
    """The quarantine: under the state directory, so that it needs nothing but the disk that the ledger is on too."""
    said = config.quarantine_store
    path = config.service.state_directory / QUARANTINE
    return StoreConfig(path=path, keep=said.keep, max_size=said.max_size)


def _former_names(config: Config) -> set[str]:
    return {block.formerly for block in config.mailboxes.values() if block.formerly}
