"""The outbox, put together: what takes entries, and what sends them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from mailpoller.assembly.fleet import Fleet
from mailpoller.assembly.senders import acknowledged_of, senders_of
from mailpoller.assembly.standins import LateIntake, LateListener, built
from mailpoller.config import Config
from mailpoller.config.sections import CONVERSATIONS, INTAKES, OUTBOX
from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.intake_config import IntakeSettings
from mailpoller.core.ports import BlobReader, Clock, EntryListener, EntrySource, Outbox
from mailpoller.core.record import record
from mailpoller.engine.acceptance import Acceptance, Mint, OutboxBounds, Returns
from mailpoller.engine.acknowledger import Acknowledger
from mailpoller.engine.alarm import Alarm
from mailpoller.engine.control import Handler
from mailpoller.engine.intake_reader import IntakeReader
from mailpoller.engine.originals import Originals
from mailpoller.engine.outbox_operations import OutboxOperations
from mailpoller.engine.outbox_room import OutboxRoom
from mailpoller.engine.outgoing_events import OutgoingEvents
from mailpoller.engine.postman import Postman
from mailpoller.engine.provenance import Provenance
from mailpoller.mail.understand.conversation import mint
from mailpoller.mail.verp import return_address
from mailpoller.storage.machine import machine
from mailpoller.storage.octet_files import OctetFiles


@record
class OutboxParts:
    """What takes entries and what sends them. Nothing of it runs yet."""

    acceptance: Acceptance
    postman: Postman
    acknowledger: Acknowledger
    events: OutgoingEvents
    intakes: IntakeReader
    runtime: Runtime
    blocks: dict[str, IntakeSettings]
    """What ``intakes`` was made of."""
    handlers: dict[str, Handler]
    bodies: dict[str, int]
    """Verb -> octets of an entry at most."""

    def heed(self, config: Config) -> None:
        """Let another configuration hold for who may send as whom."""
        senders = senders_of(config)
        self.acceptance.senders = self.postman.senders = senders
        self.events.senders = self.acknowledger.senders = senders
        self.acceptance.returns = returns_of(config)
        self.acceptance.mint = self.acknowledger.mint = mint_of(config)
        self.acknowledger.heeded = acknowledged_of(config)
        self.postman.insist()
        now = config.of(INTAKES) or {}
        kept = {name: source for name, source in self.intakes.sources.items() if now.get(name) == self.blocks.get(name)}
        self.intakes.sources = _sources(now, self.runtime) | kept
        self.blocks.clear()
        self.blocks.update(now)


def mint_of(config: Config) -> Mint:
    """Makes tokens with the first key of the configuration; none without one."""
    block = config.of(CONVERSATIONS)
    if block is None or not block.keys:
        return lambda _: ""
    key = block.keys[0]
    return lambda conversation: mint(conversation, key.id, key.secret.reveal().encode("utf-8"))


def returns_of(config: Config) -> Returns:
    """Signs envelope senders with the first key of the configuration; without one they are the addresses alone."""
    block = config.of(CONVERSATIONS)
    if block is None or not block.keys:
        return lambda address, _: address
    key = block.keys[0]
    return lambda address, id: return_address(address, id, key.id, key.secret.reveal().encode("utf-8"))


def _sources(blocks: Mapping[str, IntakeSettings], runtime: Runtime) -> dict[str, EntrySource | EntryListener]:
    """Those that are looked into or listen themselves, by the names of their intakes. Opens nothing."""
    made = {name: intake_source(block, name, runtime) for name, block in blocks.items()}
    return {name: source for name, source in made.items() if source is not None}


def intake_source(block: IntakeSettings, name: str, runtime: Runtime) -> EntrySource | EntryListener | None:
    """Where the entries of this intake are looked for or brought to, now or once it has what it lacks; None if that is
    the control socket."""
    make = partial(block.build, name, runtime)
    try:
        return built(block, make)
    except ConfigError:
        if block.listens:
            return LateListener(block, cast(Callable[[], EntryListener | None], make))
        return LateIntake(block, cast(Callable[[], EntrySource | None], make))


def provenance_of(config: Config, ledger: Outbox, clock: Clock, alarm: Alarm | None = None) -> Provenance:
    """Of the outbox in this ledger."""
    elsewhere = config.of(OUTBOX).witness
    state = config.service.state_directory
    return Provenance(ledger, state, clock, machine=machine(), elsewhere=elsewhere, alarm=alarm)


def outbox_parts(config: Config, fleet: Fleet) -> OutboxParts:
    """For the outgoings of a fleet."""
    block, ports, senders, room = config.of(OUTBOX), fleet.ports, senders_of(config), OutboxRoom()
    ledger, clock = ports.ledger, ports.runtime.clock
    files = OctetFiles(ports.runtime.state_directory / "outbox")
    provenance = provenance_of(config, ledger, clock, ports.alarm)
    postman = Postman(
        ledger,
        files,
        fleet.outgoings,
        senders,
        ports.alarm,
        clock,
        room,
        keep=block.keep,
        provenance=provenance,
        prudent=ports.prudent,
    )
    bounds = OutboxBounds(block.max_size, block.max_recipients, block.give_up)
    originals = Originals(ledger, ports.blobs if isinstance(ports.blobs, BlobReader) else None)
    acceptance = Acceptance(
        ledger, files, senders, clock, bounds, room, postman.wake, mint_of(config), originals, returns_of(config)
    )
    acknowledger = Acknowledger(
        ledger,
        files,
        senders,
        acknowledged_of(config),
        ports.alarm,
        clock,
        room,
        postman.wake,
        max_size=block.max_size,
        mint=mint_of(config),
    )
    events = OutgoingEvents(ledger, fleet.queues.get, senders, ports.alarm)
    configured = config.of(INTAKES)
    blocks = dict(configured or {})
    intakes = IntakeReader(acceptance, _sources(blocks, ports.runtime), ports.alarm, largest=block.max_mail)
    handlers = OutboxOperations(ledger, provenance, acceptance, postman).handlers()
    return OutboxParts(
        acceptance, postman, acknowledger, events, intakes, ports.runtime, blocks, handlers, {"send": block.max_mail}
    )
