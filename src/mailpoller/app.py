"""The composition root: a checked configuration in, a supervisor out. The only file that knows every part."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from mailpoller import __version__
from mailpoller.config import Config
from mailpoller.config.fields import references_of
from mailpoller.config.model import QuarantineConfig
from mailpoller.config.registry import load_plugin
from mailpoller.core.component import Runtime, SinkConfig, SourceConfig
from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.errors import ConfigError, MailpollerError
from mailpoller.core.ports import Clock, Expiring, Ledger, Outgoing, Rule, Sink, Stage
from mailpoller.core.spool import Spool
from mailpoller.engine.agenda import Limits
from mailpoller.engine.alarm import Alarm, Kind, Policy
from mailpoller.engine.budget import Budget
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.connections import Connections
from mailpoller.engine.control import ControlServer
from mailpoller.engine.courier import Courier
from mailpoller.engine.dispatcher import LAST_RESORT, Dispatcher
from mailpoller.engine.forecast import Forecast
from mailpoller.engine.health import Condition, Health
from mailpoller.engine.judge import Judge
from mailpoller.engine.notify import Notifier
from mailpoller.engine.operations import Operations
from mailpoller.engine.pipeline import Pipeline
from mailpoller.engine.queues import CONCURRENT_CALLS, Queue
from mailpoller.engine.records import in_turn
from mailpoller.engine.supervisor import Supervisor
from mailpoller.engine.turns import WEIGHTS, Turns
from mailpoller.engine.watcher import Watcher
from mailpoller.mail.compose import test_mail
from mailpoller.transport.disk import make_directory

log = structlog.get_logger(__name__)

CONNECTING = 48
"""Mailboxes that connect and log in at the same time."""

JUDGING = 4
"""Batches that are parsed and judged at the same time: enough to keep the processor busy, few enough that nobody waits long."""

RECORDING = 8
"""Batches that the ledger is handed at the same time. It commits all that wait at once, so each of them waits for all."""

KEPT_ASIDE = 8
"""An eighth of the memory is for small batches alone, so that they do not wait for large ones on slow lines."""


@dataclass(slots=True)
class App:
    """A service that is put together and ready to run."""

    supervisor: Supervisor
    ledger: Ledger
    health: Health
    queues: dict[str, Queue]
    stop: asyncio.Event

    async def run(self) -> None:
        """Poll until :attr:`stop` is set."""
        await self.supervisor.run()

    async def drain(self) -> bool:
        """Carry what is there now; True if nothing failed and nothing was put off."""
        return await self.supervisor.drain()


@asynccontextmanager
async def assemble(config: Config, *, only: str | None = None, clock: Clock | None = None) -> AsyncIterator[App]:
    """Open the ledger and put every part together; close them all at the end.

    ``only``: the one mailbox to poll. Raises :class:`ConfigError` if a part cannot be built, and
    :class:`~mailpoller.core.errors.LedgerUnavailable` if the ledger cannot be opened.
    """
    clock = clock or SystemClock()
    service = config.service
    runtime = prepare_runtime(config, clock)
    weights = {name: WEIGHTS[block.priority] for name, block in config.mailboxes.items()}
    stop = asyncio.Event()
    async with AsyncExitStack() as closing:
        ledger = await config.ledger.open(clock)
        closing.push_async_callback(ledger.close)
        for outgoing in runtime.outgoings.values():
            closing.push_async_callback(outgoing.close)
        alarm = Alarm(
            ledger=ledger,
            outgoing=runtime.outgoings[config.alerts.outgoing] if config.alerts else None,
            recipients=config.alerts.to if config.alerts else (),
            clock=clock,
            sender=config.alerts.sender if config.alerts else None,
            policy=Policy(reminder=config.alerts.reminder if config.alerts else None),
        )
        watchers: dict[str, Watcher] = {}
        expiring: dict[str, Expiring] = {
            f"outgoing {name}": one for name, one in runtime.outgoings.items() if isinstance(one, Expiring)
        }

        def ready() -> None:
            for watcher in watchers.values():
                watcher.rouse()

        async def edge(queue: Queue, up: bool, reason: str) -> None:
            if up:
                await alarm.ended(Kind.QUEUE_FAILING, queue.name)
            else:
                alarm.fault(f"queue:{queue.name}", "queue.failed", reason, "")
                await alarm.raised(Kind.QUEUE_FAILING, queue.name, reason, group=f"queue {queue.name}")

        async def doubts(queue: Queue, doubt: str | None) -> None:
            if doubt is None:
                await alarm.ended(Kind.WAL_GROWING, queue.name)
            else:
                await alarm.raised(Kind.WAL_GROWING, queue.name, doubt, group=f"queue {queue.name}")

        def queue(name: str, block: SinkConfig) -> Queue:
            made = Queue(
                name,
                block.build(name, runtime),
                payload=block.payload,
                octets_wanted=block.octets_wanted,
                retry_interval=block.retry_interval,
                clock=clock,
                listener=edge,
                on_ready=ready,
                doubts=doubts,
                calls=Turns(CONCURRENT_CALLS, weights),
            )
            closing.push_async_callback(made.sink.close)
            return made

        queues = {name: queue(name, block) for name, block in config.queues.items()}
        last_resort = queue(LAST_RESORT, _last_resort(service.state_directory))
        quarantines = _Quarantines(config, queues, last_resort, queue)
        rules = {name: block.build(name, runtime) for name, block in config.rules.items()}

        health = Health(clock)
        budget = Budget(service.memory, weights=weights, aside=service.memory // KEPT_ASIDE)
        judging, recording = Turns(JUDGING, weights), Turns(RECORDING, weights)
        connecting = asyncio.Semaphore(CONNECTING)
        connections = Connections(
            clock, limit=service.max_connections, per_host=service.max_connections_per_host, weights=weights
        )
        limits = Limits(service.batch_messages, service.batch_size, service.max_strikes)
        for name, block in config.mailboxes.items():
            if only is not None and name != only:
                continue
            entry = health.register(name, block.poll_interval)
            if (reason := config.idle_reason(name)) is not None:
                entry.condition, entry.reason = Condition.NOT_POLLED, reason
                say = log.info if not block.enabled else log.error
                say("mailbox.not_polled", mailbox=name, reason=reason)
                continue
            source = block.build(name, runtime)
            if isinstance(source, Expiring):
                expiring[f"mailbox {name}"] = source
            watcher = Watcher(
                name,
                block,
                source,
                ledger=ledger,
                clock=clock,
                health=health,
                alarm=alarm,
                budget=service.poll_budget,
                stop=stop,
                connecting=connecting,
                connections=connections,
            )
            asked = [rules[rule] for rule in block.rules]
            reachable = _reachable(config, block)
            turned = in_turn(ledger, recording, name)
            dispatcher = Dispatcher(block, queues, quarantines.of(name), last_resort, clock)
            judge = Judge(
                name,
                pipeline=pipeline_of(config, name, rules),
                dispatcher=dispatcher,
                ledger=turned,
                clock=clock,
                turns=judging,
                max_strikes=limits.max_strikes,
                bodies_wanted=_bodies_wanted(config, asked, reachable),
                observer=watcher,
            )
            watcher.courier = Courier(
                name,
                block,
                judge=judge,
                dispatcher=dispatcher,
                ledger=turned,
                budget=Budget(service.memory_per_mailbox, budget, mailbox=name),
                clock=clock,
                limits=limits,
                stop=watcher.patience,
                reachable=reachable,
                observer=watcher,
            )
            watchers[name] = watcher
        for name in set(await ledger.mailboxes()) - set(config.mailboxes) - _former_names(config):
            log.warning("mailbox.removed", mailbox=name, advice=f"mailpoller forget {name}")

        control = ControlServer(service.control_socket, Operations(ledger, health, queues, watchers).handlers())
        every_queue = [*queues.values(), last_resort, *quarantines.own]
        supervisor = Supervisor(
            list(watchers.values()),
            every_queue,
            health=health,
            notifier=Notifier(),
            clock=clock,
            grace=service.stop_grace,
            stop=stop,
            services={"alarm": alarm.run, "control": control.serve, "forecast": Forecast(expiring, alarm, clock).run},
        )
        yield App(supervisor, ledger, health, queues, stop)


def prepare_runtime(config: Config, clock: Clock, *, spool: bool = True) -> Runtime:
    """State directory and spool made (unless told not to), outgoings built; nothing connected.

    Raises :class:`ConfigError` if the state directory cannot be used.
    """
    state = config.service.state_directory
    directory = Spool(state / "spool")
    try:
        if spool:
            make_directory(state, mode=0o750)
            directory.prepare()
    except OSError as error:
        raise ConfigError(
            f"the state directory {state} cannot be used: {error.strerror}; service.state_directory names another"
        ) from None
    bare = Runtime(clock=clock, spool=directory, state_directory=state)
    outgoings: dict[str, Outgoing] = {name: block.build(name, bare) for name, block in config.outgoing.items()}
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
    parts: dict[str, AsyncIterator[Stage]] = {}
    async with AsyncExitStack() as closing:
        for name, block in config.mailboxes.items():
            if name == only or (only is None and config.runs(name)):
                wanted = {
                    block.disposition,
                    block.on_quarantine or block.disposition,
                    block.on_discard or block.disposition,
                }
                parts[f"mailbox {name}"] = block.build(name, runtime).probe(list(wanted))
        if only is None:
            for name, sink_block in config.queues.items():
                sink = sink_block.build(name, runtime)
                closing.push_async_callback(sink.close)
                parts[f"queue {name}"] = _probe_sink(sink)
            for name, outgoing in runtime.outgoings.items():
                closing.push_async_callback(outgoing.close)
                parts[f"outgoing {name}"] = (
                    outgoing.probe() if send_to is None else _probe_and_send(outgoing, send_to, clock)
                )
        yield parts


async def _probe_and_send(outgoing: Outgoing, recipient: str, clock: Clock) -> AsyncIterator[Stage]:
    """The outgoing's own stages, and if all of them went well a test mail."""
    probing = outgoing.probe()
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
            "It lets us in and does not take this mail. Look at sender, which many allow only if it is the login's own; at "
            "null_sender: false, if it wants an envelope sender; and whether it may send to this address at all."
        )
    yield Stage("mail", not advice, timedelta(seconds=time.monotonic() - begun), detail, advice)


