"""What a plug-in is: a config class that is the YAML block, the reference page and the factory at once.

A plug-in is one file and one entry point line. The entry point's group is ``mailpoller.`` and the kind (``sources``,
``sinks``, ``rules``, ``ledgers``, ``outgoings``), its name is the block's ``type``, its object the config class.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from mailpoller.core.authentication import EXCHANGE_ONLINE, Trust
from mailpoller.core.classification import MailClass
from mailpoller.core.delivery import LEAVE, Disposition, Payload
from mailpoller.core.extras import Extra
from mailpoller.core.literals import (
    DispositionLiteral,
    Duration,
    FilePath,
    MailAddress,
    MailAddresses,
    OutgoingName,
    QueueName,
    RuleName,
    RuleSetName,
    Size,
)
from mailpoller.core.message import Account
from mailpoller.core.policy import POLICIES, Policy, PolicyWord
from mailpoller.core.ports import Clock, Ledger, Outgoing, Rule, Sink, Source
from mailpoller.core.prose import attribute_docstrings
from mailpoller.core.record import record
from mailpoller.core.reply_charset import PRESETS, Euro, Preset, Replies, ReplyCharset, WrittenCharset
from mailpoller.core.sender import Sender
from mailpoller.core.spool import Spool
from mailpoller.core.standing import ROOT, Department, Standing

NO_OUTGOING = "this key is required unless there is one outgoing alone, or one that says default: true"
"""What is said of a block that is to send, and nobody knows by what."""

KINDS = ("sources", "sinks", "rules", "ledgers", "outgoings")


@record
class Runtime:
    """What a plug-in may use of the process it is built into."""

    clock: Clock
    spool: Spool
    state_directory: Path
    """Ours alone, mode 0700: spool, last-resort quarantine, tokens."""
    outgoings: Mapping[str, Outgoing] = field(default_factory=dict)
    """Those that are configured, by name; sinks that send mail look theirs up here."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """Those that are configured, by name, each built when it is first asked for; rules that name one find it here.
    Raises :class:`~mailpoller.core.errors.ConfigError` for one that cannot be built."""


class Block(BaseModel):
    """A block of the YAML file. Unknown keys are errors; its docstrings are the reference; it never shows its input."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        strict=False,
        defer_build=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema, in which each key is described by the docstring of its attribute."""
        made = handler(schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for name, text in attribute_docstrings(cls).items():
            if name in cls.model_fields:
                properties[cls.model_fields[name].alias or name].setdefault("description", text)
        return made

    def extras(self) -> Iterable[Extra]:
        """The optional packages that this block needs as it is written, beside those of the blocks inside of it. A
        part that lacks one waits for it, and ``check`` names it."""
        return ()


@record
class Finding:
    """What a block has to say of how it is written.

    ``key``: the key that it is about, one inside another as ``auth.type``. ``text``: what is wrong, and what to do; no
    value from the file. ``error``: the process does not start; ``warning``: it does, and it is told.
    """

    key: str
    text: str
    severity: Literal["error", "warning"] = "warning"


class Component(Block):
    """A block with a ``type``, made into a working part by ``build``."""

    kind: ClassVar[str]
    type: str

    @classmethod
    def lacking(cls, written: Mapping[str, Any]) -> Mapping[str, str]:
        """What :class:`~mailpoller.core.errors.KeysMissing` would say of what is written, so that it is told beside
        the keys that every block of this class needs. ``written`` is not checked yet: it may be wrong in any way."""
        return {}

    def findings(self) -> Iterable[Finding]:
        """What is allowed in this block, as it is written, and yet probably wrong. Looks at its keys alone: at no
        network, no disk and no other block. Whoever overrules it passes on its parent's.

        Not asked of a block that lacks what it needs. One that is disabled is asked like all others."""
        return ()


class SinkConfig(Component):
    """A queue: where messages go."""

    kind: ClassVar[str] = "sinks"

    payload: Payload = "parsed"
    """What the event holds: ``summary`` (headers and metadata), ``parsed`` (summary, text, HTML, attachment digests) or
    ``raw`` (summary and the octets)."""
    raw: bool = False
    """Add the octets to any payload level."""
    retry_interval: Duration = timedelta(seconds=10)
    """How long to wait after a failure before the queue is tried again; grows to thirty times this while it keeps
    failing."""
    formerly: str | None = None
    """The queue's earlier name: what was brought there, or is on its way there, counts for this one."""

    def fed_folder(self) -> tuple[Account, str] | None:
        """The folder of a mailbox that it puts mail into: its account and its key, as a source has them
        (:meth:`SourceConfig.polled_account`, :meth:`SourceConfig.folder_key`). None if it does not, or the keys do not
        tell. So that nobody polls what is put there."""
        return None

    @property
    def octets_wanted(self) -> bool:
        """True if the queue is to hold the raw octets."""
        return self.raw or self.payload == "raw"

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink of the queue ``name``. Opens nothing; raises :class:`ConfigError` if it cannot ever work."""
        raise NotImplementedError


class RuleConfig(Component):
    """A rule: what judges a message."""

    kind: ClassVar[str] = "rules"
    type: str = "match"
    name: str
    """The rule's name, by which mailboxes ask for it."""

    # What ``check`` asks, to tell of rules that can have no effect. Who cannot tell leaves them as they are.
    @property
    def ends_judging(self) -> bool:
        """True if no rule is asked after it wherever it matches."""
        return False

    @property
    def asks_forced(self) -> bool | None:
        """True if it is asked in a mailbox with ``force_default_queue``; None: that cannot be told yet."""
        return None

    @property
    def makes_fields(self) -> Collection[str]:
        """The fields of the event that it may set."""
        return ()

    def covers(self, other: RuleConfig) -> bool:
        """True if it matches wherever ``other`` does; False if that is not known."""
        return False

    def unmet(self, mailboxes: Sequence[SourceConfig], fields: Collection[str]) -> str:
        """Why it matches in none of these mailboxes, in words; "" if nothing says so. ``fields``: those that rules
        before it may set."""
        return ""

    def build(self, name: str, runtime: Runtime) -> Rule:
        """The rule. Raises :class:`ConfigError` if it cannot ever work."""
        raise NotImplementedError


