"""How a configuration wants each mailbox to be put together: its plan, and what judges its mail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from mailpoller.assembly.fleet import Fleet
from mailpoller.assembly.parts import MailboxPlan, Scope
from mailpoller.assembly.standins import built
from mailpoller.config import Config
from mailpoller.config.difference import written_out
from mailpoller.config.fields import references_of
from mailpoller.config.model import RELOADED_KEYS, QuarantineConfig
from mailpoller.config.sections import CONVERSATIONS, HOSTS, QUARANTINE, RULES, TABLE
from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.host_limit import HostLimit
from mailpoller.core.ports import Rule
from mailpoller.core.rule_config import RuleConfig
from mailpoller.core.source_config import SourceConfig, spared
from mailpoller.core.spool import Spool
from mailpoller.engine.brake import Brake
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.pipeline import Pipeline
from mailpoller.mail.understand.arrival import Arrival

_FOR_ALL = [one for one in TABLE if one.on_reload == "mailboxes" and one.shape == "block" and one is not QUARANTINE]
"""What every mailbox is made with."""


def plan_of(config: Config, mailbox: str, fleet: Fleet, rules: Mapping[str, Rule]) -> MailboxPlan:
    """How the configuration wants a mailbox to be polled. The queue for its notices is made in the fleet if nobody has
    an equal one. Raises :class:`~mailpoller.core.errors.ConfigError` if something is wrong with it."""
    block = config.require(mailbox)
    reachable = config.reachable(mailbox)
    return MailboxPlan(
        mailbox,
        block,
        pipeline_of(config, mailbox, rules, brake=brake_of(block)),
        notices=notices_of(config, mailbox, fleet),
        reachable=reachable,
        bodies_wanted=block.removal() is not None
        or _bodies_wanted(config, [rules[rule] for rule in config.rules_of(mailbox)], reachable),
        scope=_scope(config),
    )


def notices_of(config: Config, mailbox: str, fleet: Fleet) -> str:
    """The queue that is told of a mailbox's quarantined mail, made in the fleet if nobody has an equal one; empty:
    nobody is told. Raises :class:`~mailpoller.core.errors.ConfigError` if it cannot be built."""
    block = config.quarantine_of(mailbox)
    if block is None:
        return ""
    return block.queue if isinstance(block, QuarantineConfig) else fleet.notices(mailbox, block)


def recipe_of(config: Config, mailbox: str) -> object:
    """All that a plan is made of: two configurations for which it is equal want the mailbox polled alike."""
    block = config.mailboxes[mailbox]
    reachable = config.reachable(mailbox)
    return (
        written_out(block),
        config.quarantine_of(mailbox),
        config.rules_of(mailbox),
        concerned(config, config.rules_of(mailbox)),
        [config.made.get(one.key) for one in _FOR_ALL],
        reachable,
        any(config.queues[name].payload == "parsed" for name in reachable),
        [getattr(config.service, key) for key in sorted(RELOADED_KEYS)],
    )


def concerned(config: Config, rules: Iterable[str]) -> dict[str, RuleConfig]:
    """These rules, and those that they ask for, and so on."""
    found: dict[str, RuleConfig] = {}
    ahead = list(rules)
    while ahead:
        if (name := ahead.pop()) not in found:
            found[name] = config.rules[name]
            ahead += [other for _, section, other in references_of(found[name]) if section == RULES.key]
    return found


def awaited(config: Config) -> frozenset[str]:
    """The mailboxes whose notices are for nobody else than they say themselves, or would say if they were not wrong."""
    own = {name for name, block in config.overrides.items() if block != config.quarantine}
    return frozenset(own | config.wrong.keys())


def limit_hosts(config: Config, fleet: Fleet) -> None:
    """Let hosts be asked for no more than the configuration says, from now on."""
    fleet.shares.hosts.set(host_limits(config))
    fleet.shares.connections.balance()


def host_limits(config: Config) -> dict[str, HostLimit]:
    """What each host is asked for at most: what is written, over what is known of it."""
    everywhere = config.service.max_connections_per_host
    polled = [one for one in config.mailboxes.values() if one.enabled]  # others may lack their host
    known = dict(usual for one in polled if (usual := one.usual_limit()) is not None)
    found = {host: replace(limit, connections=limit.connections or everywhere) for host, limit in known.items()}
    for host, written in (config.of(HOSTS) or {}).items():
        found[host] = written.over(found.get(host, HostLimit(connections=everywhere)))
    accounts = [one.polled_account() for one in polled]
    for place in {account.host for account in accounts if account is not None} - found.keys():
        # An unusual port makes it another server as far as mail is concerned, and no other host.
        if (limit := found.get(place.rpartition(":")[0])) is not None:
            found[place] = limit
    return found


def set_up_quarantine(config: Config, fleet: Fleet) -> None:
    """Give the quarantine its bounds, and those a place for notices whose mailbox is not here."""
    fleet.awaited = awaited(config)
    try:
        fleet.usual_notices = notices_of(config, "", fleet)
    except ConfigError:
        fleet.usual_notices = None  # the mailboxes that have it say so
    if fleet.store is not None:
        fleet.store.limit(config.quarantine_store.keep, config.quarantine_store.max_size)


def bare_plan(mailbox: str, block: SourceConfig) -> MailboxPlan:
    """Of a mailbox that is not polled yet: nothing is judged by it."""
    return MailboxPlan(
        mailbox,
        block,
        Pipeline(mailbox=mailbox, default_queue=None, rules=[]),
        notices=None,
        reachable=frozenset(),
        bodies_wanted=False,
    )


class Rules(Mapping[str, Rule]):
    """The rules by name, each built when a mailbox first asks for it: one that cannot be built holds up no other
    mailbox. Raises :class:`ConfigError`."""

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self._blocks = config.rules
        self._runtime = replace(runtime, rules=self)
        self._built: dict[str, Rule] = {}

    def __getitem__(self, name: str) -> Rule:
        if name not in self._built:
            block = self._blocks[name]
            self._built[name] = built(block, lambda: block.build(name, self._runtime))
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)


def brake_of(block: SourceConfig) -> Brake | None:
    """The mailbox's brake; None if it has none."""
    if (written := block.brake) is None:
        return None
    senders, files = spared(written.except_)
    return Brake(written.mails, written.window, spared=senders, files=files)