async def _probe_sink(sink: Sink) -> AsyncIterator[Stage]:
    """A queue's one stage: would it take a delivery now?"""
    begun = time.monotonic()
    try:
        await sink.check()
        trouble = ""
    except MailpollerError as error:
        trouble = str(error)
    advice = "look at the queue's path or address, its rights, and the room there is" if trouble else ""
    yield Stage(
        "check", not trouble, timedelta(seconds=time.monotonic() - begun), trouble or "takes deliveries", advice
    )


def _last_resort(state: Path) -> SinkConfig:
    """A Maildir under the state directory: needs nothing but the disk that the ledger is on too."""
    block = load_plugin("sinks", "maildir").model_validate({"type": "maildir", "path": state / QUARANTINE})
    assert isinstance(block, SinkConfig)
    return block


class _Quarantines:
    """Where each mailbox's quarantine goes; mailboxes with the same settings share one queue, and its back-off."""

    def __init__(
        self,
        config: Config,
        queues: Mapping[str, Queue],
        last_resort: Queue,
        make: Callable[[str, SinkConfig], Queue],
    ) -> None:
        self._config = config
        self._queues = queues
        self._last_resort = last_resort
        self._make = make
        # A list and not a mapping: blocks are compared by equality alone. A third party's need not be hashable, and a ``repr``
        # masks the secrets that two of them may differ by.
        self._made: list[tuple[SinkConfig, Queue]] = []

    @property
    def own(self) -> list[Queue]:
        """Those that are not somebody else's queue."""
        return [queue for _, queue in self._made]

    def of(self, mailbox: str) -> Queue:
        """The queue that holds this mailbox's quarantined messages."""
        block = self._config.quarantine_of(mailbox)
        if block is None:
            return self._last_resort
        if isinstance(block, QuarantineConfig):
            return self._queues[block.queue]
        for made, queue in self._made:
            if made == block:
                return queue
        queue = self._make(QUARANTINE if not self._made else f"{QUARANTINE} of {mailbox}", block)
        self._made.append((block, queue))
        return queue