class LedgerConfig(Component):
    """The ledger: the durable record of claims, receipts and outcomes."""

    kind: ClassVar[str] = "ledgers"

    async def open(self, clock: Clock) -> Ledger:
        """Lock and open the ledger, migrating it if it is older.

        Raises :class:`~mailpoller.core.errors.LedgerUnavailable` naming the holder if another process has it.
        """
        raise NotImplementedError


def _one_line(written: str) -> str:
    if not written.isprintable():
        raise ValueError("must be on one line")
    return written


class Signature(Block):
    """What is put below a reply."""

    text: Annotated[str, StringConstraints(max_length=10_000)] = ""
    """Below ``-- `` in the text."""
    html: Annotated[str, StringConstraints(max_length=100_000)] = ""
    """At the end of the HTML, as it is."""


class OutgoingConfig(Component):
    """An outgoing identity: how mail is sent."""

    kind: ClassVar[str] = "outgoings"

    enabled: bool = True
    """false keeps the definition and sends nothing. Such an outgoing may lack what it needs, and be extended by
    others."""
    extends: str | None = None
    """Copy the settings of another outgoing; what is said here overrules them."""
    default: bool = False
    """Mail leaves by this one wherever no outgoing is named, if there are several."""
    formerly: str | None = None
    """The outgoing's earlier name: what waits to be sent by it is sent by this one."""
    environment: str | None = None
    """Send what people and programs hand in only where the service runs in this environment. An outgoing without one
    sends it only in ``production``. Quarantine and alerts are sent in any."""
    from_: MailAddress | None = Field(default=None, alias="from")
    """Whom replies are from, in the header and in the envelope; the same as ``sender`` if it is not given."""
    display_name: Annotated[str, AfterValidator(_one_line), StringConstraints(max_length=200)] = ""
    """The name beside that address."""
    reply_to: MailAddress | None = None
    """Where answers to replies are to go, if not to that address."""
    signature: Signature | None = None
    """What is put below replies that are made from text or HTML."""
    divert_to: MailAddress | None = None
    """Everybody's replies go to this address instead: for tests."""
    rate: int | None = Field(default=None, ge=1, le=100_000)
    """Replies a minute at most."""

    def author(self) -> Sender:
        """Whom replies are from."""
        signature = self.signature or Signature()
        address = self.from_ or str(getattr(self, "sender", ""))
        return Sender(address, self.display_name, self.reply_to or "", signature.text, signature.html)

    def build(self, name: str, runtime: Runtime) -> Outgoing:
        """The outgoing. Opens nothing."""
        raise NotImplementedError


