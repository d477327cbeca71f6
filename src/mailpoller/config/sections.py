"""The top-level keys of a configuration: one row each, read by whatever reads, merges, checks, shows or describes one.

A new section is one row here. ``Config.of`` gives what was made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

from mailpoller.config.hosts import HOST_PATTERN, HostConfig
from mailpoller.config.model import (
    AlertsConfig,
    ConversationsConfig,
    IntakeConfig,
    MetricsConfig,
    OutboxConfig,
    Quarantine,
    QuarantineConfig,
    QuarantineStoreConfig,
    RuleSet,
    ServiceConfig,
)
from mailpoller.config.tests_of_rules import RuleTest
from mailpoller.core.component import BlobsConfig, Block, LedgerConfig, OutgoingConfig, SinkConfig, Watermarks
from mailpoller.core.intake_config import IntakeSettings
from mailpoller.core.rule_config import RuleConfig
from mailpoller.core.source_config import SourceConfig

T = TypeVar("T")

Shape = Literal["block", "named", "listed", "keys", "files"]
"""``block``: one. ``named``: many, below their names. ``listed``: a list of many, each with its ``name``. ``keys``:
for other blocks. ``files``: names of files."""

NAME_PATTERN = r"[A-Za-z0-9_-]{1,40}"
"""What most blocks are named by."""

OnReload = Literal["restart", "parts", "mailboxes"]
"""``restart``: what changed comes into force when the service is started anew, and a reload says so. ``parts``: each
block is a part that is added, replaced or removed. ``mailboxes``: what mailboxes are made with; those that it concerns
are replaced."""


INSIDE = "notice"
"""The key of the block that stands inside of another one."""


@dataclass(frozen=True, eq=False, slots=True)
class Section(Generic[T]):
    """A top-level key; ``T`` is what is made of it."""

    key: str
    shape: Shape
    summary: str
    """What it says, as the documentation and an editor tell it."""
    without: str
    """What holds if it is left out, in words."""
    noun: str = ""
    """What one of many is called."""
    kind: str = ""
    """The kind of plug-in that a block's ``type`` names. Empty: every block is of ``model``."""
    model: type[Block] | None = None
    """The class of a block; beside a ``kind``: one more type that a block may have."""
    around: type[Block] | None = None
    """The class of a block that may stand around it, which has it below :data:`INSIDE`. What it says is told apart."""
    place: str = ""
    """Where and how it is written, for the reference."""
    drop_in: bool = False
    """A drop-in file may have it."""
    lockable: bool = False
    """A drop-in cannot set in it what ``defaults.locked`` names."""
    named_as: str = NAME_PATTERN
    """The regular expression that a name of it is."""
    name_words: str = "a name is letters, digits, - and _, at most 40"
    """The same for people."""
    titled: bool = False
    """The names are sentences, which nothing refers to."""
    usual_type: str = ""
    """The type of a block that says none."""
    left_out: Callable[[Mapping[str, Any]], Mapping[str, str]] | None = None
    """What it is made of if it is left out, given what was made of the sections before it; None: it is not made."""
    on_reload: OnReload = "restart"
    """What becomes of a change while the service runs."""

    @property
    def many(self) -> bool:
        """True if its blocks have names."""
        return self.shape in ("named", "listed")

    @property
    def own_types(self) -> tuple[str, ...]:
        """The types of ``model``, beside those of ``kind``."""
        return get_args(self.model.model_fields["type"].annotation) if self.kind and self.model else ()


def _beside_the_state(made: Mapping[str, Any]) -> Mapping[str, str]:
    service = made[SERVICE.key] or ServiceConfig()
    return {"type": "sqlite", "path": str(service.state_directory / "ledger.db")}