def pipeline_of(config: Config, mailbox: str, rules: Mapping[str, Rule] | None = None) -> Pipeline:
    """What judges the messages of a mailbox. ``rules``: those that are built already, by name."""
    block = config.mailboxes[mailbox]
    if rules is None:
        bare = Runtime(SystemClock(), Spool(Path()), config.service.state_directory)
        rules = {name: config.rules[name].build(name, bare) for name in block.rules}
    return Pipeline(
        mailbox=mailbox,
        default_queue=block.default_queue,
        default_topic=block.default_topic,
        force_default_queue=block.force_default_queue,
        auto_replies=block.auto_replies,
        oversize=block.oversize,
        marker=config.service.quarantine_marker,
        rules=[rules[name] for name in block.rules],
    )


def _reachable(config: Config, block: SourceConfig) -> frozenset[str]:
    """The queues that the default and the rules can send this mailbox's mail to, read off the blocks' own references."""
    names = {block.default_queue} if block.default_queue else set()
    if not block.force_default_queue:
        for rule in block.rules:
            names.update(name for _, section, name in references_of(config.rules[rule]) if section == "queues")
    return frozenset(names)


def _bodies_wanted(config: Config, rules: list[Rule], reachable: frozenset[str]) -> bool:
    """True if a rule or a queue looks below the header, so that large bodies are worth parsing in a thread."""
    return any(getattr(rule, "needs_body", True) for rule in rules) or any(
        config.queues[name].payload == "parsed" for name in reachable
    )


def _former_names(config: Config) -> set[str]:
    return {block.formerly for block in config.mailboxes.values() if block.formerly}