MailboxPriority = Literal["high", "medium", "low"]

StartLiteral = Annotated[
    str,
    BeforeValidator(lambda value: _check_start(value)),
    WithJsonSchema({"type": "string", "pattern": r"^(now|unseen|all|since:\d{4}-\d{2}-\d{2})$"}),
]


def _check_start(value: object) -> str:
    text = value if isinstance(value, str) else ""
    if text in ("now", "unseen", "all"):
        return text
    try:
        date.fromisoformat(text.removeprefix("since:") if text.startswith("since:") else "")
    except ValueError:
        raise ValueError("start is now, unseen, all or since:YYYY-MM-DD") from None
    return text


class SenderFile(Block):
    """A file that lists senders, one a line; ``#`` begins a comment. It is read anew when it has changed."""

    file: FilePath
    """At most 4 MiB."""


class Excepted(Block):
    """Whom a policy leaves alone."""

    senders: list[Annotated[str, StringConstraints(min_length=1, max_length=320)] | SenderFile] = Field(min_length=1)
    """Addresses as they stand in From, domains, or files with such: ``shop@example.com``, ``example.com`` with all
    below it, ``{file: /etc/mailpoller/partners}``."""

    @field_validator("senders")
    @classmethod
    def _plain(cls, senders: list[str | SenderFile]) -> list[str | SenderFile]:
        for sender in senders:
            if isinstance(sender, str) and not re.fullmatch(r"[^\s@<>,;]*@?[^\s@<>,;.]+(\.[^\s@<>,;.]+)*", sender):
                raise ValueError("a sender is an address, or a domain such as example.com")
        return senders


class ClassPolicy(Block):
    """What becomes of a class of mail: ``action`` or ``queue``, one of them."""

    action: PolicyWord | None = None
    """``deliver``, ``quarantine`` or ``discard``."""
    queue: QueueName | None = None
    """The queue that all mail of the class goes to, in place of those that rules name."""
    except_: Excepted | None = Field(default=None, alias="except")
    """Whom it does not hold for: their mail goes where it would go without a policy."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.action is None) == (self.queue is None):
            raise ValueError("a policy is an action (deliver, quarantine, discard) or a queue")
        return self


class BrakeConfig(Block):
    """How many mails of one sender are no flood."""

    mails: int = Field(ge=2, le=10_000)
    """So many, received within ``window``, are delivered; what comes beyond is quarantined until there are fewer."""
    window: Duration = timedelta(minutes=10)
    """Counted by when the server received them. At most a day."""
    except_: Excepted | None = Field(default=None, alias="except")
    """Who may send any number."""

    @field_validator("window")
    @classmethod
    def _bounded(cls, window: timedelta) -> timedelta:
        if not timedelta(seconds=1) <= window <= timedelta(days=1):
            raise ValueError("a window is 1s to 1d")
        return window


def spared(excepted: Excepted | None) -> tuple[frozenset[str], tuple[Path, ...]]:
    """Senders in small letters, and files that list more of them."""
    written = excepted.senders if excepted is not None else ()
    senders = frozenset(one.lower().lstrip("@") for one in written if isinstance(one, str))
    return senders, tuple(one.file for one in written if isinstance(one, SenderFile))


def _policy(written: PolicyWord | ClassPolicy) -> Policy:
    if not isinstance(written, ClassPolicy):
        return Policy(written)
    senders, files = spared(written.except_)
    return Policy(written.action, written.queue or "", senders, files)


class AuthenticationConfig(Block):
    """Whose word is taken on who a message is from."""

    trusted: (
        Annotated[list[Annotated[str, StringConstraints(pattern=r'^[^\s;="()]{1,255}$')]], Field(max_length=100)]
        | Literal["topmost_without_id"]
    )
    """The authserv-ids (RFC 8601) of the servers whose ``Authentication-Results`` are believed, such as
    ``mx.example.com``: what stands there before the semicolon. They must be servers that remove such fields of
    strangers. ``topmost_without_id``: Microsoft 365, which writes none. An empty list: nobody's."""

    def trust(self) -> Trust:
        """The same as the readers of mail have it."""
        if isinstance(self.trusted, str):
            return EXCHANGE_ONLINE
        return Trust(frozenset(one.lower() for one in self.trusted))