SERVICE: Section[ServiceConfig] = Section(
    "service",
    "block",
    summary="environment, directories, bounds, logging",
    without="all defaults",
    model=ServiceConfig,
    left_out=lambda _: {},
)
LEDGER: Section[LedgerConfig] = Section(
    "ledger",
    "block",
    summary="where the record of everything is kept",
    without="SQLite, `ledger.db` in `service.state_directory`",
    kind="ledgers",
    left_out=_beside_the_state,
    place="One block, `ledger:`. If it is left out, it is `type: sqlite` with `ledger.db` in "
    "`service.state_directory`.",
)
QUEUES: Section[Mapping[str, SinkConfig]] = Section(
    "queues",
    "named",
    summary="destinations, by name",
    without="nothing can be delivered, so no mailbox can be polled",
    noun="queue",
    kind="sinks",
    drop_in=True,
    place="Named blocks below `queues:`. Each type may stand as `quarantine:`, too.",
    on_reload="parts",
)
BLOBS: Section[BlobsConfig | None] = Section(
    "blobs",
    "block",
    summary="where the octets of large messages lie, for events that refer to them",
    without="octets go with the event, whatever their size",
    kind="blobs",
    place="One block, `blobs:`. A queue uses it from the size on that its `blobs_above` says.",
)
OUTGOING: Section[Mapping[str, OutgoingConfig]] = Section(
    "outgoing",
    "named",
    summary="identities that mail is sent from, by name",
    without="no mail is sent",
    noun="outgoing",
    kind="outgoings",
    drop_in=True,
    lockable=True,
    place="Named blocks below `outgoing:`.",
    on_reload="parts",
)
QUARANTINE: Section[Quarantine | None] = Section(
    "quarantine",
    "block",
    summary="how messages are held that could not, or must not, be processed, and who is told of them",
    without="they are held for 90 days, and nobody is told",
    kind="sinks",
    model=QuarantineConfig,
    around=QuarantineStoreConfig,
    place="One block, `quarantine:`. Its key `notice` is a block of any type that a queue may have, or of the type "
    "`queue`:\nit gets a copy of every message. Such a block may also stand as `quarantine:` itself, and that is how "
    "a\nmailbox has one of its own.",
    on_reload="mailboxes",
)
ALERTS: Section[AlertsConfig | None] = Section(
    "alerts",
    "block",
    summary="who is told by mail when something goes wrong",
    without="nobody; logs and `mailpoller status` only",
    model=AlertsConfig,
    on_reload="parts",
)
WATERMARKS: Section[Watermarks | None] = Section(
    "watermarks",
    "block",
    summary="how much may wait, and how long, before somebody is told",
    without="nobody is told of that",
    model=Watermarks,
)
METRICS: Section[MetricsConfig | None] = Section(
    "metrics",
    "block",
    summary="figures and health over HTTP, for monitoring on this machine",
    without="none; `mailpoller health` needs none",
    model=MetricsConfig,
    place="One block, `metrics:`.",
)
HOSTS: Section[Mapping[str, HostConfig]] = Section(
    "hosts",
    "named",
    summary="what a host is asked for at most, by all of its mailboxes together",
    without="what is known of large providers; elsewhere no limit but `service.max_connections_per_host`",
    noun="host",
    model=HostConfig,
    named_as=HOST_PATTERN,
    name_words="a host is written in small letters, as in `host` of its mailboxes",
    place="Named blocks below `hosts:`; the name is the host, as its mailboxes have it.",
    on_reload="parts",
)
OUTBOX: Section[OutboxConfig] = Section(
    "outbox",
    "block",
    summary="bounds of the mail that is handed in to be sent",
    without="all defaults",
    model=OutboxConfig,
    left_out=lambda _: {},
)
INTAKES: Section[Mapping[str, IntakeSettings]] = Section(
    "intakes",
    "named",
    summary="ways in for mail that is to be sent, by name",
    without="nothing can be handed in",
    noun="intake",
    kind="intakes",
    model=IntakeConfig,
    on_reload="parts",
    place="Named blocks below `intakes:`.",
)
RULES: Section[Mapping[str, RuleConfig]] = Section(
    "rules",
    "listed",
    summary="what judges messages; a list",
    without="everything goes to the mailbox's `default_queue`",
    noun="rule",
    kind="rules",
    drop_in=True,
    usual_type="match",
    place="A list below `rules:`. Without a `type` a rule is of the type `match`.",
    on_reload="mailboxes",
)
RULE_SETS: Section[Mapping[str, RuleSet]] = Section(
    "rule_sets",
    "named",
    summary="rules that mailboxes share, by name",
    without="each mailbox names its rules itself",
    noun="rule set",
    model=RuleSet,
    drop_in=True,
    place="Named blocks below `rule_sets:`. A mailbox asks for them with its key `rule_sets`.",
    on_reload="mailboxes",
)
CONVERSATIONS: Section[ConversationsConfig | None] = Section(
    "conversations",
    "block",
    summary="how messages are known to belong to a conversation",
    without="`conversation` is `null` in events",
    model=ConversationsConfig,
    place="One block, `conversations:`.",
    on_reload="mailboxes",
)
DEFAULTS: Section[None] = Section(
    "defaults",
    "keys",
    summary="keys for all mailboxes",
    without="",
    place="One block, `defaults:`, of keys that every mailbox has unless it, or the mailbox that it extends, says "
    "otherwise. "
    "Keys that a\nmailbox's type does not have are passed over for it.",
)
MAILBOXES: Section[Mapping[str, SourceConfig]] = Section(
    "mailboxes",
    "named",
    summary="what is polled, by name",
    without="nothing is polled, which is a warning",
    noun="mailbox",
    kind="sources",
    drop_in=True,
    lockable=True,
    place="Named blocks below `mailboxes:`. Every key but `extends`, `formerly` and `default_for` "
    "may stand below `defaults:`.",
    on_reload="parts",
)
TESTS: Section[Mapping[str, RuleTest]] = Section(
    "tests",
    "listed",
    summary="mails, and what the rules are to make of them; a list, for `mailpoller test`",
    without="only files called `*.test.yaml` hold tests",
    noun="test",
    model=RuleTest,
    drop_in=True,
    titled=True,
    on_reload="mailboxes",
    place="A list below `tests:`, or in a file `*.test.yaml` beside the configuration, which the service never reads. "
    "See\n[rules](rules.md#tests-of-rules).",
)
INCLUDE: Section[None] = Section(
    "include",
    "files",
    summary="drop-in files",
    without="none",
    place="A pattern, or a list of patterns, relative to the directory of the file: `conf.d/*.yaml`.",
)

TABLE: tuple[Section[Any], ...] = (
    SERVICE,
    LEDGER,
    QUEUES,
    BLOBS,
    OUTGOING,
    QUARANTINE,
    ALERTS,
    WATERMARKS,
    METRICS,
    HOSTS,
    OUTBOX,
    INTAKES,
    RULES,
    RULE_SETS,
    CONVERSATIONS,
    DEFAULTS,
    MAILBOXES,
    TESTS,
    INCLUDE,
)
"""All of them, in the order in which they are made and shown."""


def allowed(*, drop_in: bool = False) -> tuple[str, ...]:
    """The keys of the main file, or of a drop-in."""
    return tuple(section.key for section in TABLE if section.drop_in or not drop_in)


def noun_of(key: str) -> str:
    """What one block of a section is called."""
    return next((section.noun for section in TABLE if section.key == key and section.noun), key)
