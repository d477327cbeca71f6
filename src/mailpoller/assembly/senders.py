"""Who may send as whom, read off the configuration."""

from __future__ import annotations

from collections import defaultdict

from mailpoller.config import Config
from mailpoller.config.model import IntakeConfig
from mailpoller.config.sections import INTAKES, OUTBOX
from mailpoller.core.intake_config import IntakeSettings
from mailpoller.core.own_address import reply_charset
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.acknowledger import Acknowledged
from mailpoller.engine.senders import Alias, Answering, Identity, Intake, Senders
from mailpoller.mail.compose import ascii_address


def senders_of(config: Config) -> Senders:
    """Identities, mailboxes that can be answered from (also those that are not polled), departments and intakes."""
    mailboxes = {
        name: Answering(
            block.outgoing or "",
            tuple(block.departments),
            block.reply_charset(),
            block.outbound(),
            _by_address(block),
        )
        for name, block in config.mailboxes.items()
        if name not in config.incomplete
    }
    holding: defaultdict[str, set[str]] = defaultdict(set)
    serving: defaultdict[str, set[str]] = defaultdict(set)
    served_by: defaultdict[str, list[str]] = defaultdict(list)
    for name, one in mailboxes.items():
        if not one.identity and name in config.wrong:
            continue  # whom its answers are from cannot be told
        for identity in one.identities:
            holding[identity].update(one.departments)
        for department in one.departments:
            serving[department].add(one.identity)
            served_by[department].append(name)
    defaults = {department: next(iter(found)) for department, found in serving.items() if len(found) == 1}
    default_mailboxes = {department: found[0] for department, found in served_by.items() if len(found) == 1}
    for name in mailboxes:
        block = config.mailboxes[name]
        defaults |= dict.fromkeys(block.default_for, block.outgoing or "")
        default_mailboxes |= dict.fromkeys(block.default_for, name)
    for name in list(mailboxes):
        if former := config.mailboxes[name].formerly:
            # Until its folders are opened the ledger has its messages by that name; without polling for good.
            mailboxes.setdefault(former, mailboxes[name])
    return Senders(
        {name: _identity(config, name, frozenset(holding[name])) for name in config.outgoing},
        mailboxes,
        defaults,
        {name: _intake(name, block) for name, block in config.of(INTAKES).items()},
        default_mailboxes,
    )


def _by_address(block: SourceConfig) -> dict[str, Alias]:
    return {
        address: Alias(
            one.outgoing or block.outgoing or "",
            block.reply_charset() if one.charset is None else reply_charset(one.charset),
        )
        for address, one in block.answered_by_address().items()
    }


def _intake(name: str, block: IntakeSettings) -> Intake:
    by_socket = isinstance(block, IntakeConfig)
    users = frozenset(block.users) if isinstance(block, IntakeConfig) else frozenset()
    return Intake(name, tuple(block.departments), users, block.events or "", by_socket)


def _identity(config: Config, name: str, departments: frozenset[str]) -> Identity:
    block = config.outgoing[name]
    return Identity(
        name,
        block.author(),
        held=config.holds_back(name),
        divert_to=block.divert_to or "",
        rate=block.rate,
        lanes=getattr(block, "connections", 2),
        max_size=getattr(block, "max_size", 50_000_000),
        departments=departments,
        formerly=block.formerly or "",
        null_sender=block.sends_null(),
        watermarks=block.watermarks,
        verp=block.verp or "",
    )


def acknowledged_of(config: Config) -> Acknowledged:
    """Which mailboxes acknowledge, and whom nobody tells anything: ourselves."""
    polled = {name: block for name, block in config.mailboxes.items() if name not in config.incomplete}
    own = {address for block in polled.values() for address in block.own_addresses()}
    for block in config.outgoing.values():
        own |= {block.author().address, block.author().reply_to, str(getattr(block, "sender", ""))}
    own |= {block.acknowledge.sender or "" for block in polled.values() if block.acknowledge is not None}
    return Acknowledged(
        {
            name: block.acknowledge
            for name, block in polled.items()
            if block.acknowledge is not None and block.enabled and block.mode == "live"
        },
        frozenset(ascii_address(address).casefold() for address in own if address),
        config.of(OUTBOX).max_acknowledgements_per_hour,
    )
