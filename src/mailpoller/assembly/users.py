"""Who needs a queue or an outgoing, so that it cannot go."""

from __future__ import annotations

from collections.abc import Mapping

from mailpoller.assembly.parts import MailboxPlan
from mailpoller.config.fields import references_of
from mailpoller.core.component import SinkConfig


def brings_to(plan: MailboxPlan, queue: str) -> bool:
    """True if the mailbox's mail can go to the queue."""
    return plan.reachable is None or queue in plan.reachable or plan.notices == queue


def sending_by(blocks: Mapping[str, SinkConfig], outgoing: str) -> list[str]:
    """The queues that send by it, of these."""
    return [
        name
        for name, block in blocks.items()
        if any(section == "outgoing" and found == outgoing for _, section, found in references_of(block))
    ]