def pipeline_of(
    config: Config, mailbox: str, rules: Mapping[str, Rule] | None = None, brake: Brake | None = None
) -> Pipeline:
    """What judges the messages of a mailbox. ``rules``: those that are built already, by name. ``brake``: only where
    mail comes in; what is judged for a trial counts nowhere."""
    block = config.mailboxes[mailbox]
    if rules is None:
        bare = Runtime(SystemClock(), Spool(Path()), config.service.state_directory)
        rules = Rules(config, bare)
    conversations = config.of(CONVERSATIONS)
    return Pipeline(
        mailbox=mailbox,
        default_queue=block.default_queue,
        default_topic=block.default_topic,
        standing=block.standing(),
        policies=block.policies(),
        conversations=conversations.finder() if conversations is not None else None,
        arrival=arrival_of(block),
        removal=block.removal(),
        oversize=block.oversize,
        marker=config.service.quarantine_marker,
        max_hops=block.max_hops,
        brake=brake,
        rules=[rules[name] for name in config.rules_of(mailbox)],
    )


def arrival_of(block: SourceConfig) -> Arrival:
    """What tells how mail came to a mailbox."""
    return Arrival(block.own_addresses(), declared=block.address is not None, trust=block.trust())


def _scope(config: Config) -> Scope:
    """Among whose mail the conversations of answers are looked for."""
    conversations = config.of(CONVERSATIONS)
    return "mailbox" if conversations is None else conversations.scope


def _bodies_wanted(config: Config, rules: list[Rule], reachable: frozenset[str]) -> bool:
    """True if a rule or a queue looks below the header, so that large bodies are worth parsing in a thread."""
    conversations = config.of(CONVERSATIONS)
    return (
        (conversations is not None and "body" in conversations.look_in)
        or any(getattr(rule, "needs_body", True) for rule in rules)
        or any(config.queues[name].payload == "parsed" for name in reachable)
    )
