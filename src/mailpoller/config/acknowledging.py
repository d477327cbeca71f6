"""What the acknowledgements of mailboxes need beyond what their own blocks tell."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mailpoller.config.checked import Config
from mailpoller.config.problems import Problem
from mailpoller.config.wording import locate
from mailpoller.core.acknowledge_config import AcknowledgeConfig
from mailpoller.core.source_config import SourceConfig


def acknowledging(config: Config) -> Iterator[Problem]:
    """An acknowledgement goes to whoever the envelope names, by the mailbox's outgoing, with the null sender or one
    that nobody reads here: else what answers it begins a loop."""
    polled = {
        address.casefold(): name
        for name, block in config.mailboxes.items()
        if block.enabled and name not in config.incomplete
        for address in block.own_addresses()
    }
    for name, block in config.mailboxes.items():
        if block.acknowledge is None or name in config.incomplete:
            continue
        if (found := _lacking(config, block, block.acknowledge)) is not None:
            message, key = found
        elif (other := polled.get((block.acknowledge.sender or "").casefold())) is not None:
            message, key = f"the mailbox {other} is polled under this address: answers to it would come back", "sender"
        elif (at := _unasked(block.acknowledge, config.rules.keys() - set(config.rules_of(name)))) is not None:
            message, key = "this mailbox does not ask that rule", at
        else:
            continue
        node, rest = locate(config.places["mailboxes", name], ("acknowledge", key) if key else ("acknowledge",))
        yield node.problem(message, key=rest)


def _unasked(acknowledge: AcknowledgeConfig, unasked: Collection[str]) -> str | None:
    """The key that names a rule which no mail of the mailbox can match."""
    if any(one.rule in unasked for one in acknowledge.by_rule):
        return "by_rule"
    return "unless_rules" if any(rule in unasked for rule in acknowledge.unless_rules) else None


def _lacking(config: Config, block: SourceConfig, acknowledge: AcknowledgeConfig) -> tuple[str, str] | None:
    """What it lacks, and at which key of it."""
    if not block.own_addresses():
        return "which mail is written to this mailbox cannot be told: it needs its address", ""
    outgoing = config.outgoing.get(block.outgoing or "")
    if outgoing is None:
        return "this mailbox has no outgoing that could send it", ""
    if outgoing.sends_null():
        return None
    if acknowledge.sender is None:
        return f"the outgoing {block.outgoing} cannot send with the null sender: name an address that is not polled", (
            "sender"
        )
    own = str(getattr(outgoing, "sender", ""))
    if not outgoing.has_envelope and acknowledge.sender.casefold() != own.casefold():
        return f"all mail of the outgoing {block.outgoing} is {own}'s, and answers go there", "sender"
    return None
