"""The composition root: a checked configuration in, a supervisor out. The only file that knows every part."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog

from mailpoller import __version__
from mailpoller.assembly.fleet import Fleet
from mailpoller.assembly.lacking import Lacking
from mailpoller.assembly.noting import note_configuration, note_start
from mailpoller.assembly.outbox import outbox_parts
from mailpoller.assembly.parts import NOTICES, Bystander, Ports
from mailpoller.assembly.plans import Rules, bare_plan, limit_hosts, plan_of, set_up_quarantine
from mailpoller.assembly.reload import Reload
from mailpoller.assembly.reloader import Reloader
from mailpoller.assembly.shares import Bounds
from mailpoller.assembly.standins import AbsentSink, AbsentSource, built, outgoing_of
from mailpoller.config import Config
from mailpoller.config.model import QuarantineConfig
from mailpoller.config.sections import BLOBS, METRICS, WATERMARKS
from mailpoller.core.component import BlobsConfig, Runtime, SinkConfig, Watermarks
from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.errors import ConfigError, LedgerLocked, LedgerUnavailable, MailpollerError, TransientError
from mailpoller.core.ports import (
    Clock,
    Durable,
    Inquiring,
    Ledger,
    Marked,
    Outgoing,
    Probed,
    QueueRecord,
    Sink,
    Source,
    Stage,
)
from mailpoller.core.quarantined import Quarantined
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.spool import Spool
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
from mailpoller.engine.recognition import vanished
from mailpoller.engine.release import Releases
from mailpoller.engine.supervisor import Service, Supervisor
from mailpoller.engine.watermarks import Tide
from mailpoller.mail.compose import test_mail
from mailpoller.monitoring.pages import serve as serve_metrics
from mailpoller.monitoring.pages import sizes_of
from mailpoller.quarantine import StoreConfig
from mailpoller.quarantine.takeover import take_over
from mailpoller.storage.disk import make_directory

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
        blobs = built(kept, partial(kept.build, runtime)) if kept is not None else None
        if blobs is not None:
            closing.push_async_callback(blobs.close)
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

        def addressees(kind: AnyKind, subject: str) -> Sequence[str]:
            if kind not in (Kind.MAILBOX_BACKLOG, Kind.QUEUE_BACKLOG):
                return ()
            marks = marks_of(subject) if kind is Kind.MAILBOX_BACKLOG else usual_marks
            return marks.addressees if marks is not None else ()

        usual_marks = config.of(WATERMARKS)
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
        )
        overdue = Overdue(ledger, health, alarm, clock, fleet.watchers)
        outbox = outbox_parts(config, fleet)
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
        )
        told = {"reload": operations.noted("reload", reloader.handle)} if reloader else {}
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
            watching["blobs"] = Sweeper(blobs, kept.keep, lambda: fleet.queues.values(), ledger, clock).run
        supervisor = fleet.supervisor(
            notifier=Notifier(),
            grace=service.stop_grace,
            services={
                "alarm": lambda _: alarm.run(overdue.over),  # what the last look finds is to be sent, too
                "overdue": overdue.run,
                "control": control.serve,
                "outbox": lambda ended: outbox.postman.run(ended, stop),
                "acknowledgements": outbox.acknowledger.run,
                "lacking": lacking.run,
                "notices": notices.run,
                "takeover": bring_over,
                "watermarks": tide.run,
                "lifeline": Lifeline(ledger, clock, hung or (lambda _: stop.set())).run,
                "forecast": forecast.run,
                "changes": lambda _: note_start(config, ledger),
                **watching,
                **({"reload": reloader.run} if reloader else {}),
            },
        )
        yield App(supervisor, ledger, health, fleet, stop, reloader)


def prepare_state(config: Config) -> None:
    """Make the state directory if it is missing. Raises :class:`ConfigError` if that cannot be."""
    try:
        make_directory(config.service.state_directory, mode=0o750)
    except OSError as error:
        raise _unusable(config.service.state_directory, error) from None


def prepare_spool(config: Config) -> Callable[[], None]:
    """Make the spool and empty it of what a killed process left; what gives it back at the end.

    Raises :class:`ConfigError` if it cannot be used, and :class:`LedgerLocked` if another process uses it: one with
    another ledger, and the same state directory.
    """
    state = config.service.state_directory
    spool = Spool(state / "spool")
    try:
        spool.hold()
        spool.prepare()
    except BlockingIOError:
        spool.close()
        raise LedgerLocked(
            f"{spool.directory}: in use by another process, which has another ledger: give each its own "
            f"service.state_directory"
        ) from None
    except OSError as error:
        spool.close()
        raise _unusable(state, error) from None
    return spool.close


def _unusable(state: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the state directory {state} cannot be used: {error.strerror}; service.state_directory names another"
    )


def prepare_runtime(config: Config, clock: Clock, *, spool: bool = True) -> Runtime:
    """State directory and spool made (unless told not to: both are whose the ledger is), outgoings built; nothing
    connected.

    Raises :class:`ConfigError` if the state directory cannot be used.
    """
    state = config.service.state_directory
    directory = Spool(state / "spool")
    try:
        if spool:
            make_directory(state, mode=0o750)
            directory.prepare()
    except OSError as error:
        raise _unusable(state, error) from None
    bare = Runtime(clock=clock, spool=directory, state_directory=state)
    outgoings = {name: outgoing_of(name, block, bare) for name, block in config.outgoing.items() if block.enabled}
    return Runtime(clock=clock, spool=directory, state_directory=state, outgoings=outgoings)


@asynccontextmanager
async def parts_to_probe(
    config: Config, only: str | None = None, *, send_to: str | None = None
) -> AsyncIterator[dict[str, AsyncIterator[Stage]]]:
    """Every part that can be probed, by name: mailboxes that are polled here, queues, outgoings; ``only`` one mailbox.

    ``send_to``: every outgoing whose probe passes sends a test mail to this address, as its last stage.
    """
    clock = SystemClock()
    runtime = prepare_runtime(config, clock, spool=False)
    known = _known_queues(config)
    parts: dict[str, AsyncIterator[Stage]] = {}
    async with AsyncExitStack() as closing:
        for name, block in config.mailboxes.items():
            if name == only or (only is None and config.runs(name)):
                wanted = {
                    block.disposition,
                    block.on_quarantine or block.disposition,
                    block.on_discard or block.disposition,
                }
                parts[f"mailbox {name}"] = _source(config.require(name), name, runtime).probe(list(wanted))
        if only is None:
            for name, sink_block in config.queues.items():
                sink = _sink(sink_block, name, runtime)
                closing.push_async_callback(sink.close)
                parts[f"queue {name}"] = _probe_sink(sink, known.get(name))
            if (kept := config.of(BLOBS)) is not None:
                parts["blobs"] = _probe_blobs(kept, runtime)
            for title, own in _own_notices(config).items():
                sink = _sink(own, title, runtime)
                closing.push_async_callback(sink.close)
                parts[title] = _probe_sink(sink, None)
            for name, outgoing in runtime.outgoings.items():
                closing.push_async_callback(outgoing.close)
                alerts = config.alerts.to if config.alerts and config.alerts.outgoing == name else ()
                # Who else writes through it are queues, and those are asked themselves.
                probing = outgoing.inquire(alerts) if alerts and isinstance(outgoing, Inquiring) else outgoing.probe()
                parts[f"outgoing {name}"] = (
                    probing if send_to is None else _probe_and_send(outgoing, probing, send_to, clock)
                )
        yield parts


def _source(block: SourceConfig, name: str, runtime: Runtime) -> Source:
    try:
        return built(block, lambda: block.build(name, runtime))
    except ConfigError as error:
        return AbsentSource(str(error))


def _sink(block: SinkConfig, name: str, runtime: Runtime) -> Sink:
    try:
        return built(block, lambda: block.build(name, runtime))
    except ConfigError as error:
        return AbsentSink(str(error))


def _own_notices(config: Config) -> dict[str, SinkConfig]:
    """Where notices of quarantined mail go, of the mailboxes that are polled here, unless that is somebody else's
    queue; by name, alike ones once."""
    found: dict[str, SinkConfig] = {}
    for mailbox in filter(config.runs, config.mailboxes):
        block = config.quarantine_of(mailbox)
        if block is None or isinstance(block, QuarantineConfig) or block in found.values():
            continue
        found[NOTICES if not found else f"{NOTICES} of {mailbox}"] = block
    return found


async def _probe_and_send(
    outgoing: Outgoing, probing: AsyncIterator[Stage], recipient: str, clock: Clock
) -> AsyncIterator[Stage]:
    """The outgoing's own stages, and if all of them went well a test mail."""
    try:
        async for stage in probing:
            yield stage
            if not stage.ok:
                return
    finally:
        if (close := getattr(probing, "aclose", None)) is not None:
            await close()
    footer = f"mailpoller {__version__} on {socket.gethostname()}"
    mail = test_mail(sender=outgoing.sender, recipients=[recipient], footer=footer, at=clock.now())
    begun = time.monotonic()
    advice = ""
    try:
        detail = await outgoing.send(mail)
    except MailpollerError as error:
        detail = str(error)
        advice = (
            "It lets us in and does not take this mail. Look at sender, which many allow only if it is the login's "
            "own; at null_sender: false, if it wants an envelope sender; and whether it may send to this address at "
            "all."
        )
    yield Stage("mail", not advice, timedelta(seconds=time.monotonic() - begun), detail, advice)


