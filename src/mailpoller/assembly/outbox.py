"""The outbox, put together: what takes entries, and what sends them."""

from __future__ import annotations

from mailpoller.assembly.fleet import Fleet
from mailpoller.assembly.senders import acknowledged_of, senders_of
from mailpoller.config import Config
from mailpoller.config.sections import CONVERSATIONS, OUTBOX
from mailpoller.core.record import record
from mailpoller.engine.acceptance import Acceptance, Mint, OutboxBounds, OutboxRoom
from mailpoller.engine.acknowledger import Acknowledger
from mailpoller.engine.control import Handler
from mailpoller.engine.outbox_operations import OutboxOperations
from mailpoller.engine.outgoing_events import OutgoingEvents
from mailpoller.engine.postman import Postman
from mailpoller.mail.understand.conversation import mint
from mailpoller.storage.octet_files import OctetFiles


@record
class OutboxParts:
    """What takes entries and what sends them. Nothing of it runs yet."""

    acceptance: Acceptance
    postman: Postman
    acknowledger: Acknowledger
    events: OutgoingEvents
    handlers: dict[str, Handler]
    bodies: dict[str, int]
    """Verb -> octets of an entry at most."""

    def heed(self, config: Config) -> None:
        """Let another configuration hold for who may send as whom."""
        senders = senders_of(config)
        self.acceptance.senders = self.postman.senders = senders
        self.events.senders = self.acknowledger.senders = senders
        self.acceptance.mint = self.acknowledger.mint = mint_of(config)
        self.acknowledger.heeded = acknowledged_of(config)
        self.postman.insist()


def mint_of(config: Config) -> Mint:
    """Makes tokens with the first key of the configuration; none without one."""
    block = config.of(CONVERSATIONS)
    if block is None or not block.keys:
        return lambda _: ""
    key = block.keys[0]
    return lambda conversation: mint(conversation, key.id, key.secret.reveal().encode("utf-8"))


def outbox_parts(config: Config, fleet: Fleet) -> OutboxParts:
    """For the outgoings of a fleet."""
    block, ports, senders, room = config.of(OUTBOX), fleet.ports, senders_of(config), OutboxRoom()
    ledger, clock = ports.ledger, ports.runtime.clock
    files = OctetFiles(ports.runtime.state_directory / "outbox")
    postman = Postman(ledger, files, fleet.outgoings, senders, ports.alarm, clock, room, keep=block.keep)
    bounds = OutboxBounds(block.max_size, block.max_recipients, block.give_up)
    acceptance = Acceptance(ledger, files, senders, clock, bounds, room, postman.wake, mint_of(config))
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
    handlers = OutboxOperations(ledger, acceptance, postman).handlers()
    return OutboxParts(acceptance, postman, acknowledger, events, handlers, {"send": block.max_mail})