class Charset(Block):
    """In what charset answers are written; what it does not hold is written in a larger one, in the end in UTF-8."""

    default: WrittenCharset = "utf-8"
    """The charset of this mailbox's customers."""
    replies: Replies = "choose"
    """``choose``: the first that holds the answer of US-ASCII, the charset of the message that is answered, and
    ``default``. ``incoming`` and ``default``: that one, if it holds it."""
    euro: Euro = "ignore"
    """Where the charset lacks that sign and nothing else: ISO-8859-15, UTF-8, the text EUR, or what holds for any other
    character."""


class Watermarks(Block):
    """How much may wait, and how long, before somebody is told."""

    high: int | None = Field(default=None, ge=1)
    """So many messages that wait are an alarm: on the server of a mailbox, or in a queue that can tell how many it
    holds."""
    low: int | None = Field(default=None, ge=0)
    """The alarm is over when no more than so many wait. Half of ``high``, if it is left out."""
    max_age: Duration | None = None
    """A message that has waited for longer is an alarm, too: by the server's date, or since it is in the queue."""
    alert_to: MailAddress | MailAddresses | None = None
    """Who is told by mail, in place of those of ``alerts``, by whose outgoing it is sent."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must be less than high")
        return self

    @property
    def addressees(self) -> tuple[str, ...]:
        """Those of ``alert_to``."""
        return (self.alert_to,) if isinstance(self.alert_to, str) else tuple(self.alert_to or ())

    @property
    def floor(self) -> int:
        """The number at which the alarm is over."""
        high = self.high or 0
        return high // 2 if self.low is None else min(self.low, max(0, high - 1))

    def over(self, base: Watermarks | None) -> Watermarks:
        """These, and what they do not say from ``base``."""
        said = {key: getattr(self, key) for key in self.model_fields_set}
        return self if base is None else base.model_copy(update=said)


class SourceConfig(Component):
    """A mailbox: one configured account with one or more folders."""

    kind: ClassVar[str] = "sources"

    enabled: bool = True
    """false keeps the definition and does not poll. Such a mailbox may lack what it needs, and be extended by
    others."""
    environment: str | None = None
    """Poll only where the service runs in this environment. A mailbox without one is polled only in ``production``."""
    extends: str | None = None
    """Copy the settings of another mailbox; what is said here overrules them."""
    formerly: str | None = None
    """The mailbox's earlier name: its ledger rows are taken over."""
    address: str | list[str] | None = None
    """The mailbox's own mail addresses, as they stand in To and Cc: the principal one first, then its aliases."""
    authentication: AuthenticationConfig | None = None
    """Whose ``Authentication-Results`` (SPF, DKIM, DMARC) are believed: ``{trusted: [mx.example.com]}``. Left out it is
    the server of Gmail or Microsoft 365 where the mailbox is there, and nobody's elsewhere."""
    trusted: bool = False
    """true: what comes to this mailbox is trusted. The event and rules are told; mailpoller treats it as any other."""
    departments: list[Department] = Field(default=[ROOT], min_length=1, max_length=100)
    """The departments that it serves, for the event and for rules. ``root`` is one like any other, and none is all."""
    charset: Preset | Charset | None = None
    """In what answers from this mailbox are written. A preset: ISO-8859-1, ISO-2022-JP, GB2312 or BIG5, with ``replies:
    choose`` and ``euro: EUR``. Without it: UTF-8."""
    default_for: list[Department] = Field(default=[], max_length=100)
    """Those of its departments whose default mailbox it is: the others of such a department have its ``outgoing``."""
    outgoing: OutgoingName | None = None
    """The outgoing that this mailbox's own quarantine sends by if it names none. Without it: that of the default
    mailbox of its department, else the only one there is, or the one that says ``default: true``."""

    default_queue: QueueName | None = None
    """Where a message goes for which no rule names a queue."""
    default_topic: str = ""
    """The topic of a message for which no rule sets one."""
    force_default_queue: bool = False
    """Everything goes to ``default_queue``, and only rules that ask for ``force_default_queue`` are asked: they may
    quarantine and discard. Size limit, quarantine marker, loop check and the policies of the classes still apply."""
    rule_sets: list[RuleSetName] = Field(default_factory=list)
    """Sets of rules that judge this mailbox's messages before its own ``rules``, in this order."""
    rules: list[RuleName] = Field(default_factory=list)
    """The rules that judge this mailbox's messages, in this order. One that a set has named already is not asked
    again."""
    auto_replies: PolicyWord | ClassPolicy = "quarantine"
    """What becomes of automatic answers: of the classes ``auto-reply`` (a bare null Return-Path among them) and
    ``challenge``. ``deliver``, ``quarantine``, ``discard``, ``{queue: NAME}``, or a block with ``except``."""
    bounces: PolicyWord | ClassPolicy = "quarantine"
    """The same for the class ``bounce``."""
    auto_generated: PolicyWord | ClassPolicy = "deliver"
    """The same for the class ``auto-generated``: ticket systems, shops, often a customer's own."""
    lists: PolicyWord | ClassPolicy = "deliver"
    """The same for the class ``list``."""
    bulk: PolicyWord | ClassPolicy = "deliver"
    """The same for the class ``bulk``."""
    reports: PolicyWord | ClassPolicy = "deliver"
    """The same for the class ``report``."""

    brake: BrakeConfig | None = None
    """Quarantines what one sender writes beyond a number of mails, as two programs do that answer one another. None:
    any number."""
    max_hops: int = Field(default=100, ge=10, le=10_000)
    """A mail that has gone through more servers than this (its Received fields) goes in a circle: quarantined."""

    disposition: DispositionLiteral = Disposition(seen=True)
    """What is done on the server to a settled message: ``seen``, ``leave``, ``delete``, ``{move: FOLDER}``, ``{flag:
    KEYWORD}``."""
    on_quarantine: DispositionLiteral | None = None
    """Overrules ``disposition`` for quarantined messages."""
    on_discard: DispositionLiteral | None = None
    """Overrules ``disposition`` for discarded messages."""
    quarantine: dict[str, Any] | None = None
    """Overrules the top-level ``quarantine`` for this mailbox; merged into it key by key."""
    watermarks: Watermarks | None = None
    """Overrules the top-level ``watermarks`` for this mailbox; merged into it key by key."""
    mode: Literal["live", "shadow"] = "live"
    """``shadow`` never changes anything in the mailbox: for running beside another ingestor."""

    start: StartLiteral = "unseen"
    """What the very first run takes: ``now`` (only what arrives later), ``unseen``, ``all`` or ``since:YYYY-MM-DD``."""
    poll_interval: Duration = timedelta(seconds=60)
    """How often every folder is listed, also while the server pushes news."""
    reconnect_interval: Duration = timedelta(seconds=30)
    """The least wait after a lost connection; grows with jitter to thirty times this, at most one hour. Only after
    five good minutes one more try comes within three seconds, since most troubles are over by then."""
    priority: MailboxPriority = "medium"
    """The mailbox's share where mailboxes have to wait for one another (memory, processor, queues, connections):
    ``high``, ``medium`` and ``low`` get 4 : 2 : 1. It says nothing about the priority of messages."""
    max_message_size: Size = 20_000_000
    """Octets of a message that are downloaded; what lies beyond is never asked for."""
    oversize: Literal["truncate", "quarantine"] = "truncate"
    """A larger message is cut to its first octets and marked, or quarantined."""
    hold_above: int = Field(default=100, ge=0, le=1_000_000_000)
    """After an epoch change (UIDVALIDITY, host or user), more unknown messages than this hold the mailbox until
    ``mailpoller accept``."""
    keep: Duration = timedelta(days=90)
    """How long the ledger remembers settled messages that have left the mailbox."""

    @field_validator("departments")
    @classmethod
    def _once_each(cls, departments: list[str]) -> list[str]:
        if len(set(departments)) < len(departments):
            raise ValueError("a department is named twice")
        return departments

    def own_addresses(self) -> Sequence[str]:
        """The mailbox's addresses, as far as its keys tell: those of ``address``, else the login if it is one."""
        if self.address is not None:
            return [self.address] if isinstance(self.address, str) else self.address
        account = self.polled_account()
        return [account.user] if account is not None and "@" in account.user else []

    def trust(self) -> Trust | None:
        """Whose word on senders is taken; None: nobody's."""
        return self.authentication.trust() if self.authentication is not None else self.usual_trust()

    def usual_trust(self) -> Trust | None:
        """Whose word is taken where nothing is said: that of a service whose own mailbox it is, and which removes what
        strangers write in its place."""
        return None

    def reply_charset(self) -> ReplyCharset | None:
        """In what answers are written; None: UTF-8."""
        if isinstance(self.charset, Charset):
            return ReplyCharset(self.charset.default, self.charset.replies, self.charset.euro)
        return None if self.charset is None else PRESETS[self.charset]

    def standing(self) -> Standing:
        """What its messages are told to be by where they came to."""
        return Standing(self.trusted, tuple(self.departments), self.force_default_queue)

    def disposition_for(self, kind: str) -> Disposition:
        """The disposition of an outcome of this kind."""
        if kind == "skipped" or self.mode == "shadow":
            return LEAVE
        if kind == "quarantined" and self.on_quarantine is not None:
            return self.on_quarantine
        if kind == "discarded" and self.on_discard is not None:
            return self.on_discard
        return self.disposition

    def policies(self) -> Mapping[MailClass, Policy]:
        """What becomes of each class that is not simply delivered."""
        made = {kind: _policy(getattr(self, key)) for kind, key in POLICIES.items()}
        return {kind: policy for kind, policy in made.items() if not policy.delivers}

    def findings(self) -> Iterable[Finding]:
        yield from super().findings()
        if _policy(self.auto_replies).delivers and "bounces" not in self.model_fields_set:
            text = "bounces are a class of their own, and are quarantined: say bounces, too (deliver if you want them)"
            yield Finding("auto_replies", text)

    def starts_at(self) -> datetime | None:
        """The instant of ``since:``, midnight UTC; None for the other kinds of start."""
        if not self.start.startswith("since:"):
            return None
        return datetime.fromisoformat(self.start.removeprefix("since:") + "T00:00:00+00:00")

    def named_folders(self) -> Sequence[str]:
        """The folders that are polled, by the names that they are configured by; empty if there is no choice.
        What the key ``folders`` says, if there is one."""
        return tuple(getattr(self, "folders", ()))

    def polled_account(self) -> Account | None:
        """Where these folders are: equal for two mailboxes that lead to the same mail. None: the keys do not tell.
        So that nobody polls a folder twice, or one that mail is moved to."""
        return None

    def folder_key(self, name: str) -> str:
        """Equal for two names of the same folder. The folder where mail arrives is INBOX, in whatever case."""
        return "INBOX" if name.upper() == "INBOX" else name

    def build(self, name: str, runtime: Runtime) -> Source:
        """The source of the mailbox ``name``. Opens nothing; raises :class:`ConfigError` if it cannot ever work."""
        raise NotImplementedError