def _known_queues(config: Config) -> dict[str, QueueRecord]:
    """What the ledger knows of the queues; nothing if there is no ledger yet, or none that can be read beside its
    daemon."""
    opened = getattr(config.ledger, "reader", None)
    if opened is None:
        return {}
    try:
        with opened() as reader:
            found = [reader.queue_mark(name) for name in config.queues]
    except LedgerUnavailable:
        return {}
    return {record.name: record for record in found if record is not None}


async def _probe_sink(sink: Sink, known: QueueRecord | None) -> AsyncIterator[Stage]:
    """Would it take a delivery now, and is it the queue that the ledger knows? One stage, unless the sink has more to
    say."""
    if isinstance(sink, Probed):
        async for stage in sink.probe():
            yield stage
        return
    begun = time.monotonic()
    trouble = advice = ""
    try:
        trouble = vanished(known, await sink.mark(), sink.place()) if isinstance(sink, Marked) else ""
        if not trouble:
            await sink.check()
    except MailpollerError as error:
        trouble = str(error)
        advice = getattr(error, "advice", "")
        advice = advice or "look at the queue's path or address, its rights, and the room there is"
    detail = trouble or "takes deliveries"
    if not trouble and isinstance(sink, Durable) and (found := sink.durability) is not None:
        detail += f"; {found.finding}: {found.setting}"
    yield Stage("check", not trouble, timedelta(seconds=time.monotonic() - begun), detail, advice)


async def _probe_blobs(block: BlobsConfig, runtime: Runtime) -> AsyncIterator[Stage]:
    """Could octets be held now?"""
    begun = time.monotonic()
    trouble = ""
    try:
        store = built(block, partial(block.build, runtime))
        try:
            await store.check()
        finally:
            await store.close()
    except MailpollerError as error:
        trouble = str(error)
    advice = "look at the store's path or address, its rights, and the room there is"
    yield Stage("check", not trouble, timedelta(seconds=time.monotonic() - begun), trouble or "takes octets", advice)


def quarantine_block(config: Config) -> StoreConfig:
    """The quarantine: under the state directory, so that it needs nothing but the disk that the ledger is on too."""
    said = config.quarantine_store
    path = config.service.state_directory / QUARANTINE
    return StoreConfig(path=path, keep=said.keep, max_size=said.max_size)


def _former_names(config: Config) -> set[str]:
    return {block.formerly for block in config.mailboxes.values() if block.formerly}
