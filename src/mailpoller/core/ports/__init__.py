"""The ports: what the engine asks of sources, sinks, rules, ledgers and outgoing mail, and nothing more."""

from mailpoller.core.ports.clock import Clock
from mailpoller.core.ports.ledger import (
    Backlog,
    Bearers,
    Claims,
    Folders,
    Journal,
    Ledger,
    Mailboxes,
    QueueMarks,
    Stories,
)
from mailpoller.core.ports.outgoing import Answer, Inquiring, Mail, Outgoing
from mailpoller.core.ports.probing import Expiring, Probed, Stage
from mailpoller.core.ports.records import (
    AlarmEdge,
    Census,
    Fault,
    FolderState,
    FormerOutcome,
    Heirless,
    QueueRecord,
    Sight,
    Story,
    Stuck,
    Traits,
)
from mailpoller.core.ports.rule import Rule
from mailpoller.core.ports.sink import Consumed, DoubtKind, Mark, Marked, Recalling, Sink, SinkDoubt, Unserving, Upkept
from mailpoller.core.ports.source import Progressing, Session, Source, Start, Wake

__all__ = [
    "AlarmEdge",
    "Answer",
    "Backlog",
    "Bearers",
    "Census",
    "Claims",
    "Clock",
    "Consumed",
    "DoubtKind",
    "Expiring",
    "Fault",
    "FolderState",
    "Folders",
    "FormerOutcome",
    "Heirless",
    "Inquiring",
    "Journal",
    "Ledger",
    "Mail",
    "Mailboxes",
    "Mark",
    "Marked",
    "Outgoing",
    "Probed",
    "Progressing",
    "QueueMarks",
    "QueueRecord",
    "Recalling",
    "Rule",
    "Session",
    "Sight",
    "Sink",
    "SinkDoubt",
    "Source",
    "Stage",
    "Start",
    "Stories",
    "Story",
    "Stuck",
    "Traits",
    "Unserving",
    "Upkept",
    "Wake",
]
